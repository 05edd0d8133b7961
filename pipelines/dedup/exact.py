"""URL and exact dedup on Ray Data: rounds of hash shuffles over keys; no text is read.

URL dedup comes before all rules: of documents with one URL the most recent stays, then the lowest id, whatever the rules
think of it. Of documents that the rules keep and that have one id (the hash of the text) the one of the recipe's first
source stays, then the lowest URL. Of parallel documents that share either side alone, again the first source's: one text with
two translations, or two texts with one, teach a model noise.
"""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.keys import EXACT, REMOVALS, Corpus, part_and_row, partitions
from pipelines.ledger import EXACT_DEDUP, URL_DEDUP
from pipelines.shuffle import shuffle, spread

ROWS_EACH = 2_000_000
"""Documents in a shuffle partition: about 400 MB."""
ROWS_IN_ONE_TASK = 500_000
"""Up to so many documents no shuffle is needed: about 100 MB."""


@dataclass(frozen=True)
class Round:
    """Of the documents with one value of `column` (0 for none) the first in `order` stays."""

    column: str
    step: str
    reason: str
    order: tuple[tuple[str, str], ...]
    rules_first: bool

    @property
    def bucket(self) -> str:
        return f"{self.column}_bucket"


_BY_SOURCE = (("rank", "ascending"), ("url", "ascending"), ("id", "ascending"), ("key", "ascending"))
_BY_DATE = (("date", "descending"), ("id", "ascending"), ("url", "ascending"), ("key", "ascending"))
ROUNDS = (
    Round("url_key", URL_DEDUP, "same_url", _BY_DATE, rules_first=False),
    Round("id", EXACT_DEDUP, "same_text", _BY_SOURCE, rules_first=True),
)
SIDE_ROUNDS = (
    Round("text_key", EXACT_DEDUP, "same_text_side", _BY_SOURCE, rules_first=True),
    Round("translation_key", EXACT_DEDUP, "same_translation_side", _BY_SOURCE, rules_first=True),
)
"""Only for corpora with parallel documents."""

_CANDIDATES = pa.schema(
    [
        *((one.bucket, pa.int32()) for one in (*ROUNDS, *SIDE_ROUNDS)),
        *((name, pa.uint64()) for name in ("url_key", "text_key", "translation_key")),
        *(("rank", pa.int32()), ("key", pa.int64()), ("passes", pa.bool_()), ("survivor_key", pa.int64())),
        *((name, pa.string()) for name in ("id", "url", "date", "step", "reason", "survivor_id")),
    ]
)


def remove_exact(corpus: Corpus, rows: int) -> None:
    """Write the removals of all rounds below `EXACT`. What fits one task is one: each shuffle costs seconds."""
    import ray
    import ray.data

    if rows <= ROWS_IN_ONE_TASK:
        ray.get(ray.remote(_remove_in_one_task).remote(corpus))
        return
    count = partitions(rows, ROWS_EACH)
    parts = ray.data.from_items([{"part": part} for part in range(len(corpus.parts))], override_num_blocks=len(corpus.parts))
    rounds = _rounds(corpus)
    candidates = spread(parts, partial(_candidates, corpus=corpus, buckets=count), rounds[0].bucket)
    for one, following in pairwise(rounds):
        candidates = shuffle(candidates, partial(_mark, one=one), count, following.bucket)
    removed = shuffle(candidates, partial(_mark_last, one=rounds[-1]), count, "part")
    written = shuffle(removed, partial(write_removals, corpus=corpus, under=EXACT), min(count, len(corpus.parts)), None)
    for _ in written.iter_batches(batch_size=None):
        pass


def _rounds(corpus: Corpus) -> tuple[Round, ...]:
    return (*ROUNDS, *(SIDE_ROUNDS if corpus.parallel else ()))


def _remove_in_one_task(corpus: Corpus) -> None:
    rows = pa.concat_tables(_candidates(pa.table({"part": [part]}), corpus, 1) for part in range(len(corpus.parts)))
    for one in _rounds(corpus):
        rows = _mark(rows, one)
    removed = _removed(rows)
    for part in np.unique(removed["part"].to_numpy()):
        write_removals(removed.filter(pc.equal(removed["part"], part)), corpus, EXACT)


