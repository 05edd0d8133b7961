"""Rotary tables against transformers', and what each scaling promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from training.config import ModelConfig
from training.export import huggingface_config
from training.rope import attention_factor, frequencies, rotary_tables


def config(**changes: Any) -> ModelConfig:
    return ModelConfig(**{"hidden_size": 256, "num_attention_heads": 4, "max_position_embeddings": 1024, **changes})


@pytest.mark.parametrize("method", [None, "linear", "ntk", "yarn"])
@pytest.mark.parametrize(("theta", "positions", "factor"), [(10_000.0, 1024, 2.0), (500_000.0, 16_384, 8.0)])
def test_tables_are_those_of_transformers(method: str | None, theta: float, positions: int, factor: float) -> None:
    scaling = method and {"method": method, "factor": factor}
    ours = config(rope_theta=theta, max_position_embeddings=positions, rope_scaling=scaling)
    theirs = LlamaRotaryEmbedding(LlamaConfig(**huggingface_config(ours, 100, "float32")))
    wanted = theirs(torch.zeros(1), torch.arange(positions).unsqueeze(0))
    for table, expected in zip(rotary_tables(ours), wanted, strict=True):
        assert torch.equal(table, expected[0])


def test_a_static_ntk_base_is_the_dynamic_one_at_that_length() -> None:
    theirs = LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "dynamic", "factor": 1.0, "rope_theta": 10_000.0},
    )
    wanted, _ = ROPE_INIT_FUNCTIONS["dynamic"](theirs, seq_len=1024)
    torch.testing.assert_close(frequencies(config(rope_scaling={"method": "ntk", "factor": 4})), wanted, rtol=1e-6, atol=0)


def test_linear_scaling_spreads_the_same_angles() -> None:
    plain, scaled = (
        rotary_tables(config(max_position_embeddings=256)),
        rotary_tables(config(rope_scaling={"method": "linear", "factor": 4})),
    )
    for table, wider in zip(plain, scaled, strict=True):
        torch.testing.assert_close(wider[::4], table)


def test_ntk_slows_the_slowest_pair_by_the_factor_and_the_fastest_not() -> None:
    ratio = frequencies(config()) / frequencies(config(rope_scaling={"method": "ntk", "factor": 4}))
    assert ratio[0].item() == 1
    assert ratio[-1].item() == pytest.approx(4, rel=1e-5)
    assert bool((ratio.diff() > 0).all())


def test_yarn_keeps_fast_pairs_interpolates_slow_ones_and_sharpens_scores() -> None:
    settings = config(rope_scaling={"method": "yarn", "factor": 4})
    ratio = frequencies(config()) / frequencies(settings)
    turns = frequencies(config()) * settings.unscaled_positions / (2 * math.pi)
    assert bool((ratio[turns > 33] == 1).all())
    torch.testing.assert_close(ratio[turns < 0.9], torch.full_like(ratio[turns < 0.9], 4.0))
    assert bool((ratio.diff() >= 0).all())
    assert attention_factor(settings) == pytest.approx(0.1 * math.log(4) + 1)
    assert rotary_tables(settings)[0][0, 0].item() == pytest.approx(attention_factor(settings))
    assert attention_factor(config(rope_scaling={"method": "linear", "factor": 4})) == 1


def test_positions_that_the_factor_does_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="must be a whole number of positions"):
        config(max_position_embeddings=1000, rope_scaling={"method": "yarn", "factor": 3})
