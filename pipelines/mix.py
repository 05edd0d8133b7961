"""How often each source is seen: sampling ratios and epochs, after Table 1 of CroissantLLM (arXiv 2402.00786).

Writes `mix.json`:
`{"sources": {key: {source, stream, family, copies, lang, documents, bytes, ratio, bytes_seen, share}}, "families": {...},
"streams": {...}, "total": {...}, "dropped": [key], "warnings": [line], "annealing": the same, or null}`. A key is the
source's name, `name@stream` where one source feeds several streams, and `name+n` for documents of at least n copies where the
recipe weighs copies. `bytes` are UTF-8 bytes of the training texts (`document.render`: both directions of parallel
data), `share` is the part of all bytes seen. A ratio is the number of epochs; 0 drops a source.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from cluster.artifacts import Artifact
from cluster.errors import WorkError
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder
from pipelines.config import MixConfig, MixPhase
from pipelines.document import stream_of
from pipelines.parts import part_names, read_batches

VERSION = "2"

MIX = "mix.json"
TRAIN, HELDOUT = "corpus/train", "corpus/heldout"
GROUP = ("source", "stream", "family", "lang", "copies")
"""What documents are counted by."""
MANY_EPOCHS = 4.0
"""Repeating data up to four times costs little, more gains less and less (Muennighoff et al. 2023, arXiv 2305.16264)."""


def run(context: StageContext) -> dict[str, Any]:
    """Count every source of the clean corpus and write what the recipe's ratios make of it."""
    assert isinstance(context.config, MixConfig)
    clean = context.inputs["clean"]
    receipts = map_parts(corpus_parts(clean, TRAIN), _Count(clean.folder, tuple(context.config.copies)), context)
    counts = [row for receipt in receipts for row in receipt["counts"]]
    if not counts:
        raise WorkError("no document survived cleaning; `fournil report` shows which rule removed them")
    mix = make_mix(counts, context.config)
    context.out.write_json(MIX, mix)
    headline = ", ".join(f"{name} {100 * entry['share']:.0f} %" for name, entry in mix["streams"].items())
    return {"headline": headline, "streams": mix["streams"], "total": mix["total"], "dropped": mix["dropped"], "warnings": mix["warnings"]}


def corpus_parts(clean: Artifact, split: str) -> list[dict[str, Any]]:
    """One part for each Parquet file of a split of the clean corpus: `name` (the unit) and `path`."""
    return [{"name": name, "path": f"{split}/{name}.parquet"} for name in part_names(clean.folder, split)]


@dataclass(frozen=True)
class _Count:
    """Documents and training bytes of one part by `GROUP`."""

    clean: Folder
    bins: tuple[int, ...]

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        totals: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
        for batch in read_batches(self.clean, part["path"], ["source", "family", "lang", "copies", "text", "translation"]):
            parallel = pl.col("translation").is_not_null().alias("parallel")
            sizes = training_bytes().sum().alias("bytes")
            grouped = pl.DataFrame(batch).group_by("source", "family", "lang", "copies", parallel).agg(pl.len(), sizes)
            for source, family, lang, copies, is_parallel, documents, size in grouped.iter_rows():
                total = totals[source, stream_of(lang, is_parallel), family, lang, copies_bin(copies, self.bins)]
                total[0] += documents
                total[1] += size
        counts = sorted(totals.items())
        return {"counts": [dict(zip(GROUP, group, strict=True)) | {"documents": n, "bytes": size} for group, (n, size) in counts]}


def copies_bin(copies: int, bins: Sequence[int]) -> int:
    """The largest of `bins` (ascending) that `copies` reaches; 1 without bins."""
    return bins[max(bisect.bisect_right(bins, copies) - 1, 0)] if bins else 1


def training_bytes() -> pl.Expr:
    """UTF-8 bytes of `render(text, translation)` for each row of columns `text` and `translation`, without rendering it.

    With n lines, one direction is both texts less their n - 1 line ends each, n separators of 5 bytes, n - 1 line ends.
    """
    text, translation = pl.col("text"), pl.col("translation")
    lines = text.str.count_matches("\n", literal=True).cast(pl.Int64) + 1
    alone, other = text.str.len_bytes().cast(pl.Int64), translation.str.len_bytes().cast(pl.Int64)
    return pl.when(translation.is_null()).then(alone).otherwise(2 * (alone + other + 4 * lines + 1))


