"""What a stage is, and how its work is cut into parts that survive a kill.

A stage is a function from a `StageContext` to a dict of metrics. It writes files below `context.out`; whatever it
wrote whole before a kill is still there when the same command runs it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.artifacts import Artifact
from cluster.config import Section
from cluster.progress import StageProgress
from cluster.storage import Folder

RECEIPTS = "receipts"


@dataclass(frozen=True)
class Resources:
    """What a stage may ask of Ray; never part of an artifact's hash."""

    workers: int = 1
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0


@dataclass(frozen=True)
class StageContext:
    """Everything a stage may look at.

    `config` is the recipe section (or a model of several) that the stage declared, `inputs` the artifacts it named,
    `out` its own artifact folder, `scratch` a local folder that is deleted once the stage commits, `logs` a local
    folder for what engines print.
    """

    stage: str
    config: Section
    inputs: dict[str, Artifact]
    out: Folder
    progress: StageProgress
    scratch: Path
    logs: Path
    resources: Resources = Resources()


def map_parts(
    parts: Iterable[dict[str, Any]],
    work: Callable[[dict[str, Any]], dict[str, Any]],
    context: StageContext,
    *,
    unit: str = "parts",
    cpus: float = 1,
) -> list[dict[str, Any]]:
    """Run `work` once for each part that has no receipt yet, as Ray Data tasks, and return all receipts in part order.

    A part is a small JSON-like dict with a unique `name`; `work` reads what it names, writes its outputs whole below
    the stage's folder and returns a small receipt (counts). The receipt file is the part's commit: a killed stage
    reruns only parts without one, and since outputs are named by part the result is the same. Only receipts reach
    the driver, never data.
    """
    import ray.data

    wanted = list(parts)
    folder = context.out / RECEIPTS
    finished = {name[: -len(".json")] for name in folder.names(".json")}
    todo = [part for part in wanted if part["name"] not in finished]
    context.progress.start(len(wanted), unit, done=len(wanted) - len(todo))
    if todo:
        task = _PartTask(work, folder)
        rows = ray.data.from_items([{"part": part} for part in todo], override_num_blocks=len(todo))
        for _ in rows.map(task, num_cpus=cpus).iter_rows():
            context.progress.advance(1)
    return [folder.read_json(f"{part['name']}.json") for part in wanted]


@dataclass(frozen=True)
class _PartTask:
    """The callable that Ray ships: do the part, then write its receipt."""

    work: Callable[[dict[str, Any]], dict[str, Any]]
    receipts: Folder

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part = row["part"]
        self.receipts.write_json(f"{part['name']}.json", self.work(part))
        return {"name": part["name"]}
