"""The whole way from text files to a report, by the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fournil.bake import stages_of
from fournil.recipe import load_recipe
from tests.e2e.conftest import Baked


def record(baked: Baked) -> dict:
    return json.loads((baked.storage / "runs/tiny/run.json").read_text())


def manifest(baked: Baked, stage: str) -> dict:
    return json.loads((baked.storage / "artifacts" / stage / record(baked)["artifacts"][stage] / "manifest.json").read_text())


def test_every_stage_leaves_an_artifact_whose_manifest_says_what_it_holds(baked: Baked) -> None:
    assert record(baked)["status"] == "done"
    assert set(record(baked)["artifacts"]) == {stage.name for stage in stages_of(load_recipe(baked.recipe))}
    for stage in record(baked)["artifacts"]:
        held = manifest(baked, stage)
        folder = baked.storage / "artifacts" / stage / held["hash"]
        assert held["stage"] == stage
        assert all((folder / entry["path"]).stat().st_size == entry["bytes"] for entry in held["files"])


def test_documents_in_are_kept_or_in_the_ledger(baked: Baked) -> None:
    extract, clean = manifest(baked, "extract")["metrics"], manifest(baked, "clean")["metrics"]
    rows = sum(
        entry.get("rows", 0)
        for stage in ("extract", "score", "clean")
        for entry in manifest(baked, stage)["files"]
        if "ledger/" in entry["path"]
    )
    assert extract["records_in"] == 480
    assert extract["records_in"] == clean["kept"] + rows


def test_annealing_stands_between_pretraining_and_fine_tuning(baked: Baked) -> None:
    artifacts = record(baked)["artifacts"]
    assert manifest(baked, "sft")["inputs"]["anneal"] == artifacts["anneal"]
    assert "pretrain" not in manifest(baked, "sft")["inputs"]
    models = json.loads((baked.storage / "artifacts/eval" / artifacts["eval"] / "results.json").read_text())["models"]
    assert models["base"]["artifact"] == f"anneal/{artifacts['anneal']}"
    assert manifest(baked, "anneal")["metrics"]["sources"]["instructions@chat"]["tokens"] > 0


def test_what_answers_is_the_model_trained_on_preferences(baked: Baked) -> None:
    artifacts = record(baked)["artifacts"]
    models = json.loads((baked.storage / "artifacts/eval" / artifacts["eval"] / "results.json").read_text())["models"]
    assert models["chat"]["artifact"] == f"dpo/{artifacts['dpo']}"
    pairs, learnt = manifest(baked, "preferences")["metrics"], manifest(baked, "dpo")["metrics"]
    assert {"other_sentence", "model_answer"} <= pairs["train"]["kinds"].keys()
    assert learnt["pairs"]["train"]["pairs"] + learnt["pairs"]["train"]["too_long"] == pairs["train"]["pairs"]
    assert learnt["heldout"]["pairs"]["loss_per_pair"] > 0
    adapter = baked.storage / "artifacts/dpo" / artifacts["dpo"] / "adapter/adapter_config.json"
    assert json.loads(adapter.read_text())["base_model_name_or_path"].endswith(f"sft/{artifacts['sft']}/export")


def test_a_second_bake_runs_nothing(baked: Baked) -> None:
    before = {path: path.stat().st_mtime_ns for path in (baked.storage / "artifacts").rglob("*") if path.is_file()}
    again = baked.run("bake", str(baked.recipe))
    assert again.returncode == 0
    assert again.stdout.count("kept (took") == len(record(baked)["artifacts"])
    assert {path: path.stat().st_mtime_ns for path in (baked.storage / "artifacts").rglob("*") if path.is_file()} == before


def test_only_what_follows_a_change_would_run(baked: Baked) -> None:
    plan = json.loads(baked.run("plan", str(baked.recipe), "--json", "--set", "sft.seed=5").stdout)
    to_do = [stage for stage, state in plan["stages"].items() if state.endswith("to do")]
    assert to_do == ["sft", "preferences", "dpo", "eval", "report"]


def test_the_report_stands_alone_and_shows_every_section(baked: Baked) -> None:
    page = Path(baked.run("report", "tiny").stdout.strip()).read_text(encoding="utf-8")
    for section in (
        "Funnel",
        "What was removed and why",
        "Mix",
        "Tokenizer",
        "Training",
        "Evaluation",
        "Sample answers",
        "Sources and licences",
    ):
        assert section in page
    assert page.count("<svg") >= 4
    assert not re.search(r"""(src|href)=["']https?:""", page)


def test_why_tells_a_documents_story(baked: Baked) -> None:
    from cluster.storage import Folder

    clean = Folder(str(baked.storage)) / "artifacts/clean" / record(baked)["artifacts"]["clean"]
    part = clean.names(".parquet", under="corpus/train")[0]
    id = clean.read_table(part, ["id"])["id"][0].as_py()
    told = baked.run("why", "tiny", id)
    assert told.returncode == 0
    assert "read from" in told.stdout
    assert "train" in told.stdout


def test_status_and_runs_and_logs(baked: Baked) -> None:
    status = json.loads(baked.run("status", "tiny", "--json").stdout)
    assert status["status"] == "done"
    assert set(status["stages"].values()) == {"ready"}
    assert [row["run"] for row in json.loads(baked.run("runs", "--json").stdout)] == ["tiny"]
    assert "stages ready in" in baked.run("logs", "tiny").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status", "nobody"), "known runs: tiny"),
        (("bake", "missing.yaml"), "cannot be read"),
        (("why", "tiny", "zz"), "is not a document id"),
        (("stop", "tiny"), "is not being baked"),
        (("serve", "nobody"), "no run 'nobody'"),
        (("bake", "RECIPE", "--until", "nothing"), "no such stage"),
        (("bake", "RECIPE", "--set", "pretrain.seqlen=3"), "did you mean 'seq_len'?"),
        (("bake", "RECIPE", "--set", "sources.0.paths=[nowhere/*.jsonl]"), "nowhere"),
        (("bake", "RECIPE", "--set", "tokenizer.vocab_size=600", "--address", "ray://127.0.0.1:9"), "no Ray cluster answers"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(baked: Baked, arguments: tuple[str, ...], words: str) -> None:
    given = [str(baked.recipe) if argument == "RECIPE" else argument for argument in arguments]
    refused = baked.run(*given)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert words in refused.stderr
