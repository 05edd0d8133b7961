"""Mistakes in a recipe are one line: the file's line, the key, and the nearest right one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import RequestError
from fournil.recipe import load_recipe, parse_recipe

GOOD = """\
name: tiny
sources:
  - {name: notes, reader: text, lang: fr, family: culture, license: CC0-1.0, paths: [notes/*.txt]}
pretrain:
  seq_len: 64
  batch_tokens: 640
  micro_batch_tokens: 640
  optim:
    learning_rate: 0.002
clean:
  languages:
    fr: {gopher: {min_words: 20}}
"""


def error_of(text: str, *overrides: str) -> str:
    with pytest.raises(RequestError) as caught:
        parse_recipe(text, "my.yaml", overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_good_recipe_is_read() -> None:
    recipe = parse_recipe(GOOD)
    assert recipe.pretrain.optim.learning_rate == 0.002
    assert recipe.sources[0].name == "notes"
    assert recipe.clean.languages["fr"].gopher.min_words == 20


@pytest.mark.parametrize(
    ("wrong", "line", "near"),
    [
        (GOOD.replace("seq_len", "seq_length"), 5, "seq_len"),
        (GOOD.replace("  optim:", "  optimizer:"), 8, "optim"),
        (GOOD.replace("learning_rate", "learningrate"), 9, "learning_rate"),
        (GOOD.replace("pretrain:", "pretraining:"), 4, "pretrain"),
        (GOOD.replace("family:", "familly:"), 3, "family"),
        (GOOD.replace("min_words", "min_word"), 12, "min_words"),
    ],
)
def test_a_misspelt_key_names_its_line_and_the_nearest_key(wrong: str, line: int, near: str) -> None:
    message = error_of(wrong)
    assert message.startswith(f"my.yaml line {line}: ")
    assert near in message


def test_a_value_out_of_range_names_its_line_and_value() -> None:
    message = error_of(GOOD.replace("0.002", "-1"))
    assert message.startswith("my.yaml line 9: pretrain.optim.learning_rate: ")
    assert "greater than 0" in message
    assert "got -1" in message


def test_a_rule_between_two_keys_names_the_section() -> None:
    assert "multiples of seq_len" in error_of(GOOD.replace("batch_tokens: 640", "batch_tokens: 650", 1))


def test_broken_yaml_names_its_line() -> None:
    assert error_of("name: tiny\nsources: [a\nclean: {}\n").startswith("my.yaml line 3: not valid YAML")


def test_a_missing_section_is_named() -> None:
    assert "'sources' is missing" in error_of("name: tiny\n")


def test_overrides_change_values_and_list_items() -> None:
    recipe = parse_recipe(GOOD, "my.yaml", ["pretrain.seq_len=32", "sources.0.cap_mb=2", "mix.ratios={fr: 2.5}"])
    assert recipe.pretrain.seq_len == 32
    assert recipe.sources[0].cap_mb == 2
    assert recipe.mix.ratios == {"fr": 2.5}


@pytest.mark.parametrize("override", ["pretrain.seq_len", "=3", "sources.7.cap_mb=2", "pretrain.seqlen=2", "name.x.y=[1"])
def test_a_wrong_override_is_one_line(override: str) -> None:
    error_of(GOOD, override)


def test_a_missing_file_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")


@given(st.text(max_size=300))
def test_any_text_is_a_recipe_or_one_line(text: str) -> None:
    try:
        message = f"read {parse_recipe(text, 'any.yaml').name}"
    except RequestError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize("path", sorted(Path("recipes").glob("*.yaml")), ids=str)
def test_the_recipes_we_ship_are_valid(path: Path) -> None:
    load_recipe(path)


def test_what_the_survey_names_must_be_there() -> None:
    named = GOOD + "survey:\n  perplexity: {sources: {fr: [nots]}}\n"
    assert error_of(named) == (
        "my.yaml: survey.perplexity.sources.fr names 'nots', which is no source of this recipe; did you mean 'notes'?"
    )
    assert error_of(named, "survey.perplexity.sources={en: [notes]}") == (
        "my.yaml: survey.perplexity.sources.en names 'notes', whose lang is 'fr'"
    )
    sides = "survey:\n  classifier: {languages: {fr: {positive: [notes], negative: [notes]}}}\n"
    assert "'notes' cannot be positive and negative" in error_of(GOOD + sides)


def test_annealing_comes_after_a_rate_that_has_not_fallen() -> None:
    section = "anneal: {tokens: 1000, mix: {ratios: {fr: 2}}}\n"
    assert "anneal cools the learning rate down itself" in error_of(GOOD + section)
    assert parse_recipe(GOOD + section, overrides=["pretrain.optim.schedule=wsd", "pretrain.optim.decay_ratio=0"]).anneal
    assert error_of(GOOD + section.replace("mix", "mixx")).startswith("my.yaml line 13: unknown key 'anneal.mixx'; did you mean 'mix'")


def test_a_stage_that_trains_may_ask_for_a_range_of_workers() -> None:
    asked = parse_recipe(GOOD, overrides=["resources.pretrain.workers=[2, 8]", "resources.clean.workers=3"]).resources
    assert (asked["pretrain"].to_ask().min_workers, asked["pretrain"].to_ask().workers) == (2, 8)
    assert (asked["clean"].to_ask().min_workers, asked["clean"].to_ask().workers) == (None, 3)
    wrong = error_of(GOOD + "resources:\n  pretrain: {workers: [8, 2]}\n")
    assert wrong == "my.yaml line 14: resources.pretrain.workers: workers is a number from 1, or [fewest, most]"
    assert "resources.clean.workers must be one number" in error_of(GOOD, "resources.clean.workers=[1, 2]")


def test_a_cut_needs_a_model_to_cut_by() -> None:
    on = "clean.languages.fr.classifier={enabled: true, min_score: 0.5}"
    assert error_of(GOOD, on) == "my.yaml: clean.languages.fr.classifier is on, but the section survey has no model for it"
    assert parse_recipe(GOOD, overrides=["clean.languages.fr.perplexity.enabled=true"]).survey.perplexity.enabled
