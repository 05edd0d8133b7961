"""`python -m benchmarks [NAME ...] [--size SIZE] [--repeats N]`: measure and write `benchmarks/results/<name>.json`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time

from benchmarks.corpus import SIZES, BenchCorpus
from benchmarks.harness import BenchmarkError, say
from cluster.errors import FournilError

NAMES = (
    "minhash_signatures",
    "rule_chain",
    "clean_pass",
    "near_dup",
    "near_dup_quality",
    "train_step_cpu",
    "train_step_two_workers",
    "ray_train_overhead",
    "checkpoint_stall",
)
"""One module each, in the order of DESIGN's table; each has `run(corpus, repeats)`, which returns its results file."""

LONG = ("whole_corpus",)
"""Run only when named."""


def main() -> int:
    """Run the named benchmarks, or all; exit code 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Fournil beside its peers.")
    parser.add_argument(
        "names", nargs="*", choices=[*NAMES, *LONG, []], metavar="NAME", help=f"of {', '.join(NAMES)}, all by default, or {', '.join(LONG)}"
    )
    parser.add_argument("--size", choices=SIZES, default="default", help="full reads all packages of recipes/bench.yaml")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    corpus, failed = BenchCorpus(SIZES[arguments.size]), False
    for name in arguments.names or NAMES:
        say(f"{name}:")
        begun = time.monotonic()
        try:
            path = importlib.import_module(f"benchmarks.{name}").run(corpus, arguments.repeats)
        except (BenchmarkError, FournilError) as error:
            say(f"  failed: {error}")
            failed = True
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        for line in [*map(_line, result["rows"]), *(f"note: {note}" for note in result["notes"])]:
            say(f"  {line}")
        say(f"  {path} ({time.monotonic() - begun:.0f} s)")
    return int(failed)


def _line(row: dict) -> str:
    beside = f", {row['peer']} {row['peer_value']:g}, ratio {row['ratio']:g}" if row["peer"] and row["ratio"] is not None else ""
    return f"{row['unit']}: {row['ours']:g}{beside}"


if __name__ == "__main__":
    sys.exit(main())
