"""Groups of real training processes (gloo, FSDP2) that kill or stop themselves on demand.

Processes are forked from a server that has imported torch, so a group starts in a fraction of a second.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from training import loop
from training.data import Batch, Rows, TrainingData
from training.job import Job

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "tests.training.faults", "tests.training.tiny", "tensorboardX", "safetensors.torch"])
LONGEST_SECONDS = 120.0
"""Of an attempt; a group that takes longer is killed."""


@dataclass(frozen=True)
class Fault:
    """Worker `rank` sends itself `signal` when it is asked for its micro-batch number `read`, counted from 0 in each attempt."""

    rank: int
    read: int
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Attempt:
    """How a group of workers ended: whether all went well, and what a worker raised if one did. `rows` are the rows that each
    read of training data gave to all workers together."""

    finished: bool
    error: str | None
    rows: list[list[int]]


def run_attempt(job: Job, workers: int, fault: Fault | None = None) -> Attempt:
    """Run a job in a new group of processes."""
    folder = job.out.local_path(f"../attempt-{uuid.uuid4().hex[:8]}")
    folder.mkdir(parents=True)
    finished = run_group(_work, workers, workers, folder, job, fault)
    errors = [path.read_text() for path in sorted(folder.glob("error-*"))]
    reads = [[json.loads(line) for line in path.open() if line.endswith("\n")] for path in sorted(folder.glob("rows-*"))]
    together = [sorted(chain.from_iterable(parts)) for parts in zip(*reads, strict=False)] if len(reads) == workers else []
    return Attempt(finished, errors[0] if errors else None, together)


def run_group(work: Callable[..., None], workers: int, *arguments: Any) -> bool:
    """Run `work(rank, *arguments)` in so many processes; whether all ended well. When one does not, all are killed."""
    group = [FORKS.Process(target=work, args=(rank, *arguments), daemon=True) for rank in range(workers)]
    deadline = time.monotonic() + LONGEST_SECONDS
    for process in group:
        process.start()
    try:
        while any(process.exitcode is None for process in group) and not any(process.exitcode for process in group):
            if not wait([process.sentinel for process in group if process.exitcode is None], deadline - time.monotonic()):
                break
        return all(process.exitcode == 0 for process in group)
    finally:
        for process in group:
            process.kill()
            process.join()


def join_group(rank: int, workers: int, store: Path) -> None:
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(str(store), workers),
        rank=rank,
        world_size=workers,
        timeout=timedelta(seconds=LONGEST_SECONDS),
    )


def _work(rank: int, workers: int, folder: Path, job: Job, fault: Fault | None) -> None:
    """One worker. It writes why it failed, and every step's loss to the log."""
    loop.LOG_SECONDS = 0.0
    join_group(rank, workers, folder / "store")
    mine = fault if fault and fault.rank == rank else None
    try:
        loop.train(replace(job, attempt=folder.name, data=_Recorded(job.data, folder / f"rows-{rank}", mine)))
    except BaseException:
        (folder / f"error-{rank}").write_text(traceback.format_exc())
        os._exit(1)
    dist.destroy_process_group()


@dataclass(frozen=True)
class _Recorded:
    """Opens what `input` opens, and writes down which rows are read."""

    input: Callable[[], TrainingData]
    file: Path
    fault: Fault | None

    def __call__(self) -> TrainingData:
        data = self.input()
        return replace(data, rows=_RecordedRows(data.rows, self.file, self.fault))


class _RecordedRows:
    def __init__(self, rows: Rows, file: Path, fault: Fault | None) -> None:
        self.rows, self.file, self.fault, self.seq_len, self.reads = rows, file, fault, rows.seq_len, 0

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: np.ndarray) -> Batch:
        if self.fault and self.reads == self.fault.read:
            os.kill(os.getpid(), self.fault.signal)
        self.reads += 1
        with self.file.open("a") as out:
            out.write(json.dumps(rows[rows >= 0].tolist()) + "\n")
        return self.rows.read(rows)