def make_mix(counts: list[dict[str, Any]], config: MixConfig) -> dict[str, Any]:
    """The content of `mix.json` from counts by `GROUP`."""
    annealing = None if config.annealing is None else _phase(counts, config.annealing, config.copies)
    return _phase(counts, config, config.copies) | {"annealing": annealing}


def _phase(counts: list[dict[str, Any]], config: MixPhase, copies: Mapping[int, float]) -> dict[str, Any]:
    """The mix of one phase of training."""
    sources = _merge(counts)
    for key, entry in sources.items():
        entry["ratio"] = _ratio(key, entry, config) * copies.get(entry["copies"], 1.0)
    _scale_to_shares(sources, config)
    for entry in sources.values():
        entry["bytes_seen"] = round(entry["bytes"] * entry["ratio"])
    seen = sum(entry["bytes_seen"] for entry in sources.values())
    if not seen:
        raise WorkError("every source has ratio 0, so there is nothing to train on; raise a ratio under `mix`")
    for entry in sources.values():
        entry["share"] = round(entry["bytes_seen"] / seen, 6)
    by = {
        of: {name: _total([e for e in sources.values() if e[of] == name], seen) for name in sorted({e[of] for e in sources.values()})}
        for of in ("family", "stream")
    }
    return {
        "sources": sources,
        "families": by["family"],
        "streams": by["stream"],
        "total": _total(list(sources.values()), seen),
        "dropped": [key for key, entry in sources.items() if entry["ratio"] == 0],
        "warnings": _warnings(sources, config),
    }


def _scale_to_shares(sources: dict[str, dict[str, Any]], config: MixPhase) -> None:
    """Scale the ratios of each stream to its share of as much text as the ratios alone would show."""
    if not config.shares:
        return
    base: Counter[str] = Counter()
    for entry in sources.values():
        base[entry["stream"]] += entry["bytes"] * entry["ratio"]
    for stream, amount in sorted(base.items()):
        if stream not in config.shares:
            raise WorkError(f"mix.shares says nothing of the stream {stream}, of which there are documents; add it (0 leaves it out)")
        if amount == 0 and config.shares[stream] > 0:
            raise WorkError(f"mix.shares asks for the stream {stream}, whose sources all have ratio 0; raise one under mix.ratios")
    named = sum(share for stream, share in config.shares.items() if base[stream])
    for entry in sources.values():
        stream = entry["stream"]
        if base[stream]:
            entry["ratio"] = round(entry["ratio"] * config.shares[stream] / named * sum(base.values()) / base[stream], 6)


def annealing_ratios(mix: dict[str, Any], config: MixConfig, phase: MixPhase | None = None) -> dict[str, float]:
    """The ratio of each source of `mix.json` while annealing: by `phase`, else by the mix's own `annealing`, else as in pretraining.

    `config` is what the mix was made from.
    """
    chosen = mix["annealing"] or mix if phase is None else _phase(list(mix["sources"].values()), phase, config.copies)
    return {key: entry["ratio"] for key, entry in chosen["sources"].items()}


@dataclass(frozen=True)
class SourceKeys:
    """Which key of the mix a document counts under."""

    keys: dict[tuple[str, str, int], str]
    bins: tuple[int, ...]

    def key(self, source: str, stream: str, copies: int) -> str | None:
        """None for sources that no phase sees."""
        return self.keys.get((source, stream, copies_bin(copies, self.bins)))

    def is_seen(self, source: str, stream: str) -> bool:
        """Whether any documents of a source train in that stream; held-out documents of others measure nothing."""
        return any((source, stream, copies) in self.keys for copies in self.bins)


def source_keys(mix: dict[str, Any]) -> SourceKeys:
    """The keys of `mix["sources"]` that are seen at all, in any phase."""
    phases = [phase["sources"] for phase in (mix, mix["annealing"]) if phase]
    keys = {
        (entry["source"], entry["stream"], entry["copies"]): key
        for key, entry in mix["sources"].items()
        if any(sources[key]["ratio"] > 0 for sources in phases)
    }
    return SourceKeys(keys, tuple(sorted({1, *(entry["copies"] for entry in mix["sources"].values())})))


