"""Which stages a recipe asks for, and what an optional one changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import RequestError
from cluster.storage import Folder
from fournil.bake import plan_bake, stages_of
from fournil.recipe import Recipe, parse_recipe

ANNEAL = ["pretrain.optim={schedule: wsd, decay_ratio: 0}", "anneal={tokens: 1000, decay_shape: sqrt}"]


def recipe(folder: Path, *overrides: str) -> Recipe:
    if not (folder / "notes.txt").exists():  # another time of writing is another source
        (folder / "notes.txt").write_text("du texte\n", encoding="utf-8")
    source = f"{{name: notes, reader: text, lang: fr, family: culture, license: CC0-1.0, paths: [{folder}/notes.txt]}}"
    return parse_recipe(f"name: t\nsources:\n  - {source}\n", overrides=overrides)


def hashes(recipe: Recipe, storage: Folder) -> dict[str, str]:
    return {item.stage.name: item.hash for item in plan_bake(recipe, storage)}


def test_an_optional_stage_is_there_with_its_section_and_stands_in_for_what_it_improves(tmp_path: Path) -> None:
    without = {stage.name: stage for stage in stages_of(recipe(tmp_path))}
    having = {stage.name: stage for stage in stages_of(recipe(tmp_path, *ANNEAL))}
    assert [name for name in having if name != "anneal"] == list(without)
    for stage in ("sft", "eval"):
        assert "pretrain" in without[stage].inputs
        assert "anneal" in having[stage].inputs
        assert "pretrain" not in having[stage].inputs
    assert {"pretrain", "anneal"} <= set(having["report"].inputs)
    assert "anneal" not in without["report"].inputs


def test_an_optional_stage_changes_only_what_reads_it(tmp_path: Path, storage: Folder) -> None:
    without, having = hashes(recipe(tmp_path, ANNEAL[0]), storage), hashes(recipe(tmp_path, *ANNEAL), storage)
    assert [stage for stage in without if without[stage] != having[stage]] == ["sft", "eval", "report"]


def test_until_an_optional_stage_that_is_off_says_so(tmp_path: Path, storage: Folder) -> None:
    assert [item.stage.name for item in plan_bake(recipe(tmp_path, *ANNEAL), storage, "anneal")][-1] == "anneal"
    with pytest.raises(RequestError, match="the recipe has no section 'anneal'"):
        plan_bake(recipe(tmp_path), storage, "anneal")
    with pytest.raises(RequestError, match="no such stage; the stages are fetch,"):
        plan_bake(recipe(tmp_path), storage, "nothing")
