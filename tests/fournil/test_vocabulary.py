"""The commands `tokenizer` and `glitch`: what they ask for, what they print."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.artifacts import commit_artifact, now
from cluster.errors import RequestError
from cluster.progress import Reporter
from cluster.storage import Folder
from fournil.bake import plan_bake
from fournil.cli import app
from fournil.recipe import load_recipe
from fournil.runs import Run
from fournil.vocabulary import scan_lines, scan_target, sweep_recipe, sweep_tables
from pipelines import mix
from pipelines.config import MixConfig
from tests.clean_corpus import bilingual, write_clean
from tests.training.test_sft import conversation, write_instructions
from tests.training.tiny import MODEL, job, settings, write_tokens
from training.config import PretrainJobConfig, SftConfig
from training.loop import train
from training.packing import PackSplit
from training.pretrain import TokensInput

HASH = "a" * 16


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    (tmp_path / "notes.txt").write_text("du texte\n", encoding="utf-8")
    source = f"{{name: notes, reader: text, lang: fr, family: culture, license: CC0-1.0, paths: [{tmp_path}/notes.txt]}}"
    (tmp_path / "recipe.yaml").write_text(
        f"name: t\nsources:\n  - {source}\ntokenizer: {{sample_mb: 0.05, shares: {{fr: 1, en: 1}}}}\n", encoding="utf-8"
    )
    return tmp_path / "recipe.yaml"


def test_wrong_sizes_and_a_missing_mix_are_told(recipe_file: Path, storage: Folder) -> None:
    recipe = load_recipe(recipe_file)
    for sizes, message in (
        ("100,600", r"greater than or equal to 512 \(got 100\)"),
        ("a", "give numbers with commas"),
        ("600,", "give numbers"),
    ):
        with pytest.raises(RequestError, match=message):
            sweep_recipe(recipe, storage, sizes, address="local", reporter=Reporter())
    with pytest.raises(RequestError, match="no clean and no mix yet"):
        sweep_recipe(recipe, storage, "600", address="local", reporter=Reporter())


@pytest.mark.usefixtures("ray_session")
def test_a_sweep_is_made_once_and_printed(recipe_file: Path, storage: Folder, stage_context) -> None:
    recipe = load_recipe(recipe_file)
    clean = write_clean(storage, bilingual(60), bilingual(3, seed=500))
    hashes = {item.stage.name: item.hash for item in plan_bake(recipe, storage, "mix")}
    shutil.copytree(clean.folder.local_path(), storage.local_path(f"artifacts/clean/{hashes['clean']}"))
    metrics = mix.run(stage_context("mix", MixConfig(), key=hashes["mix"], clean=clean))
    commit_artifact(storage, "mix", hashes["mix"], inputs={}, config={}, versions={}, started=now(), seconds=0.0, metrics=metrics)
    report = sweep_recipe(recipe, storage, "600,512", address="local", reporter=Reporter())
    costs = {row["name"]: row["model"] for row in report["tokenizers"] if "model" in row}
    assert list(costs) == ["fournil 512", "fournil 600"]
    assert costs["fournil 600"]["embedding_parameters"] == 600 * recipe.model.hidden_size
    tables = sweep_tables(report)
    assert [row["tokenizer"] for row in tables["bytes per token"]] == [row["name"] for row in report["tokenizers"]]
    assert tables["tokens for the same content (parallel documents)"][0]["tokenizer"] == "UTF-8 bytes"
    manifest = next(storage.local_path("artifacts/tokenizer_sweep").glob("*/manifest.json"))
    made = manifest.stat().st_mtime_ns
    arguments = ["tokenizer", str(recipe_file), "--sizes", "512,600", "--storage", str(storage)]
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(printed.stdout) == json.loads(json.dumps(report))
    assert "fournil 512" in CliRunner().invoke(app, arguments).stdout
    assert manifest.stat().st_mtime_ns == made


def test_what_glitch_says(storage: Folder) -> None:
    with pytest.raises(RequestError, match="--stage base: give one of pretrain, anneal, sft, dpo"):
        scan_target("run", storage, "base", share=0.1, seen_below=1, worst=1)
    with pytest.raises(RequestError, match="no run 'run'"):
        scan_target("run", storage, "sft", share=0.1, seen_below=1, worst=1)
    part = {"rare_flagged": 9, "precision": 0.9, "of_all_tokens": 0.1, "recall": 0.5}
    report = {
        "flagged": 10,
        "tokens": 180,
        "model": "m",
        "check": {"seen_below": 3, "counted": {"pretrain": 1000, "sft": 200}, "distance": part, "cosine": part},
    }
    assert scan_lines(report)[1] == "counted: 1,000 tokens in pretraining, 200 of the assistant's in fine-tuning"
    assert scan_lines(report)[2].startswith("distance: 90.0% of them were seen less than 3 times (of all tokens 10.0%)")
    assert len(scan_lines({key: value for key, value in report.items() if key != "check"})) == 1


def test_a_runs_model_is_checked_by_all_that_it_was_trained_on(storage: Folder, tmp_path: Path) -> None:
    """Pretraining, and a fine-tuning whose model is the same one: what was packed for it is counted beside."""
    text, chat = settings(tokens=128 * 4), SftConfig(seq_len=64, batch_tokens=128, micro_batch_tokens=64)
    places = {stage: storage / "artifacts" / stage / HASH for stage in ("tokens", "pretrain", "sft")}
    write_tokens(places["tokens"].local_path())
    made = job(tmp_path, "unused", text, data=TokensInput(places["tokens"], text), out=places["pretrain"])
    tokens = train(made)["tokens"]
    talks = write_instructions(tmp_path / "talks", [conversation(number) for number in range(9)], [conversation(9)])
    packed = [PackSplit(talks, made.tokenizer, places["sft"], chat.seq_len)({"name": name}) for name in ("train", "heldout")]
    shutil.copytree(places["pretrain"].local_path("export"), places["sft"].local_path("export"))
    places["sft"].write_json("summary.json", {"steps": -(-packed[0]["rows"] // 2), "shifts": []})
    configs = {"tokens": {}, "pretrain": PretrainJobConfig(model=MODEL, pretrain=text), "sft": chat}
    for stage, config in configs.items():
        declared = config if isinstance(config, dict) else config.model_dump(mode="json")
        commit_artifact(storage, stage, HASH, inputs={}, config=declared, versions={}, started=now(), seconds=0.0, metrics={})
    Run("small", storage).begin(dict.fromkeys(places, HASH), {})
    counted = [scan_target("small", storage, stage, share=0.1, seen_below=2, worst=3)["check"]["counted"] for stage in ("pretrain", "sft")]
    assert counted == [{"pretrain": tokens}, {"pretrain": tokens, "sft": packed[0]["target_tokens"]}]
    assert "seen" in CliRunner().invoke(app, ["glitch", "small", "--stage", "sft", "--storage", str(storage)]).stdout
    with pytest.raises(RequestError, match="has no stage 'dpo'"):
        scan_target("small", storage, "dpo", share=0.1, seen_below=2, worst=3)
