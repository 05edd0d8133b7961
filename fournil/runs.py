"""Runs: which artifacts a named bake is made of, kept in `<storage>/runs/<run>/run.json`."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

from cluster.artifacts import Artifact, load_artifact, now
from cluster.errors import RequestError
from cluster.storage import Folder

DEFAULT_STORAGE = "runs"


def open_storage(url: str | None) -> Folder:
    """The storage folder: `--storage`, else FOURNIL_STORAGE, else ./runs."""
    return Folder(url or os.environ.get("FOURNIL_STORAGE") or DEFAULT_STORAGE)


@dataclass(frozen=True)
class Run:
    """A named bake below `storage`."""

    name: str
    storage: Folder

    @property
    def folder(self) -> Folder:
        return self.storage / "runs" / self.name

    @property
    def report_path(self) -> str:
        return str(self.folder / "report/index.html")

    def exists(self) -> bool:
        return self.folder.exists("run.json")

    def read(self) -> dict[str, Any]:
        """The run's record; an unknown run is a `RequestError` that names the known ones."""
        if not self.exists():
            known = [run.name for run in list_runs(self.storage)]
            raise RequestError(f"no run {self.name!r} in {self.storage} ({_known(known)})")
        return self.folder.read_json("run.json")

    def write(self, **changes: Any) -> None:
        """Change fields of the record; `None` removes one."""
        record = self.folder.read_json("run.json") if self.exists() else {"run": self.name, "created": now()}
        record.update(changes)
        self.folder.write_json("run.json", {key: value for key, value in record.items() if value is not None})

    def begin(self, artifacts: dict[str, str], recipe: dict[str, Any]) -> None:
        """Record that a bake of these artifacts is under way in this process."""
        process = {"host": socket.gethostname(), "pid": os.getpid(), "start": _process_start(os.getpid())}
        self.write(
            artifacts=artifacts, recipe=recipe, status="running", stage=None, error=None, started=now(), finished=None, process=process
        )

    def artifacts(self) -> dict[str, Artifact]:
        """The run's finished artifacts by stage; unfinished stages are left out."""
        from cluster.artifacts import find_artifact

        found = {stage: find_artifact(self.storage, stage, hash) for stage, hash in self.read()["artifacts"].items()}
        return {stage: artifact for stage, artifact in found.items() if artifact is not None}

    def artifact(self, *stages: str) -> Artifact:
        """The finished artifact of the first of these stages that the run has (optional ones first, the last one always there in
        a whole bake); one that is not there yet is a `RequestError`."""
        hashes = self.read()["artifacts"]
        stage = next((stage for stage in stages if stage in hashes), None)
        if stage is None:
            raise RequestError(f"run {self.name!r} has no stage {stages[-1]!r}; bake further with `fournil bake`")
        return load_artifact(self.storage, stage, hashes[stage])

    def live_process(self) -> int | None:
        """The id of the process that bakes this run on this host now, None when there is none."""
        process = self.read().get("process") or {}
        if process.get("host") != socket.gethostname():
            return None
        pid = process.get("pid")
        return pid if pid and _process_start(pid) == process.get("start") is not None else None


def list_runs(storage: Folder) -> list[Run]:
    """All runs below `storage`, by name."""
    runs = [Run(name, storage) for name in (storage / "runs").children()]
    return [run for run in runs if run.exists()]


def _known(names: list[str]) -> str:
    return f"known runs: {', '.join(names)}" if names else "there are no runs yet; make one with `fournil bake recipes/demo.yaml`"


def _process_start(pid: int) -> float | None:
    """When the process with this id started, so that a reused id is not taken for it."""
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None
