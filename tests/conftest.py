"""Fixtures shared by all tests: one Ray session, and folders and contexts for stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.artifacts import Artifact, commit_artifact, now
from cluster.config import Section
from cluster.progress import StageProgress
from cluster.session import connect, disconnect
from cluster.stage import Resources, StageContext
from cluster.storage import Folder

pytest_plugins = ["tests.served"]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One private Ray cluster with two CPUs for the whole run."""
    connect("local", cpus=2)
    yield
    disconnect()


@pytest.fixture
def storage(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "storage"))


@pytest.fixture
def stage_context(tmp_path: Path, storage: Folder) -> Callable[..., StageContext]:
    """`stage_context("clean", config, extract=artifact)` makes what a stage's `run` takes."""

    def make(stage: str, config: Section, *, resources: Resources | None = None, key: str = "test", **inputs: Artifact) -> StageContext:
        scratch, logs = tmp_path / "scratch" / stage, tmp_path / "logs"
        scratch.mkdir(parents=True, exist_ok=True)
        logs.mkdir(parents=True, exist_ok=True)
        out = storage / "artifacts" / stage / key
        return StageContext(stage, config, dict(inputs), out, StageProgress(stage), scratch, logs, resources or Resources())

    return make


@pytest.fixture
def finish(storage: Folder) -> Callable[[StageContext, dict[str, Any]], Artifact]:
    """Commit what a stage wrote, so that the next stage can take it as input."""

    def commit(context: StageContext, metrics: dict[str, Any]) -> Artifact:
        return commit_artifact(
            storage, context.stage, "test", inputs={}, config={}, versions={}, started=now(), seconds=0.0, metrics=metrics
        )

    return commit
