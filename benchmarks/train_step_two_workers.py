"""Row `train_step_two_workers`: pretraining steps on two workers of one thread each under torchrun, ours (FSDP2) beside a plain loop
with transformers' Llama (DistributedDataParallel).

Same model, first weights, rows, bf16, fused AdamW, gloo. The last losses are in the counts.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.corpus import WORK, BenchCorpus
from benchmarks.harness import OURS, BenchmarkError, Contender, alternate, installed, rate_row, write_results
from benchmarks.training_input import TrainingInput, two_cores, under_torchrun

NAME = "train_step_two_workers"
PRESET = "demo"
WORKERS = 2


def run(corpus: BenchCorpus, repeats: int) -> Path:
    """Measure and write the results file."""
    source = TrainingInput(PRESET)
    source.made()
    rows = []
    for compiled in (False, True):
        ours, peer = _ours(source, compiled), _peer(source, compiled)
        measured = alternate([ours, peer], repeats)
        one, other = measured[ours.name], measured[peer.name]
        losses = {"last_loss": round(one.most("loss"), 3), "last_loss_of_peer": round(other.most("loss"), 3)}
        rows.append(rate_row(NAME, f"tokens/s, {_way(compiled)}", one.counts["timed_tokens"], one, other, losses))
    return write_results(corpus.results, NAME, rows, installed("torch", "transformers"))


def _way(compiled: bool) -> str:
    return "compiled" if compiled else "eager"


def _cores() -> tuple[int, ...]:
    cores = two_cores()
    if len(cores) < WORKERS:
        raise BenchmarkError(f"{NAME} needs {WORKERS} cores")
    return cores


def _ours(source: TrainingInput, compiled: bool) -> Contender:
    settings = ("torchrun", source.preset, str(source.steps), "1", str(WORKERS), f"compile={compiled}")
    environment = {"OMP_NUM_THREADS": "1", "FOURNIL_BENCH_OUT": str(WORK / "train" / NAME)}
    return Contender(f"{OURS}, {_way(compiled)}", under_torchrun(WORKERS, "train_fournil", *settings), _cores(), environment=environment)


def _peer(source: TrainingInput, compiled: bool) -> Contender:
    command = under_torchrun(WORKERS, "train_transformers", "loop", str(source.folder), "1", str(compiled))
    return Contender(f"transformers, plain loop, {_way(compiled)}", command, _cores(), environment={"OMP_NUM_THREADS": "1"})
