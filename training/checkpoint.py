"""Sharded checkpoints (torch DCP) that are there whole or not at all, and load on any number of workers.

`checkpoints/step-XXXXXXXX/` holds DCP's files (`.metadata`, `__<rank>_0.distcp`) and `state.json`:
`{"step", "tokens", "fingerprint", "identity", "model", "vocab_size", "workers", "files": {name: [bytes, xxh3-64]}}`.
All workers write into one `.tmp-` folder; once each has finished, rank 0 adds `state.json` and renames the folder.

A save blocks the loop only while weights and moments are copied to the CPU. The rest is done by a thread of each worker, whose
collective calls go over a gloo group of its own.
"""

from __future__ import annotations

import copy
import errno
import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import xxhash
from safetensors import safe_open
from torch import nn
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.optim import Optimizer

from cluster.errors import FournilError, RequestError, WorkError
from cluster.storage import Folder
from training.dcp import METADATA, read_checkpoint
from training.distributed import World
from training.model import fill

CHECKPOINTS = "checkpoints"
STATE = "state.json"
TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)
"""What checkpoints hold of a model: all that is trained. Frozen weights stay where they came from, which `state.json` names."""

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Errors of a write that trying again does not cure."""

CLOSE_SECONDS = 60.0
"""How long a run that stops with an error of its own, which all workers raise, still waits for its last save."""

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
    """The checkpoints of one run, seen by all of its workers. `save` and `load` are collective calls.

    The last `keep` checkpoints stay, and of the older ones those whose step is a multiple of `keep_every`. At most one save
    is under way: the next waits for it, and so must whoever needs its files. Leaving the context waits too.
    """

    def __init__(
        self, folder: Path, world: World, keep: int, attempt: str, *, keep_every: int | None = None, background: bool = True
    ) -> None:
        self.folder, self.world, self.keep, self.attempt = folder, world, keep, attempt
        self.keep_every, self.background = keep_every, background
        self.write_seconds = 0.0
        self._writers = world.beside()
        self._writing: futures.Future[float] | None = None
        on_gpu = world.device.type == "cuda"
        self._stager = DefaultStager(StagingOptions(on_gpu, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=on_gpu))
        if world.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".tmp-*"):
                shutil.rmtree(left, ignore_errors=True)
        world.wait()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let the save under way end before the process group does, unless other workers may be dead or hang."""
        if kind is None:
            self.wait()
        elif self._writing is not None and (self.world.size == 1 or issubclass(kind, FournilError)):
            futures.wait([self._writing], CLOSE_SECONDS)
        self._stager.close()

    def save(self, model: nn.Module, optimizer: Optimizer, facts: dict[str, Any]) -> None:
        """Begin to write model, optimizer and `facts` (which has `step`); done when this returns only if not in the background."""
        self.wait()
        weights, moments = get_state_dict(model, optimizer, options=TRAINED)
        state = {"model": weights, "optimizer": moments}
        if not self.background:
            self.write_seconds += self._write(state, facts)
            return
        # The copies are kept for the next save, so that it need not ask for memory again.
        self._writing = _in_thread(self._write, self._stager.stage(state), copy.deepcopy(facts))

    def wait(self) -> None:
        """Until the save under way is in place. All workers raise the same error if it failed."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self.write_seconds += writing.result()

    def load(
        self, model: nn.Module, optimizer: Optimizer, check: Callable[[dict[str, Any]], None]
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """Put the newest sound checkpoint into model and optimizer; returns its facts (None to begin) and what was passed over.

        `check` raises when a checkpoint belongs to another run.
        """
        self.wait()
        notes: list[str] = []
        for step in reversed(self.world.from_main(checkpoint_steps(self.folder))):
            path = checkpoint_path(self.folder, step)
            fault = self._fault(path)
            if fault is None:
                check(read_state(path))
                return load_step(model, optimizer, self.folder, step), notes
            notes.append(f"checkpoint {path.name} is damaged ({fault}); going back to the one before")
        return None, notes

    def _write(self, state: dict[str, Any], facts: dict[str, Any]) -> float:
        """Write the checkpoint of `facts` with all workers and publish it; returns the seconds it took."""
        began = time.perf_counter()
        final, writers = checkpoint_path(self.folder, facts["step"]), self._writers
        unfinished = self.folder / f".tmp-{final.name}-{self.attempt}"
        fault: BaseException | None = None
        try:
            # Alone without gloo: its threads would get OpenMP threads of their own, and libgomp then puts ours to sleep at every barrier.
            state_dict_saver.save(
                state,
                storage_writer=FileSystemWriter(unfinished, per_thread_copy_ahead=0),
                process_group=writers.group,
                no_dist=writers.size == 1,
            )
        except CheckpointException as error:  # which all workers get
            fault = next(iter(error.failures.values()))[0]
        else:
            mine = {file.name: _describe(file) for file in unfinished.glob(f"__{writers.rank}_*")}
            files = {name: entry for part in writers.gathered(mine) for name, entry in part.items()}
            if writers.is_main:
                try:
                    self._publish(unfinished, final, {**facts, "workers": writers.size, "files": files})
                except Exception as error:
                    fault = error
            fault = writers.from_main(fault)
        if fault is not None:
            if writers.is_main:
                shutil.rmtree(unfinished, ignore_errors=True)
            raise _explained(fault, final) from fault
        return time.perf_counter() - began

    def _publish(self, unfinished: Path, final: Path, state: dict[str, Any]) -> None:
        """Complete the folder, give it its name and delete what is not to be kept."""
        state["files"][METADATA] = _describe(unfinished / METADATA)
        if None in state["files"].values():
            raise OSError(errno.EIO, "a file cannot be read back")
        (unfinished / STATE).write_text(json.dumps(state, indent=1, sort_keys=True) + "\n", "utf-8")
        if final.exists():
            replaced = self.folder / f".tmp-replaced-{final.name}-{self.attempt}"
            final.rename(replaced)
            shutil.rmtree(replaced)
        unfinished.rename(final)
        for step in checkpoint_steps(self.folder)[: -self.keep]:
            if self.keep_every and step % self.keep_every == 0:
                continue
            doomed = self.folder / f".tmp-old-{step:08d}-{self.attempt}"
            checkpoint_path(self.folder, step).rename(doomed)
            shutil.rmtree(doomed)

    def _fault(self, path: Path) -> str | None:
        """The first thing wrong with a checkpoint, agreed by all workers; each checks its share of the files."""
        state = self.world.from_main(_state_or_fault(path))
        if isinstance(state, str):
            return state
        mine = sorted(state["files"].items())[self.world.rank :: self.world.size]
        faults = self.world.gathered(next((f"{name} differs" for name, entry in mine if _describe(path / name) != entry), None))
        return next((fault for fault in faults if fault), None)


def newest_state(artifact: Folder) -> dict[str, Any]:
    """The facts of a finished training artifact's newest checkpoint."""
    return read_state(_newest(checkpoint_folder(artifact)))


