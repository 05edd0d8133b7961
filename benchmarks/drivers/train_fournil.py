"""Fournil's training loop on synthetic tokens: alone, under torchrun, or under Ray Train.

The first step, which compiles, is not timed, nor are start, checkpoint and export; `seconds` is for all further steps.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from driver import cpu_seconds, report

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.training_input import TrainingInput
from cluster.storage import Folder
from training.job import Job
from training.loop import train
from training.pretrain import TokensInput


def main(way: str, preset: str, steps: str, threads: str, workers: str = "1", *settings: str) -> None:
    source = TrainingInput(preset, steps=int(steps))
    folder = source.made()
    changes = dict(pair.split("=", 1) for pair in settings)
    config = source.settings(**{"compile": False, **changes})
    tokens, tokenizer = Folder(str(folder / "tokens")), Folder(str(folder / "tokenizer"))
    out = Path(os.environ.get("FOURNIL_BENCH_OUT") or tempfile.mkdtemp(prefix="fournil-bench-"))
    job = Job(source.model, source.vocab_size, config, TokensInput(tokens, config), tokenizer, Folder(str(out)), {}, "bench")
    begun, is_main = time.perf_counter(), int(os.environ.get("RANK", "0")) == 0
    if way == "torchrun":
        import torch.distributed as dist

        dist.init_process_group("gloo")
    try:
        summary = _under_ray(job, out, int(workers), int(threads)) if way == "ray" else train(_with_threads(job, int(threads)))
    finally:
        if is_main:
            shutil.rmtree(out, ignore_errors=True)
    if is_main:
        timed = (source.steps - 1) * source.step_tokens
        counts = {"steps": summary["steps"], "tokens": summary["tokens"], "workers": summary["workers"], "timed_tokens": timed}
        timing: dict[str, float] = {"seconds": summary["seconds"]["train"], "cpu_seconds": cpu_seconds(), "passes": 1}
        report(timing, counts, wall_seconds=time.perf_counter() - begun, summary=summary, loss=summary["loss"])


def _with_threads(job: Job, threads: int) -> Job:
    from dataclasses import replace

    return replace(job, threads=threads)


def _under_ray(job: Job, out: Path, workers: int, threads: int) -> dict[str, Any]:
    from cluster.progress import StageProgress
    from cluster.session import connect, disconnect
    from cluster.stage import Resources, StageContext
    from training.config import PretrainJobConfig
    from training.worker import train_on_ray

    connect("local", cpus=workers * threads)
    scratch, logs = out / "scratch", out / "logs"
    for path in (scratch, logs):
        path.mkdir(parents=True)
    resources = Resources(workers=workers, cpus_per_worker=threads)
    config = PretrainJobConfig(model=job.model)
    context = StageContext("pretrain", config, {}, job.out, StageProgress("pretrain"), scratch, logs, resources)
    try:
        return train_on_ray(_with_threads(job, threads), context)
    finally:
        disconnect()


if __name__ == "__main__":
    main(*sys.argv[1:])
