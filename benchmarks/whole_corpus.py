"""Row `whole_corpus`: `recipes/bench.yaml` whole, from Debian packages to kept documents, at 1 and 2 workers.

HTML, dictionaries, package descriptions, code and parallel text, with every rule the recipe has on. It takes the better part
of an hour, so it runs only when it is named.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.corpus import FULL, MB, WORK, BenchCorpus
from benchmarks.harness import OURS, Contender, Measurement, alternate, driver, row, write_results

NAME = "whole_corpus"


def run(corpus: BenchCorpus, _repeats: int) -> Path:
    """Measure once with each number of workers and write the results file."""
    corpus = BenchCorpus(FULL)
    rows = []
    for workers in (2, 1):
        if workers <= len(os.sched_getaffinity(0)):
            command = (*driver("clean_fournil"), str(corpus.recipe), str(workers), str(WORK / NAME))
            contender = Contender(f"{OURS}, {workers} workers", command, cores=tuple(range(workers)), seconds=7200.0)
            rows += _rows(alternate([contender], 1)[contender.name], workers)
    return write_results(corpus.results, NAME, rows, {})


def _rows(one: Measurement, workers: int) -> list[dict[str, Any]]:
    counts = {"workers": workers, "stage_seconds": one.samples[0].more["stages"]}
    speeds = {"documents/s": one.counts["documents_in"], "MB of text/s": one.counts["text_bytes"] / MB}
    measured = [
        row(NAME, f"{unit}, {workers} workers", amount / one.seconds, None, counts, {"ours": one}) for unit, amount in speeds.items()
    ]
    return [*measured, row(NAME, f"MB, peak memory of a worker, {workers} workers", one.most("worker_own_mb"), None, counts)]
