"""The evaluation stage: prepare the items, ask the models, write `results.json` and `samples/<task>.parquet`.

Reading order: `run` (the stage), `evaluate_folder` and `evaluate_url` (any model, by hand), `_evaluate` (what they share).
Every part is written when it is finished and kept when the same command runs again:
`receipts/<stream>.json` and `prepared/<task>-<stream>.parquet` (items and baselines, one Ray task a stream), then
`finished/<task>.<role>.parquet` and `.json` (answers and figures of one model). `tasks/result.py` states the shape of
a figure.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.artifacts import Artifact, stage_hash
from cluster.errors import RequestError
from cluster.progress import StageProgress
from cluster.stage import Resources, StageContext, map_parts
from cluster.storage import Folder
from evaluation.config import EvalConfig
from evaluation.engines import HttpEngine, Model, RayEngine, load_tokenizer, model_context
from evaluation.sample import sample_documents
from evaluation.tasks import answers, bits_per_byte, minimal_pairs, translation
from evaluation.tasks.result import Result, rounded
from pipelines.config import STREAMS
from pipelines.document import render
from pipelines.mix import HELDOUT, TRAIN
from serving.config import ServeConfig

VERSION = "1"
RESULTS, SAMPLES, PREPARED, FINISHED = "results.json", "samples", "prepared", "finished"
TASKS = (bits_per_byte.TASK, minimal_pairs.TASK, translation.TASK, answers.TASK)
CHAT_TASKS = (translation.TASK, answers.TASK)
SUITES: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {"heldout_kb": 32, "minimal_pairs": 60, "translation_segments": 12, "train_mb": 4},
    **{task: {"tasks": (task,)} for task in TASKS},
}
"""What `--suite` names: changes to the recipe's evaluation section."""
KB, MB = 1_000, 1_000_000
HELDOUT_BYTES_PER_SEGMENT = 20_000


@dataclass(frozen=True)
class Subject:
    """A model to ask: `start` brings its engine up, which may wait for a free place on the cluster."""

    role: str
    tasks: tuple[str, ...]
    start: Callable[[], Model]


