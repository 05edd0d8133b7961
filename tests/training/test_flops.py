"""Counts against the model itself and against torch's own FLOP counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.config import PRESETS, LoraConfig, ModelConfig
from training.flops import adapter_parameters, flops_per_token, matmul_parameters, matmul_peak, parameter_count
from training.lora import add_adapters
from training.model import Llama


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"num_key_value_heads": 8}])
def test_parameter_count_is_the_models(changes: dict[str, Any]) -> None:
    config = ModelConfig(**changes)
    with torch.device("meta"):
        model = Llama(config, 1_000)
    assert parameter_count(config, 1_000) == sum(parameter.numel() for parameter in model.parameters())


def test_croissant_has_its_published_size() -> None:
    config, vocab_size = PRESETS["croissant-1b"]
    assert parameter_count(config, vocab_size) == 1_345_423_360


def test_matmul_parameters_leave_out_lookup_and_norms() -> None:
    config = ModelConfig(tie_word_embeddings=False)
    norms = (2 * config.num_hidden_layers + 1) * config.hidden_size
    assert matmul_parameters(config, 1_000) == parameter_count(config, 1_000) - 1_000 * config.hidden_size - norms


def test_flops_are_what_torch_counts() -> None:
    """One forward and backward pass under torch's counter, which counts attention in full and the loss's three products."""
    config = ModelConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4)
    model = Llama(config, 128)
    tokens = torch.zeros(2, 32, dtype=torch.long)
    hidden = model.model.embed_tokens(tokens)
    with FlopCounterMode(display=False) as counter:
        model(tokens, tokens).backward()
    assert hidden.shape == (2, 32, 64)
    attention = 12 * config.num_hidden_layers * config.hidden_size * 32 * tokens.numel()
    matmul = 6 * matmul_parameters(config, 128) * tokens.numel()
    counts = counter.get_flop_counts()["Global"]
    found = sum(value for operator, value in counts.items() if "attention" not in str(operator))
    assert found == matmul
    assert flops_per_token(config, 128, 32) * tokens.numel() == matmul + attention


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("k_proj", "o_proj", "gate_proj", "up_proj", "down_proj")])
def test_adapters_are_the_models_trained_parameters(targets: tuple[Any, ...]) -> None:
    config, lora = ModelConfig(), LoraConfig(rank=3, targets=targets)
    with torch.device("meta"):
        model = Llama(config, 1_000)
    add_adapters(model, lora)
    assert adapter_parameters(config, lora) == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_flops_beside_frozen_weights_are_what_torch_counts() -> None:
    """But for what the loss does too much (the gradient of the frozen head) and what the first block need not do (the gradient of
    what comes out of the frozen embedding)."""
    width, vocab_size, lora = 64, 128, LoraConfig(rank=4, targets=("q_proj", "k_proj", "v_proj", "down_proj"))
    config = ModelConfig(hidden_size=width, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4)
    model = Llama(config, vocab_size)
    add_adapters(model, lora)
    tokens = torch.zeros(2, 32, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(tokens, tokens).backward()
    counts = counter.get_flop_counts()["Global"]
    found = sum(value for operator, value in counts.items() if "attention" not in str(operator))
    attention = 12 * config.num_hidden_layers * width * 32
    needless, spared = 2 * width * vocab_size, 2 * 3 * (width * width + width * lora.rank)
    assert (flops_per_token(config, vocab_size, 32, lora=lora) - attention + needless - spared) * tokens.numel() == found


def test_causal_attention_counts_the_positions_it_sees() -> None:
    config = ModelConfig()
    rest = 6.0 * matmul_parameters(config, 8_192)
    full, causal = (flops_per_token(config, 8_192, 256, causal=causal) - rest for causal in (False, True))
    assert causal / full == pytest.approx(sum(range(1, 257)) / 256**2)


def test_peak_is_a_speed() -> None:
    assert matmul_peak("fp32") > 1e8
