"""What a stage is, and how its work is cut into parts that survive a kill.

A stage is a function from a `StageContext` to a dict of metrics. It writes files below `context.out`; whatever it
wrote whole before a kill is still there when the same command runs it again.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.artifacts import Artifact
from cluster.config import Section
from cluster.errors import WorkError
from cluster.progress import StageProgress
from cluster.storage import Folder

RECEIPTS = "receipts"
HOSTS_LOG = "hosts.jsonl"


@dataclass(frozen=True)
class Resources:
    """What a stage may ask of Ray; never part of an artifact's hash.

    `min_workers` is set for a stage that makes do with fewer than `workers`, down to that many (training only).
    """

    workers: int = 1
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0
    min_workers: int | None = None


@dataclass(frozen=True)
class StageContext:
    """Everything a stage may look at.

    `config` is the recipe section (or a model of several) that the stage declared, `inputs` the artifacts it named,
    `out` its own artifact folder, `scratch` a local folder that is deleted once the stage commits, `logs` a local
    folder for what engines print, `watch` what the recipe says of showing the work elsewhere.
    """

    stage: str
    config: Section
    inputs: dict[str, Artifact]
    out: Folder
    progress: StageProgress
    scratch: Path
    logs: Path
    resources: Resources = Resources()
    watch: Section | None = None

    def input(self, *stages: str) -> Artifact:
        """The artifact of the first of these stages that this one was given: an optional stage's, or of what it stands in for."""
        return next(self.inputs[stage] for stage in stages if stage in self.inputs)


def map_parts(
    parts: Iterable[dict[str, Any]],
    work: Callable[[dict[str, Any]], dict[str, Any]],
    context: StageContext,
    *,
    unit: str = "parts",
    cpus: float = 1,
    gpus: float = 0,
) -> list[dict[str, Any]]:
    """Run `work` once for each part that has no receipt yet, as Ray Data tasks, and return all receipts in part order.

    A part is a small JSON-like dict with a unique `name`; `work` reads what it names, writes its outputs whole below
    the stage's folder and returns a small receipt (counts). The receipt file is the part's commit: a killed stage
    reruns only parts without one, and since outputs are named by part the result is the same. Only receipts reach
    the driver, never data. A part whose `work` raises stops the stage with a `WorkError` that names it; the traceback is
    in the logs, and so is `hosts.jsonl`, which tells where each part was done.
    """
    import ray.data
    from ray.exceptions import RayError

    wanted = list(parts)
    folder = context.out / RECEIPTS
    finished = {name[: -len(".json")] for name in folder.names(".json")}
    todo = [part for part in wanted if part["name"] not in finished]
    context.progress.start(len(wanted), unit, done=len(wanted) - len(todo))
    if todo:
        task = _PartTask(work, folder)
        rows = ray.data.from_items([{"part": part} for part in todo], override_num_blocks=len(todo))
        try:
            for row in rows.map(task, num_cpus=cpus, num_gpus=gpus or None).iter_rows():
                _take_in(row, context)
        except RayError as error:
            raise WorkError(f"stage {context.stage}: Ray gave up on a part ({_first_line(error)}); the same bake goes on") from error
    return [folder.read_json(f"{part['name']}.json") for part in wanted]


def _take_in(row: dict[str, Any], context: StageContext) -> None:
    """One finished part: count it and note its host, or stop the stage if its work raised."""
    if row["error"] is not None:
        log = context.logs / f"{context.stage}-error.log"
        log.write_text(row["traceback"], encoding="utf-8")
        raise WorkError(f"stage {context.stage}: part {row['part']} failed on {row['host']} ({row['error']}); see {log}")
    with (context.logs / HOSTS_LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps({"stage": context.stage, "part": row["part"], "host": row["host"]}) + "\n")
    context.progress.advance(1)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


@dataclass(frozen=True)
class _PartTask:
    """The callable that Ray ships: do the part, then write its receipt."""

    work: Callable[[dict[str, Any]], dict[str, Any]]
    receipts: Folder

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray.util

        part = row["part"]
        report = {"part": part["name"], "host": ray.util.get_node_ip_address(), "error": None, "traceback": None}
        try:
            receipt = self.work(part)
        except Exception as error:
            return report | {"error": _first_line(error), "traceback": traceback.format_exc()}
        self.receipts.write_json(f"{part['name']}.json", receipt)
        return report
