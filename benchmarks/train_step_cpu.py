"""Row `train_step_cpu`: pretraining steps on CPU, ours beside transformers' Llama under Hugging Face's Trainer and in a plain loop.

Same model, first weights, tokens in the same order, bf16, fused AdamW, both cores. The last loss of each is in the counts: who
does less work would show there. Share of peak is of a matmul timed in the same process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.corpus import BenchCorpus
from benchmarks.harness import OURS, Contender, Measurement, alternate, driver, installed, rate_row, row, write_results
from benchmarks.training_input import TrainingInput, two_cores

NAME = "train_step_cpu"
UNIT = "tokens/s"
PRESET = "demo"


def run(corpus: BenchCorpus, repeats: int) -> Path:
    """Measure and write the results file."""
    source = TrainingInput(PRESET)
    source.made()
    rows: list[dict[str, Any]] = []
    for compiled in (False, True):
        peers = [_peer(source, "trainer", compiled), _peer(source, "loop", compiled)]
        measured = alternate([_ours(source, compiled), *peers], repeats)
        ours = measured[_name(OURS, compiled)]
        rows += [_row(ours, measured[peer.name], compiled) for peer in peers]
        peak = _share(ours)
        rows.append(row(NAME, f"share of a matmul's FLOP/s, {_way(compiled)}", peak["flops_share"], None, peak, {"ours": ours}))
    return write_results(corpus.results, NAME, rows, installed("torch", "transformers", "accelerate"))


def _way(compiled: bool) -> str:
    return "compiled" if compiled else "eager"


def _name(who: str, compiled: bool) -> str:
    return f"{who}, {_way(compiled)}"


def _ours(source: TrainingInput, compiled: bool) -> Contender:
    command = (*driver("train_fournil"), "alone", source.preset, str(source.steps), str(len(two_cores())), "1", f"compile={compiled}")
    return Contender(_name(OURS, compiled), command, cores=two_cores())


def _peer(source: TrainingInput, way: str, compiled: bool) -> Contender:
    title = "transformers, Trainer" if way == "trainer" else "transformers, plain loop"
    command = (*driver("train_transformers"), way, str(source.folder), str(len(two_cores())), str(compiled))
    return Contender(_name(title, compiled), command, cores=two_cores())


def _row(ours: Measurement, peer: Measurement, compiled: bool) -> dict[str, Any]:
    losses = {"last_loss": round(ours.most("loss"), 3), "last_loss_of_peer": round(peer.most("loss"), 3)}
    return rate_row(NAME, f"{UNIT}, {_way(compiled)}", ours.counts["timed_tokens"], ours, peer, losses)


def _share(ours: Measurement) -> dict[str, Any]:
    """Formula: PaLM appendix B over the matmul measured at the start of the same run."""
    summary = max((sample.more["summary"] for sample in ours.samples), key=lambda one: one["flops_share"])
    return {name: summary[name] for name in ("flops_share", "matmul_flops", "parameters", "memory_mb")}
