"""Sharded checkpoints (torch DCP) that are there whole or not at all, and load on any number of workers.

`checkpoints/step-XXXXXXXX/` holds DCP's files (`.metadata`, `__<rank>_0.distcp`) and `state.json`:
`{"step", "tokens", "fingerprint", "identity", "model", "vocab_size", "workers", "files": {name: [bytes, xxh3-64]}}`.
All workers write into one `.tmp-` folder; once each has finished, rank 0 adds `state.json` and renames the folder.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash
from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_state_dict, set_model_state_dict, set_state_dict
from torch.optim import Optimizer

from cluster.errors import RequestError, WorkError
from cluster.storage import Folder
from training.distributed import World

CHECKPOINTS = "checkpoints"
STATE = "state.json"
_NAME = re.compile(r"step-\d{8}")
_CHUNK = 1 << 22


def checkpoint_folder(artifact: Folder) -> Path:
    """Where an artifact's checkpoints are; a `RequestError` when that is an object store, which DCP's rename needs."""
    if not artifact.is_local:
        raise RequestError(
            f"training writes checkpoints with renames and {artifact.url} is an object store: "
            "mount it (for example with s3fs or gcsfuse) and pass the mounted folder as --storage"
        )
    return artifact.local_path(CHECKPOINTS)


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, ascending; unfinished ones do not count."""
    if not folder.is_dir():
        return []
    return sorted(int(entry.name[5:]) for entry in folder.iterdir() if _NAME.fullmatch(entry.name))


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def read_state(path: Path) -> dict[str, Any]:
    """`state.json` of one checkpoint."""
    return json.loads((path / STATE).read_text("utf-8"))


class Checkpoints:
    """The checkpoints of one run, seen by all of its workers. Every method is a collective call."""

    def __init__(self, folder: Path, world: World, keep: int, attempt: str) -> None:
        self.folder, self.world, self.keep, self.attempt = folder, world, keep, attempt
        if world.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".tmp-*"):
                shutil.rmtree(left, ignore_errors=True)
        world.wait()

    def save(self, model: nn.Module, optimizer: Optimizer, facts: dict[str, Any]) -> None:
        """Write model, optimizer and `facts` (which has `step`) and delete all but the last `keep` checkpoints."""
        final = checkpoint_path(self.folder, facts["step"])
        unfinished = self.folder / f".tmp-{final.name}-{self.attempt}"
        weights, moments = get_state_dict(model, optimizer)
        state_dict_saver.save({"model": weights, "optimizer": moments}, storage_writer=FileSystemWriter(unfinished))
        mine = unfinished.glob(f"__{self.world.rank}_*")
        listed = self.world.gathered({file.name: _describe(file) for file in mine})
        if self.world.is_main:
            files = {name: entry for part in listed for name, entry in part.items()} | {".metadata": _describe(unfinished / ".metadata")}
            text = json.dumps({**facts, "workers": self.world.size, "files": files}, indent=1, sort_keys=True)
            (unfinished / STATE).write_text(text + "\n", "utf-8")
            self._publish(unfinished, final)
        self.world.wait()

    def load(
        self, model: nn.Module, optimizer: Optimizer, check: Callable[[dict[str, Any]], None]
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """Put the newest sound checkpoint into model and optimizer; returns its facts (None to begin) and what was passed over.

        `check` raises when a checkpoint belongs to another run.
        """
        notes: list[str] = []
        for step in reversed(self.world.from_main(checkpoint_steps(self.folder))):
            path = checkpoint_path(self.folder, step)
            fault = self._fault(path)
            if fault is None:
                facts = read_state(path)
                check(facts)
                weights, moments = get_state_dict(model, optimizer)
                state_dict_loader.load({"model": weights, "optimizer": moments}, storage_reader=FileSystemReader(path))
                set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
                return facts, notes
            notes.append(f"checkpoint {path.name} is damaged ({fault}); going back to the one before")
        return None, notes

    def _fault(self, path: Path) -> str | None:
        """The first thing wrong with a checkpoint, agreed by all workers; each checks its share of the files."""
        state = self.world.from_main(_state_or_fault(path))
        if isinstance(state, str):
            return state
        mine = sorted(state["files"].items())[self.world.rank :: self.world.size]
        faults = self.world.gathered(next((f"{name} differs" for name, entry in mine if _describe(path / name) != entry), None))
        return next((fault for fault in faults if fault), None)

    def _publish(self, unfinished: Path, final: Path) -> None:
        if final.exists():
            replaced = self.folder / f".tmp-replaced-{final.name}-{self.attempt}"
            final.rename(replaced)
            shutil.rmtree(replaced)
        unfinished.rename(final)
        for step in checkpoint_steps(self.folder)[: -self.keep]:
            doomed = self.folder / f".tmp-old-{step:08d}-{self.attempt}"
            checkpoint_path(self.folder, step).rename(doomed)
            shutil.rmtree(doomed)


def newest_state(artifact: Folder) -> dict[str, Any]:
    """The facts of a finished training artifact's newest checkpoint."""
    return read_state(_newest(checkpoint_folder(artifact)))


def load_weights(model: nn.Module, folder: Path) -> None:
    """Put the weights of a folder's newest checkpoint into a (sharded) model."""
    path = _newest(folder)
    weights = get_model_state_dict(model)
    try:
        state_dict_loader.load({"model": weights}, storage_reader=FileSystemReader(path))
    except (CheckpointException, OSError, pickle.UnpicklingError) as error:
        raise WorkError(f"checkpoint {path} cannot be read ({str(error).splitlines()[0]}); delete its artifact and bake again") from error
    set_model_state_dict(model, weights)


def _newest(folder: Path) -> Path:
    steps = checkpoint_steps(folder)
    if not steps:
        raise RequestError(f"{folder} has no checkpoint to start from; bake the stage that writes it again")
    return checkpoint_path(folder, steps[-1])


def _state_or_fault(path: Path) -> dict[str, Any] | str:
    try:
        state = read_state(path)
    except (OSError, ValueError):
        return f"{STATE} is missing or unreadable"
    return state if isinstance(state, dict) and isinstance(state.get("files"), dict) else f"{STATE} lists no files"


def _describe(file: Path) -> list[Any] | None:
    """[bytes, xxh3-64 in hex] of a file, None where there is none."""
    digest, size = xxhash.xxh3_64(), 0
    try:
        with file.open("rb") as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError:
        return None
    return [size, digest.hexdigest()]
