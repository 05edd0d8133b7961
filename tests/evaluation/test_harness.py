from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.artifacts import Artifact, commit_artifact, now
from cluster.errors import RequestError, WorkError
from cluster.progress import StageProgress
from cluster.stage import Resources, StageContext
from cluster.storage import Folder
from evaluation.config import EvalConfig
from evaluation.engines import Model
from evaluation.harness import SUITES, Subject, _evaluate, evaluate_folder, run, suite_config
from evaluation.tasks.bits_per_byte import document_bits
from tests.clean_corpus import bilingual, write_clean
from tests.evaluation.reference import TransformersEngine, ignore, model_of

pytestmark = pytest.mark.usefixtures("ray_session")

CONFIG = EvalConfig(heldout_kb=2, minimal_pairs=4, translation_segments=3, max_new_tokens=4, train_mb=0.02, window_tokens=64)
TASKS = ("bits_per_byte", "minimal_pairs", "translation", "answers")


@pytest.fixture
def clean(storage: Folder) -> Artifact:
    return write_clean(storage, bilingual(12, seed=1), bilingual(6, seed=50_000))


def subject(engine: TransformersEngine, folder: Path, role: str, started: list[str], tasks: tuple[str, ...] = TASKS) -> Subject:
    def start() -> Model:
        started.append(role)
        return model_of(engine, folder, role=role)

    return Subject(role, tasks, start)


def export(storage: Folder, stage: str, model: Path) -> Artifact:
    """A finished training stage whose export is the tiny model."""
    folder = storage / f"artifacts/{stage}/test"
    for file in model.iterdir():
        folder.write_bytes(f"export/{file.name}", file.read_bytes())
    config = {"pretrain": {"seq_len": 64}}
    return commit_artifact(storage, stage, "test", inputs={}, config=config, versions={}, started=now(), seconds=0.0, metrics={})


def test_stage_writes_results_and_goes_on_where_it_stopped(
    stage_context: Callable[..., StageContext], storage: Folder, clean: Artifact, tiny_model: Path
) -> None:
    exports = {stage: export(storage, stage, tiny_model) for stage in ("pretrain", "sft")}
    context = stage_context("eval", CONFIG, clean=clean, **exports)
    engine, started = TransformersEngine(tiny_model), []

    broken = TransformersEngine(tiny_model)

    def fail(*_: Any) -> Any:
        raise WorkError("the engine was killed")

    broken.generate = fail
    base = subject(engine, tiny_model, "base", started, TASKS[:2])
    with pytest.raises(WorkError, match="killed"):
        _evaluate(context, [base, subject(broken, tiny_model, "chat", started)], side_by_side=False)
    assert started == ["base", "chat"]
    assert context.out.exists("finished/minimal_pairs.chat.json")
    assert not context.out.exists("results.json")

    chat = subject(engine, tiny_model, "chat", started)
    before = context.out.read_bytes("finished/minimal_pairs.chat.json")
    report = _evaluate(context, [base, chat], side_by_side=True)
    assert started == ["base", "chat", "chat"]
    assert context.out.read_bytes("finished/minimal_pairs.chat.json") == before

    metrics = run(context)  # everything is finished: no engine starts
    assert context.out.read_json("results.json") == report
    assert metrics["figures"] == len(report["results"]) == 2 * 4 + 2 * 2 + 4
    assert "fr " in metrics["headline"]
    assert metrics["skipped"] == []


def test_results_say_what_they_are(stage_context: Callable[..., StageContext], clean: Artifact, tiny_model: Path) -> None:
    context = stage_context("eval", CONFIG, clean=clean)
    report = _evaluate(context, [subject(TransformersEngine(tiny_model), tiny_model, "model", [])], side_by_side=False)
    found = {(row["task"], row["subset"], row["metric"]) for row in report["results"]}
    expected = {("bits_per_byte", stream, "bits_per_byte") for stream in ("fr", "en", "code", "parallel")}
    expected |= {("minimal_pairs", lang, "accuracy") for lang in ("fr", "en")}
    expected |= {("translation", direction, metric) for direction in ("fr-en", "en-fr") for metric in ("chrf", "bleu")}
    assert found == expected
    for row in report["results"]:
        assert row["model"] == "model"
        assert row["baselines"]
        assert row["interval95"][0] <= row["value"] <= row["interval95"][1] or row["metric"] == "bleu"
        assert row["n"] > 1
    for task in TASKS[:3]:
        table = context.out.read_table(f"samples/{task}.parquet")
        assert table.num_rows == sum(row["n"] for row in report["results"] if row["task"] == task and row["metric"] != "bleu")
    assert [(row["model"], row["lang"]) for row in report["answers"]] == [("model", "fr"), ("model", "en"), ("model", "en")]
    assert context.out.read_table("samples/answers.parquet")["answer"].to_pylist() == [row["answer"] for row in report["answers"]]
    fitted = report["results"][0]["details"]["fitted"]["byte 6-gram"]
    assert 0 < fitted["train_bytes"] < 40_000


