"""Row `checkpoint_stall`: what checkpoints in the background cost the steps of our loop, one worker on both cores.

How long the loop waits for them, and how much longer the same steps take with them than without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.corpus import BenchCorpus
from benchmarks.harness import Contender, Measurement, alternate, cost_row, driver, installed, row, write_results
from benchmarks.training_input import TrainingInput, two_cores

NAME = "checkpoint_stall"
PRESET = "demo"
EVERY = 10
LIMIT = 0.01


def run(corpus: BenchCorpus, repeats: int) -> Path:
    """Measure and write the results file."""
    source = TrainingInput(PRESET)
    source.made()
    measured = alternate([_contender(source, EVERY), _contender(source, source.steps)], repeats)
    rows = _rows(measured[_name(EVERY)], measured[_name(source.steps)])
    return write_results(corpus.results, NAME, rows, installed("torch"))


def _name(every: int) -> str:
    return f"a checkpoint every {every} steps"


def _contender(source: TrainingInput, every: int) -> Contender:
    cores = two_cores()
    command = (*driver("train_fournil"), "alone", source.preset, str(source.steps), str(len(cores)), "1", f"checkpoint_every={every}")
    return Contender(_name(every), command, cores=cores)


def _rows(saving: Measurement, plain: Measurement) -> list[dict[str, Any]]:
    """The wait: seconds that the loop waited for checkpoints over the seconds of its steps, the worst of the repeats. The cost: how
    much longer the steps took than those of the run that saves only at its end."""
    summaries = [sample.more["summary"] for sample in saving.samples]
    wait = max(summary["seconds"]["checkpoint"] / summary["seconds"]["train"] for summary in summaries)
    counts = {
        "checkpoints": saving.counts["steps"] // EVERY,
        "steps": saving.counts["steps"],
        "seconds": summaries[-1]["seconds"],
        "parameters": summaries[-1]["parameters"],
    }
    both = {"seconds_with": saving.seconds, "seconds_without": plain.seconds}
    return [
        {**cost_row(NAME, "share of step time, waiting", wait, ("limit", LIMIT), counts), "repeats": {"ours": len(saving.samples)}},
        row(
            NAME,
            "time of steps with checkpoints over without",
            saving.seconds / plain.seconds,
            None,
            both,
            {"ours": saving, "without": plain},
        ),
    ]
