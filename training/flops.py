"""Parameters of a decoder, FLOPs of a token, and the matmul peak of the machine: what "share of peak" is made of."""

from __future__ import annotations

import time
from typing import Literal

from training.config import LoraConfig, ModelConfig

PEAK_SIZES = {"cpu": 1024, "cuda": 8192}
"""Side of the square matrices whose product is timed: fits a CPU's caches, fills a GPU."""

PEAK_SECONDS = 0.3

FLOPS_FORMULA = "PaLM appendix B: 6 x parameters in products + 12 x layers x hidden x seq_len, a token forward and backward"


def parameter_count(config: ModelConfig, vocab_size: int) -> int:
    """All parameters; tied embeddings count once."""
    tables = 1 if config.tie_word_embeddings else 2
    norms = (2 * config.num_hidden_layers + 1) * config.hidden_size
    return block_matrices(config) + norms + tables * vocab_size * config.hidden_size


def matmul_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Parameters that every token is multiplied with: the blocks' matrices and the output head, not the embedding lookup."""
    return block_matrices(config) + vocab_size * config.hidden_size


def flops_per_token(config: ModelConfig, vocab_size: int, seq_len: int, causal: bool = False, *, lora: LoraConfig | None = None) -> float:
    """FLOPs of one token's forward and backward pass, PaLM appendix B (Chowdhery et al. 2022, arXiv 2204.02311).

    6 for each parameter in a matrix product (2 forward, 4 backward) plus 12 x layers x hidden x `seq_len` for the two
    products of attention. PaLM counts all `seq_len` positions; `causal=True` counts those a token may look at,
    (seq_len + 1) / 2 on average. Recomputation never counts. With `lora` a frozen parameter has 4 (no gradient of its own) and
    an adapter's 6.
    """
    positions = (seq_len + 1) / 2 if causal else seq_len
    attention = 12.0 * config.num_hidden_layers * config.hidden_size * positions
    if lora is None:
        return 6.0 * matmul_parameters(config, vocab_size) + attention
    return 4.0 * matmul_parameters(config, vocab_size) + 6.0 * adapter_parameters(config, lora) + attention


def matmul_peak(dtype: Literal["bf16", "fp32"], device: str = "cpu") -> float:
    """FLOP/s of a matrix product in `dtype` with this process's threads: the fastest of those that fit in 0.3 s.

    Squares of 1024 on CPU and 8192 on CUDA. A measured peak says how well the loop uses what the libraries reach
    here; it is below the vendor's figure.
    """
    import torch

    size = PEAK_SIZES[device]
    wanted = torch.bfloat16 if dtype == "bf16" else torch.float32
    left, right = (torch.ones(size, size, dtype=wanted, device=device) for _ in range(2))
    fastest, spent = float("inf"), 0.0
    while spent < PEAK_SECONDS:
        started = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        fastest, spent = min(fastest, seconds), spent + seconds
    return 2.0 * size**3 / fastest


def block_matrices(config: ModelConfig) -> int:
    """Parameters of the blocks' matrices, all that Muon may update."""
    return config.num_hidden_layers * sum(read * written for read, written in projections(config).values())


def adapter_parameters(config: ModelConfig, lora: LoraConfig) -> int:
    """All that LoRA trains: rank x (in + out) for each target of each block."""
    return config.num_hidden_layers * lora.rank * sum(sum(projections(config)[name]) for name in set(lora.targets))


def projections(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Widths that each matrix of a block reads and writes."""
    width, ffn, kv_width = config.hidden_size, config.intermediate_size, config.head_dim * config.num_key_value_heads
    return {
        "q_proj": (width, width),
        "k_proj": (width, kv_width),
        "v_proj": (width, kv_width),
        "o_proj": (width, width),
        "gate_proj": (width, ffn),
        "up_proj": (width, ffn),
        "down_proj": (ffn, width),
    }
