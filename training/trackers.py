"""Weights & Biases or MLflow, where a recipe asks for one: `watch: {tracker: wandb}`.

Both write files below the run's logs and talk to nobody, unless `watch.online` says so; then they find their server and key as
they always do (`WANDB_API_KEY`, `MLFLOW_TRACKING_URI`, ...). Fournil reads and writes no key.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import RequestError
from training.config import WatchConfig
from training.metrics import Sink, figures

if TYPE_CHECKING:
    from training.job import Job


def check_tracker(watch: WatchConfig) -> None:
    """A `RequestError` when the recipe asks for a tracker that is not installed."""
    if watch.tracker and importlib.util.find_spec(watch.tracker) is None:
        raise RequestError(
            f"watch.tracker is {watch.tracker}, which is not installed here; pip install 'fournil[{watch.tracker}]', or leave it out"
        )


def open_tracker(job: Job) -> Sink | None:
    """The recipe's tracker for one attempt at a job, with its files in the job's logs; None when it asks for none."""
    if job.watch.tracker is None:
        return None
    check_tracker(job.watch)
    stage, address = job.out.url.rstrip("/").split("/")[-2:]
    opened = {"wandb": WandbRun, "mlflow": MlflowRun}[job.watch.tracker]
    return opened(job.watch, f"{stage}-{address}", job.attempt, job.logs or job.out.local_path())


class WandbRun:
    """One W&B run an attempt, grouped by the artifact: their steps may only grow, and an attempt begins before the last one's end."""

    def __init__(self, watch: WatchConfig, name: str, attempt: str, logs: Path) -> None:
        wandb: Any = importlib.import_module("wandb")
        self._run = wandb.init(
            project=watch.project,
            group=name,
            name=f"{name}-{attempt}",
            dir=str(logs),
            mode="online" if watch.online else "offline",
            settings=wandb.Settings(console="off", silent=True, save_code=False, disable_git=True),
        )

    def write(self, line: dict[str, Any]) -> None:
        if values := figures(line):
            self._run.log(values, step=line["step"])

    def close(self) -> None:
        self._run.finish(quiet=True)


class MlflowRun:
    """One MLflow run an attempt, in `logs/mlruns.db` unless online."""

    def __init__(self, watch: WatchConfig, name: str, attempt: str, logs: Path) -> None:
        mlflow: Any = importlib.import_module("mlflow")
        self._entities: Any = importlib.import_module("mlflow.entities")
        place = os.environ.get("MLFLOW_TRACKING_URI") if watch.online else f"sqlite:///{logs}/mlruns.db"
        self._client = mlflow.MlflowClient(place)
        known = self._client.get_experiment_by_name(watch.project)
        experiment = known.experiment_id if known else self._client.create_experiment(watch.project)
        self._run = self._client.create_run(experiment, run_name=f"{name}-{attempt}", tags={"artifact": name}).info.run_id

    def write(self, line: dict[str, Any]) -> None:
        moment = int(1_000 * line["time"])
        values = [self._entities.Metric(name, float(value), moment, line["step"]) for name, value in figures(line).items()]
        if values:
            self._client.log_batch(self._run, metrics=values)

    def close(self) -> None:
        self._client.set_terminated(self._run)
