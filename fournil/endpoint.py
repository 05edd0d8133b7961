"""Serving and evaluating what the user names: a run, a model folder or an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.artifacts import Artifact
from cluster.errors import RequestError
from cluster.progress import Reporter
from cluster.storage import Folder
from fournil.bake import log_folder
from fournil.recipe import StageResources
from fournil.runs import Run, list_runs, open_storage

Say = Callable[[str], None]
ANSWER_TOKENS = 80


def serve_target(target: str, storage: str | None, *, port: int | None, host: str | None, questions: Sequence[str], say: Say) -> None:
    """Serve a run's chat model or a model folder; with `questions`, print the answers fetched over HTTP and stop."""
    from serving.app import deploy, serve_forever
    from serving.client import ask
    from serving.config import ServeConfig

    folder, run = _model_and_run(target, open_storage(storage))
    config = ServeConfig.model_validate(run.read()["recipe"]["serve"]) if run else ServeConfig()
    changes = {key: value for key, value in (("port", port), ("host", host)) if value is not None}
    config = config.model_copy(update=changes)
    logs = log_folder(run) / "serve" if run else Path("fournil-serve-logs").absolute()
    if not questions:
        serve_forever(str(folder.local_path()), config, logs, say)
        return
    endpoint = deploy(str(folder.local_path()), config, logs, say)
    try:
        say(f"the model answers at {endpoint.url}:")
        for question in questions:
            say(f"  > {question}")
            say(f"  {ask(endpoint.url, [{'role': 'user', 'content': question}], max_tokens=ANSWER_TOKENS)}")
    finally:
        endpoint.stop()


def evaluate_target(
    target: str, suite: str | None, data: str | None, address: str, storage_url: str | None, reporter: Reporter
) -> list[dict[str, Any]]:
    """Evaluate a run's chat model, a model folder or an endpoint on a run's held-out documents; returns its figures."""
    from cluster.session import connect
    from cluster.stage import Resources
    from evaluation.config import EvalConfig
    from evaluation.harness import evaluate_folder, evaluate_url, suite_config

    storage = open_storage(storage_url)
    is_url = target.startswith(("http://", "https://"))
    folder, run = (None, None) if is_url else _model_and_run(target, storage)
    source = run or _data_run(data, storage)
    clean = source.artifact("clean")
    recipe = source.read()["recipe"]
    config = suite_config(EvalConfig.model_validate(recipe["eval"]), suite or "full")
    asked = StageResources.model_validate(recipe["resources"].get("eval", {}))
    common: dict[str, Any] = {"clean": clean, "config": config, "storage": storage, "logs": log_folder(source)}
    reporter.say(f"engine logs: {log_folder(source)}, Ray's own: {connect(address)}")
    with reporter.stage("eval") as progress:
        if is_url:
            tokenizer = _tokenizer_folder(source)
            found = evaluate_url(target, progress=progress, tokenizer=tokenizer, **common)
        else:
            assert folder is not None
            resources = Resources(**asked.model_dump())
            found = evaluate_folder(
                folder, progress=progress, resources=resources, trained_on=recipe["pretrain"]["seq_len"] if run else None, **common
            )
    return [_figure(result) for result in found["results"]]


def _figure(result: dict[str, Any]) -> dict[str, Any]:
    interval = result["interval95"]
    return {
        "task": result["task"],
        "subset": result["subset"],
        "metric": result["metric"],
        "value": result["value"],
        "95 %": f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else None,
        "n": result["n"],
        "chance": result["chance"],
        "baselines": ", ".join(f"{name} {value:.3f}" for name, value in result["baselines"].items()),
    }


def _model_and_run(target: str, storage: Folder) -> tuple[Folder, Run | None]:
    """The model folder that RUN or FOLDER names, and the run if it is one."""
    if (Path(target) / "config.json").is_file():
        return Folder(str(Path(target).resolve())), None
    run = Run(target, storage)
    if not run.exists() and Path(target).is_dir():
        raise RequestError(f"{target} is a folder without config.json; give a Hugging Face model folder or a run's name")
    return run.artifact("dpo", "sft").folder / "export", run


def _data_run(data: str | None, storage: Folder) -> Run:
    """The run whose held-out documents are read: the one named, or the only one there is."""
    if data is not None:
        return Run(data, storage)
    runs = list_runs(storage)
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs) or "none yet"
        raise RequestError(f"say which run's held-out documents to read with --data RUN (runs here: {names})")
    return runs[0]


def _tokenizer_folder(run: Run) -> Folder | None:
    """The run's exported tokenizer, if it has one."""
    exported: Artifact | None = run.artifacts().get("tokenizer")
    return exported.folder if exported else None
