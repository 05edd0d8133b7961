"""The funnel: for each step, source and language how much came in, how much left, and why; with the balance check."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from cluster.errors import WorkError
from pipelines.ledger import DEDUP_STEPS, EXTRACT, STEPS, Key

Tally = Counter[tuple[Key, str]]
"""Documents and characters removed: `(key, "documents")` and `(key, "chars")`, key = step, reason, source, language."""
Kept = Counter[tuple[str, str, str]]
"""Documents and characters kept: `(source, language, "documents" or "chars")`."""

GUARD_DOCUMENTS = 20
"""Sources smaller than this may lose everything to dedup without stopping the run."""


def build_funnel(removed: Tally, kept: Kept) -> dict[str, Any]:
    """`rows` by step, source and language in that order, and `totals` by step.

    What comes into a step is what is kept in the end and all that this and later steps remove.
    """
    reasons: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    leaving: Counter[tuple[str, str, str, str]] = Counter()
    for ((step, reason, source, lang), measure), amount in removed.items():
        leaving[step, source, lang, measure] += amount
        if measure == "documents":
            reasons[step, source, lang][reason] += amount
    groups = sorted({(source, lang) for source, lang, _ in kept} | {(source, lang) for _, source, lang, _ in leaving})
    rows = []
    for position, step in enumerate(STEPS):
        for source, lang in groups:
            row: dict[str, Any] = {"step": step, "source": source, "lang": lang}
            for measure in ("documents", "chars"):
                later = sum(leaving[after, source, lang, measure] for after in STEPS[position:])
                row[f"{measure}_in"] = kept[source, lang, measure] + later
                row[f"{measure}_removed"] = leaving[step, source, lang, measure]
            rows.append(row | {"reasons": dict(sorted(reasons[step, source, lang].items()))})
    return {"rows": rows, "totals": [_total(step, [row for row in rows if row["step"] == step]) for step in STEPS]}


def _total(step: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    for row in rows:
        reasons.update(row["reasons"])
    measures = ("documents_in", "documents_removed", "chars_in", "chars_removed")
    return {"step": step} | {name: sum(row[name] for row in rows) for name in measures} | {"reasons": dict(sorted(reasons.items()))}


def check_balance(records_in: int, documents: int, scored: int, funnel: dict[str, Any], kept: int) -> None:
    """Every record is kept or has one ledger row, at each step; else a `WorkError` that names the step.

    `records_in`, `documents` and `scored` are what extract read, extract wrote and score wrote, counted there.
    """
    after = dict(zip(STEPS, [total["documents_in"] - total["documents_removed"] for total in funnel["totals"]], strict=True))
    before = funnel["totals"][0]["documents_in"]
    checks = (
        ("the run", records_in, before),
        (EXTRACT, documents, after[STEPS[0]]),
        ("the caps", scored, after[STEPS[1]]),
        ("cleaning", kept, after[STEPS[-1]]),
    )
    for name, counted, expected in checks:
        if counted != expected:
            raise WorkError(
                f"the ledger does not balance at {name}: {counted:,} documents, {expected:,} by ledger rows; "
                "delete the artifacts of extract, score and clean and bake again"
            )


def check_losses(funnel: dict[str, Any], max_source_loss: float) -> None:
    """Stop when dedup removes more than that share of a source: a template can make all of a source look alike."""
    entered: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for row in funnel["rows"]:
        entered[row["source"]] += row["documents_in"] if row["step"] == DEDUP_STEPS[0] else 0
        lost[row["source"]] += row["documents_removed"] if row["step"] in DEDUP_STEPS else 0
    for source in sorted(entered):
        if entered[source] >= GUARD_DOCUMENTS and lost[source] > max_source_loss * entered[source]:
            raise WorkError(
                f"dedup would remove {lost[source]:,} of {entered[source]:,} documents of source {source!r}, more than "
                f"clean.max_source_loss = {max_source_loss}; look at its texts, then raise clean.max_source_loss or "
                "clean.minhash.min_jaccard, or drop the source"
            )
