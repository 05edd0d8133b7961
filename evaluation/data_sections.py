"""The sections of the report that tell of data: funnel, removals, mix, sources, stages, and the data card's facts.

Shared by the report of a whole bake (`report.py`) and the report on data alone (`data_report.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.artifacts import Artifact
from cluster.progress import format_seconds
from evaluation.charts import funnel_chart, rates_chart
from evaluation.config import ReportConfig
from pipelines.config import STREAMS
from pipelines.ledger import CAP, EXTRACT, STEPS, sample_removals
from pipelines.mix import mix_table

FILES_SHOWN = 20
LEAST_RATE = 0.001
"""Rules that fewer documents fail are left to the table."""
LEDGER_STAGES = ("extract", "score", "clean")
Artifacts = dict[str, Artifact]


@dataclass(frozen=True)
class Table:
    """A table of the page: columns, which of them are numbers (right-aligned), and rows of ready text."""

    columns: Sequence[str]
    rows: list[list[str]]
    numbers: frozenset[int] = frozenset()
    totals: frozenset[int] = field(default_factory=frozenset)


def build_data(artifacts: Artifacts, config: ReportConfig) -> dict[str, Any]:
    """What the template's sections on data name, from the artifacts fetch to mix, and of tokens where it is there."""
    clean, tokens = artifacts["clean"], artifacts.get("tokens")
    funnel = clean.folder.read_json("funnel.json")["rows"]
    rates = clean.folder.read_json("rates.json")
    mix = artifacts["mix"].folder.read_json("mix.json")
    index = None if tokens is None else tokens.folder.read_json("index.json")
    steps = busy_steps(funnel_by_stream(funnel, mix))
    drawn = after_caps(steps)
    return {
        "title": config.title,
        "tiles": data_tiles(funnel, mix),
        "funnel_svg": funnel_chart(drawn),
        "capped": drawn != steps,
        "funnel_rows": funnel_table(steps),
        "reason_rows": reason_table(funnel),
        "removal_samples": removal_samples_of(artifacts, funnel, config),
        "rates_svg": rates_chart([rate for rate in rule_rates(rates) if rate["independent"] >= LEAST_RATE]),
        "rate_rows": rate_table(rates),
        "replay_rows": replay_table(rates),
        "edit_rows": edit_table(funnel),
        "mix_rows": mix_rows_of(mix_table(mix, index or {"sources": {}}), with_tokens=index is not None),
        "family_rows": family_table(mix),
        "mix_warnings": mix["warnings"],
        "source_rows": source_table(artifacts["fetch"]),
        "stage_rows": stage_table(artifacts),
        "versions_line": ", ".join(f"{name} {version}" for name, version in clean.manifest["versions"].items()),
    }


