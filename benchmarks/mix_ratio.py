"""French to English in the training mix against held-out bits per byte of both: `python -m benchmarks.mix_ratio`.

The ladder of `fournil scale` at one size and one length over `SHARES`, some seeds each; trials that are finished are kept.
A seed is another initialisation and another order of the rows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, row, say, write_results
from cluster.errors import FournilError
from cluster.progress import Reporter
from cluster.storage import Folder
from fournil.recipe import load_recipe
from fournil.scale import scale_recipe

NAME = "mix_ratio"
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""The part of the tokens that is French; the rest is English."""
LANGUAGES = ("fr", "en")
WIDTH, TOKENS = 128, 300_000


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mix_ratio", description="French to English in the mix against bits per byte of both"
    )
    parser.add_argument("--recipe", default="recipes/demo.yaml")
    parser.add_argument("--storage", default="runs", help="where the recipe's tokens are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--at-once", type=int, default=1, help="trials side by side, one core each")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    mixes = ", ".join(f"fr-{share:.0%}: {{fr: {share}, en: {1 - share:.1f}}}" for share in SHARES)
    changes = [
        f"name={NAME.replace('_', '-')}",
        f"scale={{widths: [{WIDTH}], tokens: [{TOKENS}], seeds: {arguments.seeds}, mixes: {{{mixes}}}, objective: {{fr: 1, en: 1}}}}",
        "resources.scale={workers: 1, cpus_per_worker: 1}",
    ]
    storage = Folder(str(Path(arguments.storage).resolve()))
    try:
        recipe = load_recipe(arguments.recipe, changes)
        report = scale_recipe(recipe, storage, address="local", at_once=arguments.at_once, reporter=Reporter())
    except FournilError as error:
        say(f"failed: {error}")
        return error.exit_code
    rows = by_share(report["trials"])
    say(str(write_results(arguments.out, NAME, rows, {}, changes)))
    for line in table(rows):
        say(line)
    return 0


def by_share(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a share of French: bits per byte of each language, by seed, with mean and standard deviation."""
    rows = []
    for share in sorted({trial["shares"]["fr"] for trial in trials}):
        mine = [trial for trial in trials if trial["shares"]["fr"] == share]
        values = {lang: [trial["loss"][lang] for trial in mine] for lang in LANGUAGES}
        counts = {
            "french": share,
            "seeds": [trial["seed"] for trial in mine],
            "parameters": mine[0]["parameters"],
            "tokens": mine[0]["tokens"],
            "bits_per_byte": values,
            "mean": {lang: statistics.mean(found) for lang, found in values.items()},
            "deviation": {lang: statistics.stdev(found) if len(found) > 1 else None for lang, found in values.items()},
        }
        rows.append(row(NAME, f"bits per byte, mean of both, French {share:.0%}", statistics.mean(counts["mean"].values()), None, counts))
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The results as a Markdown table."""
    lines = ["| French in the mix | held-out French | held-out English | mean |", "|---|---|---|---|"]
    for entry in rows:
        counts = entry["counts"]
        cells = [_cell(counts["mean"][lang], counts["deviation"][lang]) for lang in LANGUAGES]
        lines.append(f"| {counts['french']:.0%} | {' | '.join(cells)} | {entry['ours']:.3f} |")
    return lines


def _cell(mean: float, deviation: float | None) -> str:
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


if __name__ == "__main__":
    sys.exit(main())