def run(context: StageContext) -> dict[str, Any]:
    """The stage: the base model (annealed, if the run anneals) and the chat model of a run, side by side where the cluster has room."""
    config = _config(context)
    base = context.input("anneal", "pretrain")
    trained_on = base.manifest.get("config", {}).get("pretrain", {}).get("seq_len")
    trained = {"base": base, "chat": context.input("dpo", "sft")}
    fits = _engines_that_fit(context.resources)
    workers = max(1, min(context.resources.workers, fits // len(trained)))
    share = Resources(workers, context.resources.cpus_per_worker, context.resources.gpus_per_worker)
    tasks = {"base": tuple(task for task in config.tasks if task not in CHAT_TASKS), "chat": config.tasks}
    subjects = [
        _folder_subject(role, tasks[role], made.folder / "export", {"artifact": f"{made.stage}/{made.hash}"}, trained_on, context, share)
        for role, made in trained.items()
    ]
    results = _evaluate(context, subjects, side_by_side=fits >= len(trained) * workers)
    return {"headline": _headline(results["results"]), "figures": len(results["results"]), "skipped": results["skipped"]}


def suite_config(config: EvalConfig, suite: str) -> EvalConfig:
    """`config` with the changes that the suite of that name makes; an unknown name is a `RequestError`."""
    if suite not in SUITES:
        near = difflib.get_close_matches(suite, SUITES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SUITES)}"
        raise RequestError(f"--suite {suite}: no such suite; {hint}")
    return config.model_copy(update=SUITES[suite])


def evaluate_folder(
    model_folder: Folder,
    clean: Artifact,
    config: EvalConfig,
    storage: Folder,
    *,
    logs: Path,
    progress: StageProgress,
    resources: Resources | None = None,
    trained_on: int | None = None,
) -> dict[str, Any]:
    """Ask the model of any Hugging Face folder, through vLLM on Ray (already connected), and return its `results.json`.

    `trained_on` is the row length it was trained on (a run's `pretrain.seq_len`), None for its whole context. Everything
    is kept below `storage/evaluations/<hash>`, so an interrupted evaluation goes on.
    """
    infos = {name: model_folder.filesystem.get_file_info(model_folder.at(name)) for name in model_folder.names()}
    files = {name: [info.size, info.mtime_ns] for name, info in infos.items()}
    if "config.json" not in files:
        raise RequestError(f"no model in {model_folder}; give a run, an endpoint's URL or the folder of a Hugging Face export")
    context = _hand_context(
        {"folder": str(model_folder), "files": files, "trained_on": trained_on}, clean, config, storage, logs, progress, resources
    )
    fits = _engines_that_fit(context.resources)
    share = Resources(min(context.resources.workers, fits), context.resources.cpus_per_worker, context.resources.gpus_per_worker)
    about = {"folder": str(model_folder)}
    return _evaluate(context, [_folder_subject("model", config.tasks, model_folder, about, trained_on, context, share)], side_by_side=False)


def evaluate_url(
    url: str,
    clean: Artifact,
    config: EvalConfig,
    storage: Folder,
    *,
    logs: Path,
    progress: StageProgress,
    model: str | None = None,
    tokenizer: Folder | None = None,
    api_key: str | None = None,
) -> dict[str, Any]:
    """Ask the model behind an endpoint of vLLM's and return `results.json`.

    The tokenizer is read from the model folder that the endpoint names when this machine has it, else from `tokenizer`.
    """
    engine = HttpEngine(url, model, api_key)
    try:
        folder = _served_folder(engine, tokenizer)
        context = _hand_context({"url": engine.url, "model": engine.model}, clean, config, storage, logs, progress, None)
        context.out.delete(FINISHED)  # another model may answer there by now

        def start() -> Model:
            limit = int(engine.card.get("max_model_len") or model_context(folder))
            return _model("model", engine, load_tokenizer(folder), limit, None, config, {"url": engine.url, "model": engine.model})

        return _evaluate(context, [Subject("model", config.tasks, start)], side_by_side=False)
    finally:
        engine.close()


def _evaluate(context: StageContext, subjects: list[Subject], *, side_by_side: bool) -> dict[str, Any]:
    """Prepare, ask every subject, put the figures together; returns what `results.json` holds."""
    config = _config(context)
    work = PrepareStream(context.inputs["clean"].folder, context.out, config)
    receipts = map_parts([{"name": stream} for stream in STREAMS], work, context, unit="streams")
    references = {receipt["stream"]: receipt[bits_per_byte.TASK] for receipt in receipts if receipt.get(bits_per_byte.TASK)}
    meter = _Meter(context, subjects)
    with ThreadPoolExecutor(len(subjects) if side_by_side else 1, thread_name_prefix="subject") as pool:
        waiting = [pool.submit(_ask, context, subject, references, meter) for subject in subjects]
    for done in waiting:
        done.result()
    return _assemble(context, subjects)


@dataclass(frozen=True)
class PrepareStream:
    """Makes the items and baselines of one stream, as a Ray task: reads the corpus, writes `prepared/`, returns the receipt."""

    clean: Folder
    out: Folder
    config: EvalConfig

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        stream, config = part["name"], self.config
        wanted = max(
            config.heldout_kb * KB,
            config.minimal_pairs * minimal_pairs.HELDOUT_BYTES_PER_ITEM,
            config.translation_segments * HELDOUT_BYTES_PER_SEGMENT,
        )
        heldout = sample_documents(self.clean / HELDOUT, stream, int(wanted))
        train = sample_documents(self.clean / TRAIN, stream, int(config.train_mb * MB))
        texts = [text for document in train for text in render(document.text, document.translation)]
        receipt: dict[str, Any] = {"stream": stream, "heldout_documents": len(heldout), "train_documents": len(train)}
        if bits_per_byte.TASK in config.tasks and heldout:
            table = bits_per_byte.heldout_texts(heldout, stream, int(config.heldout_kb * KB))
            values, fitted = bits_per_byte.baselines(table["text"].to_pylist(), texts)
            self._write(bits_per_byte.TASK, stream, table)
            receipt[bits_per_byte.TASK] = {"values": values, "fitted": fitted}
        if minimal_pairs.TASK in config.tasks and stream in minimal_pairs.LANGUAGES:
            sentences = [(document.id, document.text) for document in heldout]
            self._write(minimal_pairs.TASK, stream, minimal_pairs.prepare(stream, texts, sentences, config.minimal_pairs))
        if translation.TASK in config.tasks and stream == "parallel":
            self._write(translation.TASK, stream, translation.prepare(train, heldout, config.translation_segments))
        return receipt

    def _write(self, task: str, stream: str, table: pa.Table) -> None:
        self.out.write_table(f"{PREPARED}/{task}-{stream}.parquet", table)


def _items(context: StageContext, task: str) -> pa.Table:
    """A task's items over all streams."""
    if task == answers.TASK:
        return answers.items(_config(context).questions)
    out = context.out
    names = [name for stream in STREAMS if out.exists(name := f"{PREPARED}/{task}-{stream}.parquet")]
    tables = [out.read_table(name) for name in names]
    return pa.concat_tables(tables) if tables else pa.table({})


def _ask(context: StageContext, subject: Subject, references: dict[str, Any], meter: _Meter) -> None:
    """All unfinished tasks of one subject; its engine starts only if there are some."""
    todo = [task for task in subject.tasks if not context.out.exists(_finished(task, subject.role))]
    if not todo:
        return
    meter.note(subject.role, "starting the engine")
    model = subject.start()
    try:
        for task in todo:
            _ask_task(context, task, model, references, meter)
    finally:
        model.engine.close()


def _ask_task(context: StageContext, task: str, model: Model, references: dict[str, Any], meter: _Meter) -> None:
    config, out, items = _config(context), context.out, _items(context, task)
    results: list[Result] = []
    reason, samples = _why_not(task, model, items), pa.table({})

    def advance(amount: float) -> None:
        meter.advance(model.role, task, amount)

    if reason is None:
        if task == bits_per_byte.TASK:
            results, samples = bits_per_byte.evaluate(model, items, references, config.seed, advance)
        elif task == minimal_pairs.TASK:
            results, samples = minimal_pairs.evaluate(model, items, advance)
        elif task == answers.TASK:
            samples = answers.evaluate(model, items, config.max_new_tokens, advance)
        else:
            results, samples = translation.evaluate(model, items, config.max_new_tokens, config.seed, advance)
        out.write_table(f"{FINISHED}/{task}.{model.role}.parquet", samples)
    else:
        advance(items.num_rows)
    report = {"results": [result.as_json() for result in results], "skipped": reason, "model": model.about}
    out.write_json(_finished(task, model.role), report)


def _why_not(task: str, model: Model, items: pa.Table) -> str | None:
    """Why a task cannot be asked of a model, or None."""
    if not items.num_rows:
        return "there is nothing to ask: no held-out text for it"
    if task in CHAT_TASKS and not model.tokenizer.chat_template:
        return "the tokenizer has no chat template"
    return None


def _finished(task: str, role: str) -> str:
    return f"{FINISHED}/{task}.{role}.json"


def _assemble(context: StageContext, subjects: list[Subject]) -> dict[str, Any]:
    """Write `samples/<task>.parquet` (all models' answers) and `results.json`; return the latter."""
    out, config = context.out, _config(context)
    results: list[Any] = []
    skipped: list[dict[str, str]] = []
    models: dict[str, Any] = {}
    said: list[dict[str, str]] = []
    for task in config.tasks:
        tables = []
        for role in (subject.role for subject in subjects if task in subject.tasks):
            report = out.read_json(_finished(task, role))
            models[role] = report["model"]
            results += report["results"]
            if report["skipped"]:
                skipped.append({"model": role, "task": task, "reason": report["skipped"]})
            else:
                tables.append(out.read_table(f"{FINISHED}/{task}.{role}.parquet"))
        if tables:
            out.write_table(f"{SAMPLES}/{task}.parquet", pa.concat_tables(tables))
        if task == answers.TASK:
            said = [row for table in tables for row in table.select(["model", "lang", "question", "answer"]).to_pylist()]
    report = rounded({"models": models, "results": results, "answers": said, "skipped": skipped})
    out.write_json(RESULTS, report)
    return report


class _Meter:
    """Counts items over the threads that ask the models, and says what each is at. The clock starts with the first answer."""

    def __init__(self, context: StageContext, subjects: list[Subject]) -> None:
        self._progress, self._lock = context.progress, threading.Lock()
        self._notes: dict[str, str] = {}
        self._answered = False
        rows = {task: _items(context, task).num_rows for task in _config(context).tasks}
        pairs = [(task, subject.role) for subject in subjects for task in subject.tasks]
        self._total = sum(rows[task] for task, _ in pairs)
        self._done = sum(rows[task] for task, role in pairs if context.out.exists(_finished(task, role)))
        self._progress.start(self._total, "items", done=self._done)

    def advance(self, role: str, task: str, amount: float) -> None:
        with self._lock:
            if self._answered:
                self._progress.advance(amount)
            else:
                self._progress.start(self._total, "items", done=self._done + amount)
                self._answered = True
            self._say(role, task)

    def note(self, role: str, what: str) -> None:
        with self._lock:
            self._say(role, what)

    def _say(self, role: str, what: str) -> None:
        self._notes[role] = what
        self._progress.note(", ".join(f"{role} {what}" for role, what in sorted(self._notes.items())))


def _folder_subject(
    role: str,
    tasks: tuple[str, ...],
    folder: Folder,
    about: dict[str, Any],
    trained_on: int | None,
    context: StageContext,
    resources: Resources,
) -> Subject:
    """A model folder behind vLLM actors."""
    config = _config(context)
    gpus = resources.gpus_per_worker
    serve = ServeConfig.model_validate(
        {"accelerator": "gpu" if gpus else "cpu", "dtype": config.dtype, "tensor_parallel": max(1, int(gpus))}
    )

    def start() -> Model:
        limit, tokenizer = model_context(folder), load_tokenizer(folder)
        engine = RayEngine(folder, serve, context.logs / f"eval-{role}.log", resources)
        return _model(role, engine, tokenizer, limit, trained_on, config, about)

    return Subject(role, tasks, start)


def _model(role: str, engine: Any, tokenizer: Any, limit: int, trained_on: int | None, config: EvalConfig, about: dict[str, Any]) -> Model:
    window = min(config.window_tokens or trained_on or limit, limit - 1)
    return Model(role, engine, tokenizer, limit, window, {**about, "context_tokens": limit, "window_tokens": window})


def _engines_that_fit(resources: Resources) -> int:
    """Engines of that size the cluster holds at once; a `RequestError` when there is no room for one."""
    import ray

    total = ray.cluster_resources()
    fits = int(total.get("CPU", 0) // resources.cpus_per_worker)
    if resources.gpus_per_worker:
        fits = min(fits, int(total.get("GPU", 0) // resources.gpus_per_worker))
    if fits < 1:
        wanted = f"{resources.cpus_per_worker:g} CPUs and {resources.gpus_per_worker:g} GPUs"
        raise RequestError(f"evaluation asks {wanted} for an engine and no cluster node has them; change resources.eval")
    return fits


def _served_folder(engine: HttpEngine, fallback: Folder | None) -> Folder:
    root = str(engine.card.get("root") or "")
    if (Path(root) / "tokenizer.json").is_file():
        return Folder(root)
    if fallback is None:
        raise RequestError(f"{engine.url} does not say where its tokenizer is; name the run it came from with --data")
    return fallback


def _hand_context(
    target: dict[str, Any],
    clean: Artifact,
    config: EvalConfig,
    storage: Folder,
    logs: Path,
    progress: StageProgress,
    resources: Resources | None,
) -> StageContext:
    """A context like a stage's, in a folder named by what is asked of what."""
    key = stage_hash("eval", VERSION, {"config": config.model_dump(mode="json"), "target": target}, {"clean": clean.hash})
    return StageContext("eval", config, {"clean": clean}, storage / "evaluations" / key, progress, logs, logs, resources or Resources())


def _config(context: StageContext) -> EvalConfig:
    assert isinstance(context.config, EvalConfig)
    return context.config


def _headline(results: list[dict[str, Any]]) -> str:
    """The pretrained model's bits per byte beside xz's, for the line the bake prints."""
    own = [item for item in results if item["task"] == bits_per_byte.TASK and item["model"] == "base"]
    return ", ".join(f"{item['subset']} {item['value']:.2f} bits/byte (xz {item['baselines']['xz -9']:.2f})" for item in own)
