"""URL and exact dedup on Ray Data: two hash shuffles over ids and URLs; no text is read.

Of documents with one URL the most recent stays, then the lowest id. Of documents with one id (the hash of the text)
the one of the recipe's first source stays, then the lowest URL.
"""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.keys import EXACT, REMOVALS, Corpus, part_and_row, partitions
from pipelines.ledger import EXACT_DEDUP, URL_DEDUP

ROWS_EACH = 2_000_000
"""Documents in a shuffle partition: about 300 MB."""

_CANDIDATES = pa.schema(
    [
        *((name, pa.int32()) for name in ("url_bucket", "id_bucket", "rank")),
        *(("key", pa.int64()), ("url_key", pa.uint64())),
        *((name, pa.string()) for name in ("id", "url", "date", "step", "survivor_id")),
    ]
)


def remove_exact(corpus: Corpus, rows: int) -> None:
    """Write the removals of both steps below `EXACT`."""
    import ray.data

    count = partitions(rows, ROWS_EACH)
    parts = ray.data.from_items([{"part": part} for part in range(len(corpus.parts))], override_num_blocks=len(corpus.parts))
    candidates = parts.map_batches(partial(_candidates, corpus=corpus, buckets=count), batch_size=1, batch_format="pyarrow")
    by_url = candidates.groupby("url_bucket", num_partitions=count).map_groups(_remove_url, batch_format="pyarrow")
    by_id = by_url.groupby("id_bucket", num_partitions=count).map_groups(_remove_exact, batch_format="pyarrow")
    by_part = by_id.groupby("part", num_partitions=min(count, len(corpus.parts)))
    written = by_part.map_groups(partial(write_removals, corpus=corpus, under=EXACT), batch_format="pyarrow")
    for _ in written.iter_batches(batch_size=None):
        pass


def _candidates(batch: pa.Table, corpus: Corpus, buckets: int) -> pa.Table:
    """Rows of the documents of one part that passed the rules."""
    part = batch["part"][0].as_py()
    signals = corpus.signals(part, ["id", "url", "date", "source", "url_key"])
    signals = signals.filter(pa.array(corpus.verdicts(part, signals, ()).kept))
    ranks = dict(corpus.source_ranks)
    ids = np.array([int(id[:8], 16) for id in signals["id"].to_pylist()], np.int64) % buckets
    urls = signals["url_key"].to_numpy()
    made = {
        "url_bucket": np.where(urls == 0, ids, (urls % np.uint64(buckets)).astype(np.int64)),
        "id_bucket": ids,
        "rank": [ranks[source] for source in signals["source"].to_pylist()],
        "key": corpus.keys(part, signals["row"].to_numpy()),
        "step": [""] * signals.num_rows,
        "survivor_id": [""] * signals.num_rows,
    }
    return pa.table({name: made[name] if name in made else signals[name] for name in _CANDIDATES.names}).cast(_CANDIDATES)


def _remove_url(rows: pa.Table) -> pa.Table:
    """Mark all but the best of each URL."""
    rows = rows.take(
        pc.sort_indices(
            rows, [("url_key", "ascending"), ("date", "descending"), ("id", "ascending"), ("url", "ascending"), ("key", "ascending")]
        )
    )
    keys = rows["url_key"].to_numpy()
    first = np.concatenate([[True], keys[1:] != keys[:-1]]) | (keys == 0)
    return _mark(rows, first, URL_DEDUP)


def _remove_exact(rows: pa.Table) -> pa.Table:
    """Mark all but the best of each id that URL dedup left; give only the removed ones of both steps."""
    by_url, rows = rows.filter(pc.equal(rows["step"], URL_DEDUP)), rows.filter(pc.equal(rows["step"], ""))
    rows = rows.take(pc.sort_indices(rows, [(name, "ascending") for name in ("id", "rank", "url", "key")]))
    ids = rows["id"].to_numpy()
    first = np.concatenate([[True], ids[1:] != ids[:-1]]) if len(ids) else np.zeros(0, bool)
    rows = _mark(rows, first, EXACT_DEDUP)
    removed = pa.concat_tables([by_url, rows.filter(pc.equal(rows["step"], EXACT_DEDUP))])
    nothing = np.full(removed.num_rows, np.nan)
    return removals(removed["key"].to_numpy(), removed["step"], nothing, nothing, removed["survivor_id"])


def _mark(rows: pa.Table, first: np.ndarray, step: str) -> pa.Table:
    """In sorted rows, those that are not `first` of their group go, in favour of the last first before them."""
    best = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0)) if len(first) else np.zeros(0, np.int64)
    survivors = pc.if_else(pa.array(first), "", rows["id"].take(pa.array(best)))
    steps = pc.if_else(pa.array(first), "", step)
    return (
        rows.drop_columns(["step", "survivor_id"])
        .append_column("step", steps)
        .append_column("survivor_id", survivors)
        .select(_CANDIDATES.names)
    )


def removals(keys: np.ndarray, steps: Any, values: np.ndarray, thresholds: np.ndarray, survivors: Any) -> pa.Table:
    """`REMOVALS` with the number of each row's part."""
    parts, rows = part_and_row(keys)
    numbers = [pa.array(column, pa.float64(), from_pandas=True) for column in (values, thresholds)]
    return pa.table({"part": parts, "row": rows, "step": steps, "value": numbers[0], "threshold": numbers[1], "survivor_id": survivors})


def write_removals(rows: pa.Table, corpus: Corpus, under: str) -> pa.Table:
    """Write the removals of one part below `under`."""
    name = f"{under}/{corpus.parts[rows['part'][0].as_py()]}.parquet"
    rows = rows.take(pc.sort_indices(rows, [("row", "ascending")]))
    return pa.table({"rows": [corpus.out.write_table(name, rows.select(REMOVALS.names).cast(REMOVALS))]})
