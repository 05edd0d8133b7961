"""FLOPs of a decoder by token, its parameter count, and the matmul peak of the machine it runs on."""

from __future__ import annotations

import time
from typing import Literal

from training.config import ModelConfig


def parameter_count(config: ModelConfig, vocab_size: int) -> int:
    d, f, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    kv = d // config.num_attention_heads * config.num_key_value_heads
    block = 2 * d * d + 2 * d * kv + 3 * d * f + 2 * d
    heads = 1 if config.tie_word_embeddings else 2
    return layers * block + d + heads * vocab_size * d


def flops_per_token(config: ModelConfig, vocab_size: int, seq_len: int, causal: bool = False) -> float:
    """Forward and backward FLOPs of one token."""
    d, f, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    kv = d // config.num_attention_heads * config.num_key_value_heads
    matmul = layers * (2 * d * d + 2 * d * kv + 3 * d * f) + vocab_size * d
    attention = 12 * layers * d * seq_len
    return 6.0 * matmul + (attention / 2 if causal else attention)


def matmul_peak(dtype: Literal["bf16", "fp32"], device: str = "cpu") -> float:
    """FLOP/s of a square matrix product in `dtype` on `device`, the best of several timed for a few hundred ms."""
    import torch

    size = 1024 if device == "cpu" else 8192
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    one, two = (torch.ones(size, size, dtype=kind, device=device) for _ in range(2))
    best, spent = float("inf"), 0.0
    while spent < 0.3:
        started = time.perf_counter()
        torch.mm(one, two)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        best, spent = min(best, seconds), spent + seconds
    return 2.0 * size**3 / best
