"""What each stage will see, counted by hand: before anything has run, and from what the stages before it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.artifacts import Artifact
from cluster.storage import Folder
from fournil.plan_amounts import Amount, describe_annealing, describe_sources, examples_seen, planned_amounts, planned_tokens
from fournil.recipe import Recipe, parse_recipe
from pipelines.mix import make_mix
from training.config import DpoConfig, SftConfig

MIX = ["mix={ratios: {fr: 2, en: 1}, annealing: {ratios: {fr: 1, en: 3}}}", "pretrain.optim={schedule: wsd, decay_ratio: 0}"]
ANNEAL = "anneal={tokens: 140000, instructions: 2}"


def recipe(*overrides: str) -> Recipe:
    sources = "\n".join(
        f"  - {{name: {name}, reader: text, lang: {lang}, family: culture, license: CC0-1.0, paths: [{name}.txt], cap_mb: {cap}}}"
        for name, lang, cap in (("notes", "fr", 0.7), ("papers", "en", 1.4))
    )
    return parse_recipe(f"name: t\nsources:\n{sources}\n", overrides=[*MIX, *overrides])


def finished(root: Path, stage: str, metrics: dict[str, Any], **files: Any) -> Artifact:
    folder = Folder(str(root / stage))
    for name, content in files.items():
        folder.write_table(f"{name}.parquet", content) if isinstance(content, pa.Table) else folder.write_json(f"{name}.json", content)
    return Artifact(stage, stage, folder, {"metrics": metrics})


def texts(rows: int, **sizes: int) -> pa.Table:
    return pa.table({name: ["x" * size] * rows for name, size in sizes.items()})


def instructions(root: Path) -> Artifact:
    return finished(root, "instructions", {"train": {"examples": 70}}, train=texts(70, messages=700))


def index(**tokens: int) -> dict[str, Any]:
    sources = {
        name: {"tokens": count, "ratio": 2.0 if name == "notes" else 1.0, "shards": [{"path": "", "tokens": count}]}
        for name, count in tokens.items()
    }
    return {"dtype": "uint16", "eos": 0, "sources": sources}


def test_before_anything_has_run() -> None:
    amounts = planned_amounts(recipe(ANNEAL, "dpo={tokens: 5000}"), {})
    assert amounts == {
        "pretrain": Amount(600_000, "guessed: caps at 3.5 bytes per token, seen once"),
        "anneal": Amount(140_000, "anneal.tokens"),
        "sft": Amount(None, "unknown until the instructions stage has run"),
        "dpo": Amount(5_000, "dpo.tokens"),
    }


def test_examples_are_guessed_from_their_bytes(tmp_path: Path) -> None:
    """70 x 700 bytes are 14,000 tokens, 54.7 rows of 256; a prompt of a pair is there twice: 10 x (2 x 70 + 35 + 175) bytes."""
    ready = {
        "instructions": instructions(tmp_path),
        "preferences": finished(tmp_path, "preferences", {"train": {"pairs": 10}}, train=texts(10, messages=70, chosen=35, rejected=175)),
    }
    origin = "guessed at 3.5 bytes per token"
    assert examples_seen("sft", SftConfig(seq_len=256, epochs=2), ready) == Amount(2 * 55 * 256, origin, 70, 14_000)
    assert examples_seen("sft", SftConfig(seq_len=256, tokens=7_000), ready) == Amount(7_000, "sft.tokens", 70, 14_000)
    assert examples_seen("dpo", DpoConfig(seq_len=256), ready) == Amount(4 * 256, origin, 10, 1_000)


def test_a_finished_stage_has_counted_its_rows(tmp_path: Path) -> None:
    metrics = {"steps": 3, "examples": {"train": {"examples": 64, "too_long": 6, "rows": 50}}}
    ready = {"instructions": instructions(tmp_path), "sft": finished(tmp_path, "sft", metrics)}
    assert examples_seen("sft", SftConfig(seq_len=256, epochs=1.5), ready) == Amount(75 * 256, "counted", 64, 50 * 256)


def test_sources_from_caps_have_the_ratios_of_their_phase() -> None:
    """200,000 and 400,000 tokens: seen twice and once in pretraining, once and three times in annealing, which is shorter."""
    asked = recipe("anneal={tokens: 140000}")
    before = describe_sources(asked, {}, None)
    assert before["from"] == "caps, nothing removed, tokens guessed at 3.5 bytes per token"
    assert before["notes"] == "400.00 k tokens of 200.00 k (2 epochs), 50.0 % of what is seen"
    after = describe_annealing(asked, {})
    assert after["notes"] == "20.00 k tokens of 200.00 k (0.1 epochs), 14.3 % of what is seen"
    assert after["papers"] == "120.00 k tokens of 400.00 k (0.3 epochs), 85.7 % of what is seen"


def test_annealing_of_counted_tokens_is_exact_and_knows_the_chat_examples(tmp_path: Path) -> None:
    """Of 6,400 + 3 x 12,800 + 2 x 14,000 tokens of a pass, in rows of 256, 72,800 are about one."""
    asked = recipe("anneal={tokens: 72800, instructions: 2}")
    counts = [
        {"source": name, "stream": lang, "family": "culture", "lang": lang, "copies": 1, "documents": 1, "bytes": size}
        for name, lang, size in (("notes", "fr", 7_000), ("papers", "en", 14_000))
    ]
    mix = make_mix(counts, asked.mix)
    ready = {
        "mix": finished(tmp_path, "mix", {}, mix=mix),
        "tokens": finished(tmp_path, "tokens", {}, index=index(notes=6_400, papers=12_800)),
    }
    assert planned_tokens(asked, ready) == (25_600, "counted")
    without = describe_annealing(asked, ready)
    assert without["from"] == "counted; without the chat examples, unknown until the instructions stage has run"
    assert set(without) == {"from", "notes", "papers"}
    found = describe_annealing(asked, {**ready, "instructions": instructions(tmp_path)})
    assert found["from"] == "counted; chat examples guessed at 3.5 bytes per token"
    epochs = {name: float(line.split("(")[1].split()[0]) for name, line in found.items() if name != "from"}
    assert epochs == pytest.approx({"notes": 1, "papers": 3, "instructions@chat": 2}, rel=0.03)
    chat = {"sources": {"instructions@chat": {"tokens": 13_500}}}
    folder = Folder(str(tmp_path / "anneal"))
    folder.write_json("chat/index.json", chat)
    exact = describe_annealing(asked, {**ready, "anneal": Artifact("anneal", "a", folder, {})})
    assert exact["from"] == "counted"
    assert "of 13.50 k (" in exact["instructions@chat"]