def _candidates(batch: pa.Table, corpus: Corpus, buckets: int) -> pa.Table:
    """Rows of the documents of one part that have a URL or passed the rules."""
    part = batch["part"][0].as_py()
    signals = corpus.signals(part, ["id", "url", "date", "source", "url_key", "text_key", "translation_key"])
    passes = corpus.verdicts(part, signals, ()).kept
    wanted = passes | (signals["url_key"].to_numpy() != 0)
    signals, passes = signals.filter(pa.array(wanted)), passes[wanted]
    ranks = dict(corpus.source_ranks)
    ids = np.array([int(id[:16], 16) for id in signals["id"].to_pylist()], np.uint64)
    made: dict[str, Any] = {
        "rank": [ranks[source] for source in signals["source"].to_pylist()],
        "key": corpus.keys(part, signals["row"].to_numpy()),
        "passes": passes,
        "survivor_key": np.zeros(signals.num_rows, np.int64),
        **{name: [""] * signals.num_rows for name in ("step", "reason", "survivor_id")},
    }
    for one in (*ROUNDS, *SIDE_ROUNDS):
        values = ids if one.column == "id" else signals[one.column].to_numpy()
        made[one.bucket] = (np.where(values == 0, ids, values) % np.uint64(buckets)).astype(np.int32)
    return pa.table({name: made[name] if name in made else signals[name] for name in _CANDIDATES.names}).cast(_CANDIDATES)


def _mark(rows: pa.Table, one: Round) -> pa.Table:
    """Mark all but the first of each value among the rows that are still there, in favour of the first."""
    there = pc.equal(rows["step"], "").to_numpy()
    if one.column != "id":
        there &= rows[one.column].to_numpy() != 0
    if one.rules_first:
        there &= rows["passes"].to_numpy()
    order = pc.sort_indices(rows, [(one.column, "ascending"), *one.order]).to_numpy()
    order = order[there[order]]
    values = rows[one.column].take(pa.array(order)).to_numpy()
    first = np.ones(len(order), bool)
    first[1:] = values[1:] != values[:-1]
    best = np.arange(rows.num_rows)
    best[order] = order[np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))]
    gone = pa.array(best != np.arange(rows.num_rows))
    found = {"step": one.step, "reason": one.reason, "survivor_id": rows["id"].take(pa.array(best)), "survivor_key": rows["key"].take(best)}
    marked = {name: pc.if_else(gone, value, rows[name]) for name, value in found.items()}
    return pa.table({name: marked.get(name, rows[name]) for name in _CANDIDATES.names}).cast(_CANDIDATES)


def _mark_last(rows: pa.Table, one: Round) -> pa.Table:
    return _removed(_mark(rows, one))


def _removed(rows: pa.Table) -> pa.Table:
    """The marked rows as removals."""
    rows = rows.filter(pc.not_equal(rows["step"], ""))
    nothing = np.full(rows.num_rows, np.nan)
    survivors = (rows["survivor_id"], rows["survivor_key"])
    return removals(rows["key"].to_numpy(), rows["step"], rows["reason"], nothing, nothing, survivors)


def removals(
    keys: np.ndarray, steps: Any, reasons: Any, values: np.ndarray, thresholds: np.ndarray, survivors: tuple[Any, Any]
) -> pa.Table:
    """`REMOVALS` with the number of each row's part; `survivors` are ids and keys."""
    parts, rows = part_and_row(keys)
    numbers = [pa.array(column, pa.float64(), from_pandas=True) for column in (values, thresholds)]
    columns = [parts, rows, steps, reasons, *numbers, *survivors]
    return pa.table(dict(zip(("part", *REMOVALS.names), columns, strict=True)))


def write_removals(rows: pa.Table, corpus: Corpus, under: str) -> pa.Table:
    """Write the removals of one part below `under`."""
    name = f"{under}/{corpus.parts[rows['part'][0].as_py()]}.parquet"
    rows = rows.take(pc.sort_indices(rows, [("row", "ascending")]))
    return pa.table({"rows": [corpus.out.write_table(name, rows.select(REMOVALS.names).cast(REMOVALS))]})
