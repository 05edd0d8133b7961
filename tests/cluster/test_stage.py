"""Cutting a stage into parts: each runs once, its receipt is its commit, and a killed run's result is the same."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.config import Section
from cluster.errors import WorkError
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder

pytestmark = pytest.mark.usefixtures("ray_session")


@dataclass(frozen=True)
class Knead:
    """Writes one file for each part; dies, or fails, once or always, where told."""

    out: Folder
    marks: Path
    dies_at: str = ""
    fails_at: str = ""

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        name = part["name"]
        seen = self.marks / f"{name}-{len(list(self.marks.glob(f'{name}-*')))}"
        seen.touch()
        self.out.write_text(f"dough/{name}.txt", name * part["weight"])
        if name == self.fails_at:
            raise ValueError(f"{name} is burnt\nbeyond repair")
        if name == self.dies_at and seen.name.endswith("-0"):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"name": name, "grams": part["weight"] * 10}

    def runs(self) -> dict[str, int]:
        """How often each part's work began."""
        begun = [path.name.rpartition("-")[0] for path in self.marks.iterdir()]
        return {name: begun.count(name) for name in sorted(begun)}


PARTS = [{"name": f"p{number}", "weight": number} for number in range(5)]
RECEIPTS = [{"name": f"p{number}", "grams": number * 10} for number in range(5)]


@pytest.fixture
def context(stage_context: Callable[..., StageContext]) -> StageContext:
    return stage_context("knead", Section())


@pytest.fixture
def knead(context: StageContext, tmp_path: Path) -> Knead:
    (tmp_path / "marks").mkdir()
    return Knead(context.out, tmp_path / "marks")


def _contents(folder: Folder) -> dict[str, bytes]:
    return {name: folder.read_bytes(name) for name in folder.names()}


def test_receipts_come_back_in_part_order_and_say_where_they_were_made(context: StageContext, knead: Knead) -> None:
    assert map_parts(PARTS, knead, context) == RECEIPTS
    assert context.progress.describe().startswith("5/5 parts (100 %)")
    hosts = [json.loads(line) for line in (context.logs / "hosts.jsonl").read_text().splitlines()]
    assert sorted(row["part"] for row in hosts) == [part["name"] for part in PARTS]
    assert all(row["stage"] == "knead" and row["host"] for row in hosts)


def test_finished_parts_do_not_run_again(context: StageContext, knead: Knead) -> None:
    map_parts(PARTS, knead, context)
    before = _contents(context.out)
    assert map_parts(PARTS, knead, context) == RECEIPTS
    assert knead.runs() == {part["name"]: 1 for part in PARTS}
    assert map_parts([], knead, context) == []
    assert _contents(context.out) == before


def test_a_part_whose_worker_is_killed_runs_again(context: StageContext, knead: Knead) -> None:
    killed = Knead(knead.out, knead.marks, dies_at="p3")
    assert map_parts(PARTS, killed, context) == RECEIPTS
    assert killed.runs() == {"p0": 1, "p1": 1, "p2": 1, "p3": 2, "p4": 1}


def test_a_part_that_fails_stops_the_stage_with_one_line(context: StageContext, knead: Knead) -> None:
    burnt = Knead(knead.out, knead.marks, fails_at="p2")
    with pytest.raises(WorkError, match=r"stage knead: part p2 failed on .* \(ValueError: p2 is burnt\); see ") as caught:
        map_parts(PARTS, burnt, context)
    assert "\n" not in str(caught.value)
    log = (context.logs / "knead-error.log").read_text()
    assert "beyond repair" in log
    assert "Traceback" in log
    assert not context.out.exists("receipts/p2.json")
    assert map_parts(PARTS, knead, context) == RECEIPTS


def test_parts_keep_what_they_hold(context: StageContext) -> None:
    parts = [
        {"name": "nested", "paths": ["a", "b"], "window": [0, 10], "note": None, "deep": {"x": 1.5, "y": "é"}},
        {"name": "other", "paths": [], "flag": True, "big": 2**53},
    ]
    assert map_parts(parts, dict, context) == parts


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lost=st.sets(st.sampled_from([part["name"] for part in PARTS]), min_size=1))
def test_an_interrupted_stage_ends_like_an_undisturbed_one(lost: set[str], context: StageContext, knead: Knead) -> None:
    """Whatever parts were not committed, with their outputs half there, the files are the same in the end."""
    map_parts(PARTS, knead, context)
    undisturbed = _contents(context.out)
    for name in lost:
        context.out.delete(f"receipts/{name}.json")
        context.out.write_text(f"dough/{name}.txt", "from a run that was killed")
    assert map_parts(PARTS, knead, context) == RECEIPTS
    assert _contents(context.out) == undisturbed
