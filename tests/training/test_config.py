"""Presets: their exact sizes, and how a recipe uses them."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import RequestError
from fournil.recipe import parse_recipe
from training.config import PRESETS, ModelConfig
from training.flops import parameter_count

PARAMETERS = {
    "demo": 6_524_160,
    "3m": 3_000_384,
    "10m": 10_130_688,
    "30m": 29_304_960,
    "100m": 99_799_680,
    "300m": 303_350_784,
    "croissant-1b": 1_345_423_360,
    "3b": 3_020_073_984,
    "7b": 6_916_706_304,
}
"""As docs/training.md states them."""

RECIPE = """\
name: tiny
sources:
  - {name: notes, reader: text, lang: fr, family: culture, license: CC0-1.0, paths: [notes/*.txt]}
model:
"""


def model_section(text: str, *overrides: str) -> ModelConfig:
    return parse_recipe(RECIPE + text, "my.yaml", overrides).model


def test_presets_have_their_documented_sizes() -> None:
    assert {name: parameter_count(config, vocab_size) for name, (config, vocab_size) in PRESETS.items()} == PARAMETERS
    for config, _ in PRESETS.values():
        assert config.head_dim in (64, 128)
        assert config.hidden_size % 64 == config.intermediate_size % 64 == 0
        assert config.intermediate_size == pytest.approx(8 / 3 * config.hidden_size, rel=0.05)


def test_a_preset_is_expanded_and_overridden() -> None:
    config = model_section("  {preset: 30m, max_position_embeddings: 2048}")
    assert config == PRESETS["30m"][0].model_copy(update={"max_position_embeddings": 2048})
    assert model_section("  preset: 30m", "model.num_hidden_layers=2").num_hidden_layers == 2


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_leaves_no_trace_in_what_is_hashed(name: str) -> None:
    explicit: dict[str, Any] = PRESETS[name][0].model_dump(mode="json")
    assert "preset" not in explicit
    assert ModelConfig(preset=name).model_dump(mode="json") == ModelConfig.model_validate(explicit).model_dump(mode="json") == explicit


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"my\.yaml line 4: model: unknown preset '30'; did you mean '30m'"):
        model_section("  preset: '30'")
    with pytest.raises(RequestError, match=r"unknown key 'model\.presets'; did you mean 'preset'"):
        model_section("  presets: 30m")
