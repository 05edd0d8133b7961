"""Row `ray_train_overhead`: our loop under Ray Train beside the same loop under torchrun, at 1 and 2 workers of one thread each on
two cores.

Overhead compares steps, without start and end (both are in the counts as seconds of the whole command's run). One worker
leaves a core to Ray's own processes, as a node's spare cores do; two workers share theirs with them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.corpus import WORK, BenchCorpus
from benchmarks.harness import Contender, alternate, driver, installed, rate_row, write_results
from benchmarks.training_input import TrainingInput, two_cores, under_torchrun

NAME = "ray_train_overhead"
PRESET = "demo"


def run(corpus: BenchCorpus, repeats: int) -> Path:
    """Measure and write the results file."""
    source = TrainingInput(PRESET)
    source.made()
    rows: list[dict[str, Any]] = []
    for workers in (count for count in (1, 2) if count <= len(os.sched_getaffinity(0))):
        ray, torchrun = _under_ray(source, workers), _under_torchrun(source, workers)
        measured = alternate([ray, torchrun], repeats)
        whole = {name: measured[name].most("wall_seconds") for name in measured}
        unit = f"tokens/s, {workers} worker{'s' if workers > 1 else ''} of one thread, {len(two_cores())} cores"
        rows.append(rate_row(NAME, unit, measured[ray.name].counts["timed_tokens"], measured[ray.name], measured[torchrun.name], whole))
    return write_results(corpus.results, NAME, rows, installed("torch", "ray"))


def _under_ray(source: TrainingInput, workers: int) -> Contender:
    command = (*driver("train_fournil"), "ray", source.preset, str(source.steps), "1", str(workers))
    return Contender(f"Ray Train, {workers}", command, cores=two_cores(), environment={"OMP_NUM_THREADS": "1"})


def _under_torchrun(source: TrainingInput, workers: int) -> Contender:
    command = under_torchrun(workers, "train_fournil", "torchrun", source.preset, str(source.steps), "1", str(workers))
    out = WORK / "train" / f"torchrun-{workers}"
    environment = {"OMP_NUM_THREADS": "1", "FOURNIL_BENCH_OUT": str(out)}
    return Contender(f"torchrun, {workers}", command, cores=two_cores(), environment=environment)