def after_caps(steps: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """What follows the caps, where there are any: they judge nothing, and beside them all else looks small."""
    capped = any(step["step"] == CAP and step["documents_removed"] for listed in steps.values() for step in listed)
    late = STEPS[STEPS.index(CAP) + 1 :]
    return {stream: [step for step in listed if step["step"] in late] for stream, listed in steps.items()} if capped else steps


def data_tiles(funnel: list[dict[str, Any]], mix: dict[str, Any]) -> list[dict[str, str]]:
    """The figures at the head of the page."""
    read = sum(row["documents_in"] for row in funnel if row["step"] == STEPS[0])
    removed = sum(row["documents_removed"] for row in funnel)
    return [
        {"value": f"{read:,}", "label": "documents read"},
        {"value": f"{read - removed:,}", "label": "documents kept"},
        {"value": f"{mix['total']['bytes'] / 1e6:.1f} MB", "label": "training text"},
    ]


def busy_steps(steps: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The steps that took something from some stream, and the first: the others would only be empty bars."""
    busy = {step["step"] for listed in steps.values() for step in listed if step["documents_removed"] or step["chars_removed"]}
    return {stream: [step for step in listed if step["step"] in busy | {STEPS[1]}] for stream, listed in steps.items()}


def funnel_by_stream(rows: list[dict[str, Any]], mix: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The funnel's rows (by step, source and language) added up by stream and step, in funnel order."""
    stream_of_source = {entry["source"]: entry["stream"] for entry in mix["sources"].values()}
    totals: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        stream = stream_of_source.get(row["source"], row["lang"])
        step = totals[stream].setdefault(row["step"], {"step": row["step"]})
        for name in ("documents_in", "documents_removed", "chars_in", "chars_removed"):
            step[name] = step.get(name, 0) + row[name]
    ordered = sorted(totals, key=lambda stream: (STREAMS.index(stream) if stream in STREAMS else len(STREAMS), stream))
    return {stream: [totals[stream][step] for step in STEPS if step in totals[stream]] for stream in ordered}


def funnel_table(steps: dict[str, list[dict[str, Any]]]) -> Table:
    rows = [
        [
            stream,
            step["step"].replace("_", " "),
            f"{step['documents_in']:,}",
            f"{step['documents_removed']:,}",
            percent(step["documents_removed"], step["documents_in"]),
            f"{step['chars_in'] / 1e6:.2f}",
            percent(step["chars_removed"], step["chars_in"]),
        ]
        for stream, listed in steps.items()
        for step in listed
        if step["documents_removed"] or step["chars_removed"]
    ]
    columns = ("stream", "step", "documents in", "removed", "removed, % of documents", "M characters in", "removed, % of characters")
    return Table(columns, rows, frozenset(range(2, 7)))


def reason_table(funnel: list[dict[str, Any]]) -> Table:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for row in funnel:
        for reason, removed in row["reasons"].items():
            counts[row["step"], reason] += removed
    ordered = sorted(counts.items(), key=lambda item: (STEPS.index(item[0][0]), -item[1]))
    return Table(
        ("step", "reason", "documents removed"), [[step, reason, f"{count:,}"] for (step, reason), count in ordered], frozenset({2})
    )


def removal_samples_of(artifacts: Artifacts, funnel: list[dict[str, Any]], config: ReportConfig) -> dict[str, list[dict[str, Any]]]:
    folders = [artifacts[stage].folder for stage in LEDGER_STAGES]
    listed = reasons_to_show(funnel) if config.removal_samples else []
    return {reason: sample_removals(folders, reason, config.removal_samples) for reason in listed}


def reasons_to_show(funnel: list[dict[str, Any]]) -> list[str]:
    """Reasons in the order a reader wants their samples: judgements of a text first, by how much they removed, then damage
    and emptiness, which leave little to read, and the caps, which judge nothing, last."""
    last = (EXTRACT, CAP)
    counts: dict[tuple[int, str], int] = defaultdict(int)
    for row in funnel:
        rank = last.index(row["step"]) + 1 if row["step"] in last else 0
        for reason, removed in row["reasons"].items():
            counts[rank, reason] += removed
    ordered = sorted((item for item in counts.items() if item[1]), key=lambda item: (item[0][0], -item[1], item[0][1]))
    return list(dict.fromkeys(reason for (_, reason), _ in ordered))


def rule_rates(rates: dict[str, Any]) -> list[dict[str, Any]]:
    """By language and reason, in order: the share of documents that fail the rule, and that it removes when its turn comes."""
    documents: dict[str, int] = defaultdict(int)
    for entry in rates["documents"]:
        documents[entry["lang"]] += entry["documents"]
    totals: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for entry in rates["rules"]:
        total = totals[entry["lang"], entry["step"], entry["reason"]]
        total[0] += entry["independent"]
        total[1] += entry["sequential"]
    return [
        {"lang": lang, "step": step, "reason": reason, "independent": fails / documents[lang], "sequential": removed / documents[lang]}
        for (lang, step, reason), (fails, removed) in totals.items()
        if documents[lang] and (fails or removed)
    ]


def rate_table(rates: dict[str, Any]) -> Table:
    """Removal rates of every rule by source and language, alone and in its turn."""
    documents = {(entry["source"], entry["lang"]): entry["documents"] for entry in rates["documents"]}
    rows = []
    for entry in rates["rules"]:
        of = documents[entry["source"], entry["lang"]]
        if entry["independent"] or entry["sequential"]:
            shares = [percent(entry[kind], of) for kind in ("independent", "sequential")]
            state = "on" if entry["enabled"] else "off"
            rows.append([entry["step"], entry["reason"], state, entry["lang"], entry["source"], f"{of:,}", *shares])
    columns = ("step", "rule", "rule is", "language", "source", "documents", "fail it", "removed by it in its turn")
    return Table(columns, rows, frozenset(range(5, 8)))


def replay_table(rates: dict[str, Any]) -> Table:
    """How many documents each rule would fail, alone, at other thresholds; from stored scores, no text is read."""
    factors = rates["factors"]
    rows = [
        [
            entry["lang"] or "both",
            entry["step"],
            entry["reason"],
            "on" if entry["enabled"] else "off",
            f"{'≥' if entry['lower_bound'] else '≤'} {entry['threshold']:.4g}",
            *(percent(count, entry["documents"]) for count in entry["fails"]),
        ]
        for entry in rates["replay"]
        if any(entry["fails"])
    ]
    columns = ("language", "step", "rule", "rule is", "passes with", *(_factor_name(factor) for factor in factors))
    return Table(columns, rows, frozenset(range(4, 5 + len(factors))))


def _factor_name(factor: float) -> str:
    return "as it is" if factor == 0 else f"{100 * abs(factor):.0f} % {'stricter' if factor > 0 else 'looser'}"


def edit_table(funnel: list[dict[str, Any]]) -> Table:
    """What the steps that change texts did to documents that stay: how many, why, and the characters that went."""
    chars: dict[tuple[str, str], int] = defaultdict(int)
    edits: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in funnel:
        if row["edits"]:
            chars[row["step"], row["lang"]] += row["chars_removed"]
            for reason, count in row["edits"].items():
                edits[row["step"], row["lang"]][reason] += count
    rows = [
        [step, lang, ", ".join(f"{reason} {count:,}" for reason, count in sorted(found.items())), f"{chars[step, lang]:,}"]
        for (step, lang), found in edits.items()
    ]
    return Table(("step", "language", "documents by what was changed", "characters less"), rows, frozenset({3}))


def mix_rows_of(rows: list[dict[str, Any]], *, with_tokens: bool) -> Table:
    """The mix, in the columns of CroissantLLM's Table 1 once there are tokens."""
    made = []
    for row in rows:
        name = row["name"] if row["kind"] == "source" else f"{row['name']} (all)" if row["kind"] == "stream" else "total"
        cells = [name, row["stream"], f"{row['bytes'] / 1e6:.2f}", f"{row['documents']:,}"]
        if with_tokens:
            cells += [f"{row['tokens']:,}", f"{row['tokens_per_document']:.0f}", f"{row['ratio']:.2f}"]
            cells += [f"{row['tokens_seen']:,}", f"{100 * row['share']:.1f} %"]
        made.append(cells)
    totals = frozenset(number for number, row in enumerate(rows) if row["kind"] != "source")
    columns = ("source", "stream", "MB", "documents", "tokens", "tokens/document", "sampling ratio", "tokens seen", "share")
    return Table(columns if with_tokens else columns[:4], made, frozenset(range(2, 9 if with_tokens else 4)), totals)


def family_table(mix: dict[str, Any]) -> Table:
    """How much of the text seen each family is, in pretraining and in annealing."""
    phases = {"pretraining": mix["families"], "annealing": (mix["annealing"] or {}).get("families")}
    shown = {name: families for name, families in phases.items() if families}
    rows = [
        [
            family,
            f"{mix['families'][family]['bytes'] / 1e6:.2f}",
            *(f"{100 * families[family]['share']:.1f} %" for families in shown.values()),
        ]
        for family in mix["families"]
    ]
    return Table(("family", "MB", *(f"share of {name}" for name in shown)), rows, frozenset(range(1, 2 + len(shown))))


def source_table(fetch: Artifact) -> Table:
    """One row for each package, list or file of each source."""
    rows = []
    for source in fetch.folder.read_json("sources.json")["sources"]:
        found = [*source.get("packages", []), *source.get("lists", []), *source.get("files", [])]
        for entry in found[:FILES_SHOWN]:
            name = entry.get("package") or str(entry["path"]).rsplit("/", 1)[-1]
            rows.append(
                [
                    source["name"],
                    source["lang"],
                    source["license"],
                    name,
                    entry.get("version", ""),
                    f"{entry['bytes'] / 1e6:.2f}",
                    str(entry.get("sha256", ""))[:16],
                ]
            )
        if len(found) > FILES_SHOWN:
            rows.append([source["name"], source["lang"], source["license"], f"and {len(found) - FILES_SHOWN:,} more", "", "", ""])
    return Table(("source", "language", "licence", "package or file", "version", "MB", "SHA-256 (first 16)"), rows, frozenset({5}))


def stage_table(artifacts: Artifacts) -> Table:
    rows = []
    for stage, artifact in artifacts.items():
        size = sum(entry["bytes"] for entry in artifact.manifest["files"])
        rows.append(
            [
                stage,
                artifact.hash,
                format_seconds(artifact.manifest["seconds"]),
                f"{size / 1e6:,.1f}",
                str(len(artifact.manifest["files"])),
                artifact.manifest["started"],
            ]
        )
    return Table(("stage", "artifact", "time", "MB written", "files", "started"), rows, frozenset({2, 3, 4}))


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""