def mix_table(mix: dict[str, Any], index: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows in the columns of CroissantLLM's Table 1: the sources of each stream, the stream, and at the end the total.

    `mix` is `mix.json`, `index` the `index.json` of the tokens stage. `kind` is source, stream or total; a total's ratio
    is tokens seen by tokens; `share` is of the tokens seen; a dropped source has no tokens.
    """
    leaves = [
        {**entry, "kind": "source", "name": key, **{field: index["sources"].get(key, {}).get(field, 0) for field in ("tokens",)}}
        for key, entry in mix["sources"].items()
    ]
    for leaf in leaves:
        leaf["tokens_seen"] = round(leaf["tokens"] * leaf["ratio"])
    rows: list[dict[str, Any]] = []
    for stream in mix["streams"]:
        members = [leaf for leaf in leaves if leaf["stream"] == stream]
        rows += [*members, _sum_row("stream", stream, stream, members)]
    rows.append(_sum_row("total", "total", "", leaves))
    seen = rows[-1]["tokens_seen"]
    return [_table_row(row, seen) for row in rows]


def _merge(counts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Counts of all parts by key, in the order of streams and names."""
    merged: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in counts:
        start = {"family": row["family"], "langs": set(), "documents": 0, "bytes": 0}
        entry = merged.setdefault((row["stream"], row["source"], row["copies"]), start)
        entry["langs"].add(row["lang"])
        entry["documents"] += row["documents"]
        entry["bytes"] += row["bytes"]
    feeding = Counter(source for source, _ in {(source, stream) for stream, source, _ in merged})
    return {
        f"{source if feeding[source] == 1 else f'{source}@{stream}'}{f'+{copies}' if copies > 1 else ''}": {
            "source": source,
            "stream": stream,
            "family": entry["family"],
            "copies": copies,
            "lang": "+".join(sorted(entry["langs"])),
            "documents": entry["documents"],
            "bytes": entry["bytes"],
        }
        for (stream, source, copies), entry in sorted(merged.items())
    }


def _ratio(key: str, entry: dict[str, Any], config: MixPhase) -> float:
    """The source's own ratio if the recipe names it, else its family's, else its stream's; a stream the recipe leaves out is
    seen once."""
    by_source, name = config.sources, key.partition("+")[0]
    fallback = config.families.get(entry["family"], config.ratios.get(entry["stream"], 1.0))
    return by_source.get(name, by_source.get(entry["source"], fallback))


def _total(entries: list[dict[str, Any]], seen: int) -> dict[str, Any]:
    """Sums of several sources; their common ratio is bytes seen by bytes."""
    documents, size, bytes_seen = (sum(entry[field] for entry in entries) for field in ("documents", "bytes", "bytes_seen"))
    return {
        "documents": documents,
        "bytes": size,
        "ratio": round(bytes_seen / size, 4) if size else 0.0,
        "bytes_seen": bytes_seen,
        "share": round(bytes_seen / seen, 6),
    }


def _warnings(sources: dict[str, dict[str, Any]], config: MixPhase) -> list[str]:
    lines = [
        f"{key} is seen {entry['ratio']:g} times; past {MANY_EPOCHS:g} epochs repeated text teaches less and less"
        for key, entry in sources.items()
        if entry["ratio"] > MANY_EPOCHS
    ]
    lines += [f"{key} has ratio 0 and is left out" for key, entry in sources.items() if entry["ratio"] == 0]
    known = {*(key.partition("+")[0] for key in sources), *(entry["source"] for entry in sources.values())}
    lines += [f"mix.sources names {name}, of which no document is left" for name in sorted(set(config.sources) - known)]
    return lines


def _sum_row(kind: str, name: str, stream: str, members: list[dict[str, Any]]) -> dict[str, Any]:
    sums = {field: sum(member[field] for member in members) for field in ("documents", "bytes", "tokens", "tokens_seen")}
    return {"kind": kind, "name": name, "stream": stream, "ratio": _over(sums["tokens_seen"], sums["tokens"]), **sums}


def _table_row(row: dict[str, Any], seen: int) -> dict[str, Any]:
    tokens, documents = row["tokens"], row["documents"]
    return {
        **{field: row[field] for field in ("kind", "name", "stream", "bytes", "documents", "tokens")},
        "tokens_per_document": _over(tokens, documents),
        "ratio": row["ratio"],
        "tokens_seen": row["tokens_seen"],
        "share": _over(row["tokens_seen"], seen),
        "bytes_per_token": _over(row["bytes"], tokens),
    }


def _over(amount: float, of: float) -> float:
    return amount / of if of else 0.0
