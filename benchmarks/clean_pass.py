"""Row `clean_pass`: the whole cleaning pass, WARC files with HTML to kept documents, MB of raw HTML a second a core.

At 1 and 2 workers, and at 3 and 10 times the input (synthetic, `perturb.py`): a document must not cost more than 1.2
times as much, and a worker not need more than 1.1 times the memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.corpus import LANGUAGES, MB, WORK, BenchCorpus, text_bytes, write_recipe
from benchmarks.harness import OURS, Contender, Measurement, alternate, cost_row, driver, quiet_notes, rate_row, row, write_results
from benchmarks.peers import Peer, installed_peers, versions_of
from pipelines.langid import model_path

NAME = "clean_pass"
UNIT = "MB of raw HTML/s a core"
TEXT_UNIT = "MB of text/s a core"
GROWTH = (3, 10)
FINEWEB_CHAIN = {
    "c4": {"enabled": True, "edit_lines": True, "terminal_punctuation": False, "min_line_words": 3, "min_sentences": 5},
    "fineweb": {"enabled": True},
}
"""What FineWeb's rules have on that a recipe's defaults have off."""


def run(corpus: BenchCorpus, repeats: int) -> Path:
    """Measure and write the results file."""
    found, notes = installed_peers(("datatrove", "dolma"))
    workers = [count for count in (1, 2) if count <= len(os.sched_getaffinity(0))]
    contenders = [ours(corpus, 1, count) for count in workers]
    if "dolma" in found:
        contenders.append(Contender(f"{found['dolma'].title}, language and C4 taggers", _dolma(corpus, found["dolma"])))
    measured = alternate(contenders, repeats)
    if "datatrove" in found:
        slow = [_datatrove(corpus, found["datatrove"], extractor) for extractor in ("trafilatura", "resiliparse")]
        measured |= alternate(slow, 1)  # minutes each: one repeat
    peers = [one for one in measured.values() if not one.contender.name.startswith(OURS)]
    grown = {size: alternate([ours(corpus, size, workers[-1])], 1)[_name(size, workers[-1])] for size in GROWTH}
    rows = _rows(corpus, measured, workers)
    rows += _growth(corpus, measured[_name(1, workers[-1])], grown, workers[-1])
    return write_results(corpus.results, NAME, rows, versions_of(found), [*notes, *quiet_notes(peers)])


def _name(copies: int, workers: int) -> str:
    return f"{OURS}, {workers} worker{'s' if workers > 1 else ''}" + (f", {copies}x" if copies > 1 else "")


def ours(corpus: BenchCorpus, copies: int, workers: int) -> Contender:
    """The pass over the real pages and `copies` - 1 synthetic copies of them: a recipe's defaults and all of FineWeb's rules."""
    clean = {"languages": dict.fromkeys(LANGUAGES, FINEWEB_CHAIN)}
    path = write_recipe(corpus.folder / f"clean-{copies}x.yaml", "warc", corpus.html(copies), clean=clean)
    command = (*driver("clean_fournil"), str(path), str(workers), str(WORK / f"clean-{copies}x-{workers}"))
    return Contender(_name(copies, workers), command, cores=tuple(range(workers)))


def _datatrove(corpus: BenchCorpus, peer: Peer, extractor: str) -> Contender:
    command = (*driver("clean_datatrove", peer.python), extractor, str(corpus.folder / "html"), str(model_path()))
    return Contender(f"{peer.title} ({extractor}, no dedup)", command, environment={"HF_ASSETS_CACHE": str(WORK / "assets")})


def _dolma(corpus: BenchCorpus, peer: Peer) -> tuple[str, ...]:
    return (*driver("clean_dolma", peer.python), str(corpus.rule_documents()), str(model_path()))


def _rows(corpus: BenchCorpus, measured: dict[str, Measurement], workers: list[int]) -> list[dict[str, Any]]:
    """Ours against each peer on the same pages, one core each; then both numbers of workers."""
    size = corpus.html_bytes(1)
    base = measured[_name(1, 1)]
    rows = []
    for name, other in measured.items():
        if name.startswith("datatrove"):
            rows.append(rate_row(NAME, UNIT, size / MB, base, other, {"bytes": size}))
        elif name.startswith("dolma"):
            texts = text_bytes(corpus.rule_documents())
            speeds = base.counts["text_bytes"] / MB / base.seconds, texts / MB / other.seconds
            rows.append(row(NAME, TEXT_UNIT, speeds[0], (name, speeds[1]), {"bytes": texts}, {"ours": base, "peer": other}))
    for count in workers:
        one = measured[_name(1, count)]
        more = {
            "workers": count,
            "bytes": size,
            "peak_worker_mb": one.most("worker_own_mb"),
            "stage_seconds": one.samples[-1].more["stages"],
        }
        more["documents_per_second"] = one.counts["documents_in"] / one.seconds
        rows.append(row(NAME, UNIT, size / MB / one.seconds / count, None, more, {"ours": one}))
    return rows


def _growth(corpus: BenchCorpus, base: Measurement, grown: dict[int, Measurement], workers: int) -> list[dict[str, Any]]:
    """Cost per document and peak memory of a worker at larger inputs against the real one."""
    rows = []
    for size, larger in grown.items():
        costs = [1e6 * workers * one.seconds / one.counts["documents_in"] for one in (larger, base)]
        memory = [one.most("worker_own_mb") for one in (larger, base)]
        label = f"{OURS} at 1x, {workers} workers"
        total = corpus.html_bytes(size)
        speed = total / MB / larger.seconds / workers
        counts = {"workers": workers, "bytes": total, "stage_seconds": larger.samples[0].more["stages"]}
        rows += [
            row(NAME, f"{UNIT}, {size}x input, synthetic", speed, None, counts, {"ours": larger}),
            cost_row(NAME, f"core microseconds a document at {size}x, synthetic", costs[0], (label, costs[1]), {"limit": 1.2}),
            cost_row(NAME, f"MB, peak memory of a worker at {size}x, synthetic", memory[0], (label, memory[1]), {"limit": 1.1}),
        ]
    return rows
