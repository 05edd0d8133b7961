"""Weights & Biases and MLflow: one clear line where they are missing, files beside the logs where they are there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import RequestError
from tests.training.tiny import job, settings
from training.config import WatchConfig
from training.loop import train
from training.trackers import check_tracker, open_tracker

TRACKERS = ("wandb", "mlflow")


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def test_no_tracker_is_asked_for_by_default(tmp_path: Path) -> None:
    check_tracker(WatchConfig())
    assert open_tracker(job(tmp_path, "run", settings())) is None


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_missing_is_named_before_anything_starts(tmp_path: Path, name: Any) -> None:
    if installed(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(RequestError, match=rf"watch.tracker is {name}, .* pip install 'fournil\[{name}\]'"):
        check_tracker(WatchConfig(tracker=name))
    with pytest.raises(RequestError, match="not installed"):
        train(job(tmp_path, "run", settings(), watch=WatchConfig(tracker=name)))


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_writes_below_the_logs(tmp_path: Path, name: Any) -> None:
    if not installed(name):
        pytest.skip(f"{name} is an extra and not installed")
    logs = tmp_path / "logs"
    logs.mkdir()
    train(job(tmp_path, "run", settings(tokens=128 * 4), logs=logs, watch=WatchConfig(tracker=name, project="tests")))
    if name == "wandb":
        assert list(logs.glob("wandb/offline-run-*/*.wandb"))
        return
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{logs}/mlruns.db")
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["train/tokens"] == 512
    assert {"heldout/fr", "heldout/en", "train/loss", "train/goodput"} <= set(run.data.metrics)