def load_weights(model: nn.Module, folder: Path) -> None:
    """Put the weights of a folder's newest checkpoint into a (sharded) model, whose adapters are left alone.

    Where that run trained adapters, its checkpoints have nothing else, and the weights are those of its export, in bf16.
    """
    path = _newest(folder)
    if "lora" in read_state(path):
        with safe_open(folder.parent / "export/model.safetensors", "pt") as tensors:
            for name, parameter in model.named_parameters():
                if ".lora_" not in name:
                    fill(parameter, tensors.get_tensor(name))
        return
    weights = {name: tensor for name, tensor in get_model_state_dict(model).items() if ".lora_" not in name}
    read_checkpoint({"model": weights}, path)
    set_model_state_dict(model, weights, options=StateDictOptions(strict=False))


def load_step(model: nn.Module, optimizer: Optimizer, folder: Path, step: int | None) -> dict[str, Any]:
    """Put weights and optimizer state of the checkpoint of a step (None: the newest) in place; returns its facts."""
    path = _newest(folder) if step is None else checkpoint_path(folder, step)
    if step is not None and step not in checkpoint_steps(folder):
        raise RequestError(f"{folder} has no checkpoint of step {step}, only of {', '.join(map(str, checkpoint_steps(folder))) or 'none'}")
    weights, moments = get_state_dict(model, optimizer, options=TRAINED)
    read_checkpoint({"model": weights, "optimizer": moments}, path)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=TRAINED)
    return read_state(path)


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


def _explained(fault: BaseException, path: Path) -> Exception:
    """Why a checkpoint could not be written: for people where trying again cannot help, else for the log of the restart."""
    if isinstance(fault, OSError) and fault.errno in NO_SPACE:
        return WorkError(
            f"checkpoint {path.name} cannot be written to {path.parent} ({fault.strerror}); "
            "make room there, then the same command goes on from the checkpoint before"
        )
    return RuntimeError(f"checkpoint {path.name} could not be written ({type(fault).__name__}: {fault})")


def _in_thread(work: Callable[..., float], *arguments: Any) -> futures.Future[float]:
    """Run `work` in a thread that cannot keep the process from ending."""
    outcome: futures.Future[float] = futures.Future()

    def run() -> None:
        try:
            outcome.set_result(work(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return outcome