def test_text_to_score_is_held_out_and_no_more_than_asked(
    stage_context: Callable[..., StageContext], clean: Artifact, tiny_model: Path
) -> None:
    config = CONFIG.model_copy(update={"tasks": ("bits_per_byte",), "heldout_kb": 0.5})
    context = stage_context("eval", config, clean=clean)
    _evaluate(context, [subject(TransformersEngine(tiny_model), tiny_model, "model", [], ("bits_per_byte",))], side_by_side=False)
    rows = context.out.read_table("samples/bits_per_byte.parquet").to_pylist()
    heldout = {one for name in ("livre", "book", "programs", "pages") for one in _ids(clean, "heldout", name)}
    assert {row["id"] for row in rows} <= heldout
    for stream in ("fr", "en", "code", "parallel"):
        assert sum(row["bytes"] for row in rows if row["stream"] == stream) == 500


def _ids(clean: Artifact, split: str, source: str) -> list[str]:
    return clean.folder.read_table(f"corpus/{split}/{source}-0.parquet", ["id"])["id"].to_pylist()


def test_stream_without_heldout_text_is_left_out(stage_context: Callable[..., StageContext], storage: Folder, tiny_model: Path) -> None:
    rows = [row for row in bilingual(8) if row["source"] == "livre"]
    clean = write_clean(storage, rows, rows[:3])
    context = stage_context("eval", CONFIG, clean=clean)
    report = _evaluate(context, [subject(TransformersEngine(tiny_model), tiny_model, "model", [])], side_by_side=False)
    assert {row["subset"] for row in report["results"] if row["task"] == "bits_per_byte"} == {"fr"}
    assert {"model": "model", "task": "translation", "reason": "there is nothing to ask: no held-out text for it"} in report["skipped"]


def test_vllm_in_ray_actors_agrees_with_transformers(storage: Folder, clean: Artifact, tiny_model: Path, tmp_path: Path) -> None:
    """The one test here that starts vLLM; a second call finds everything finished."""

    def ask() -> dict[str, Any]:
        config = CONFIG.model_copy(update={"heldout_kb": 1.0})
        folder = Folder(str(tiny_model))
        progress = StageProgress("eval")
        return evaluate_folder(folder, clean, config, storage, logs=tmp_path, progress=progress, resources=Resources(workers=1))

    report = ask()
    (folder,) = (storage / "evaluations").children()
    out = storage / "evaluations" / folder
    rows = out.read_table("samples/bits_per_byte.parquet").to_pylist()
    model = model_of(TransformersEngine(tiny_model), tiny_model, window=64)
    bits, _ = document_bits(model, [row["text"] for row in rows], ignore)
    assert [row["bits"] for row in rows] == pytest.approx(bits, rel=1e-3)
    pairs = out.read_table("samples/minimal_pairs.parquet").to_pylist()
    assert [row["logprob_bad"] for row in pairs] == pytest.approx(model.log_likelihoods([row["bad"] for row in pairs], ignore), rel=1e-3)
    answers = out.read_table("samples/translation.parquet").to_pylist()
    assert [row["answer"] for row in answers] == model.answer([row["prompt"] for row in answers], 4, ignore)
    assert (tmp_path / "eval-model-0.log").exists()
    assert ask() == report


def test_suites_change_the_section() -> None:
    assert suite_config(CONFIG, "translation").tasks == ("translation",)
    assert suite_config(CONFIG, "full") == CONFIG
    for name in SUITES:
        config = suite_config(CONFIG, name)
        assert EvalConfig.model_validate(config.model_dump()) == config
    with pytest.raises(RequestError, match="did you mean translation"):
        suite_config(CONFIG, "translations")


def test_not_a_model_folder(storage: Folder, clean: Artifact, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no model in"):
        evaluate_folder(Folder(str(tmp_path / "absent")), clean, CONFIG, storage, logs=tmp_path, progress=StageProgress("eval"))


def test_more_than_the_cluster_has(storage: Folder, clean: Artifact, tiny_model: Path, tmp_path: Path) -> None:
    resources = Resources(cpus_per_worker=64)
    with pytest.raises(RequestError, match="64 CPUs"):
        evaluate_folder(Folder(str(tiny_model)), clean, CONFIG, storage, logs=tmp_path, progress=StageProgress("eval"), resources=resources)
