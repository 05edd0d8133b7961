"""Near-duplicate dedup on Ray Data: band buckets, candidate pairs, true Jaccard on the texts, survivors.

One task where the corpus is small, else hash shuffles: documents by band bucket (28 bytes a band), then, unless the texts in
candidate pairs are few enough for one task, candidate pairs by the part whose texts they need, shingle sets by the head of
their stars, and verified pairs to one task that picks survivors. Texts never leave the task that reads them, and only
documents in some candidate pair are read. Results depend on documents alone, not on partitions, workers or order.
"""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import MinHashConfig
from pipelines.dedup.clusters import keepers
from pipelines.dedup.exact import removals, write_removals
from pipelines.dedup.keys import EXACT, NEAR, Corpus, part_and_row, partitions
from pipelines.dedup.minhash import band_hashes, candidate_pairs, survivor_ranks
from pipelines.kernels import jaccards, shingle_sets
from pipelines.ledger import NEAR_DEDUP
from pipelines.parts import read_batches
from pipelines.score import whole_text
from pipelines.shuffle import shuffle, spread, unpack

PAIRS = "dedup/pairs.parquet"
NEAR_DUPLICATE = "near_duplicate"
ROWS_EACH = 100_000
"""Documents in a shuffle partition: at most some hundred MB of shingles."""
ROWS_IN_ONE_TASK, BYTES_IN_ONE_TASK = 300_000, 500_000_000
"""Up to so many documents (16 bytes a band each) with so much text (shingles take at most about twice that) no shuffle is needed: on
one core 271,489 documents took 4 s in one task and 15 s with shuffles."""


def remove_near(corpus: Corpus, rows: int) -> None:
    """Write the removals below `NEAR` and the verified pairs, by id, to `PAIRS`. What fits one task is one."""
    import ray
    import ray.data

    mean_bytes = corpus.text_bytes / max(1, rows)
    if _fits_one_task(rows, mean_bytes):
        ray.get(ray.remote(_remove_in_one_task).remote(corpus))
        return
    count, config = partitions(rows, ROWS_EACH), corpus.config.minhash
    parts = ray.data.from_items([{"part": part} for part in range(len(corpus.parts))], override_num_blocks=len(corpus.parts))
    bands = spread(parts, partial(_bands, corpus=corpus, buckets=count), "bucket")
    wanted = shuffle(bands, partial(_candidates, max_bucket=config.max_bucket), count, "part").materialize()
    if _fits_one_task(sum(row["count"] for row in wanted.select_columns(["count"]).iter_rows()), mean_bytes):
        ray.get(ray.remote(_compare_packed).remote(corpus, *wanted.to_arrow_refs()))
        return
    shingles = shuffle(wanted, partial(_shingles, corpus=corpus, buckets=count), min(count, len(corpus.parts)), "bucket")
    verified = shuffle(shingles, partial(_verify, config=config), count, "all")
    for _ in shuffle(verified, partial(_cluster, corpus=corpus), 1, None).iter_batches(batch_size=None):
        pass


def _fits_one_task(documents: int, mean_bytes: float) -> bool:
    return documents <= ROWS_IN_ONE_TASK and documents * mean_bytes <= BYTES_IN_ONE_TASK


def _remove_in_one_task(corpus: Corpus) -> None:
    """Bands one after the other: a hash tells its band, so no bucket holds two of them, and sorting one needs less memory."""
    config = corpus.config.minhash
    signed = [_signed(part, corpus) for part in range(len(corpus.parts))]
    candidates = [_candidates(_one_band(signed, band), config.max_bucket) for band in range(config.bands)]
    del signed
    _compare_in_one_task(corpus, *candidates)


def _compare_packed(corpus: Corpus, *packed: pa.Table) -> None:
    _compare_in_one_task(corpus, *(unpack(table) for table in packed if table.num_rows))


def _compare_in_one_task(corpus: Corpus, *candidates: pa.Table) -> None:
    """Read and compare the texts of all candidate pairs, and write what goes."""
    some = [table for table in candidates if table.num_rows]
    if not some:
        return
    wanted = pa.concat_tables(some)
    parts = [wanted.filter(pc.equal(wanted["part"], part)) for part in np.unique(wanted["part"].to_numpy())]
    shingles = [table for part in parts for table in _shingles(part, corpus, 1)]
    pairs = _verify(pa.concat_tables(shingles), corpus.config.minhash) if shingles else None
    if pairs is not None and pairs.num_rows:
        for _ in _cluster(pairs, corpus):
            pass


@dataclass(frozen=True)
class Signed:
    """n documents of a part that are still kept: uint64[n, bands] hashes and second hashes, uint64[n] ranks, int64[n] keys."""

    hashes: np.ndarray
    seconds: np.ndarray
    ranks: np.ndarray
    keys: np.ndarray


def _signed(part: int, corpus: Corpus) -> Signed:
    config = corpus.config.minhash
    signals = corpus.signals(part, ["id", "chars", "translation_chars", "minhash", "quality_score"])
    kept = corpus.verdicts(part, signals, (EXACT,)).kept & signals["minhash"].is_valid().to_numpy()
    signals = signals.filter(pa.array(kept))
    values = signals["minhash"].combine_chunks().flatten().to_numpy().reshape(signals.num_rows, config.bands * config.rows)
    ids = np.array([int(id[:6], 16) for id in signals["id"].to_pylist()], np.uint64)
    ranks = survivor_ranks(_quality(signals), _whole_chars(signals), ids)
    return Signed(*band_hashes(values, config.bands, config.rows), ranks, corpus.keys(part, signals["row"].to_numpy()))


def _bands(batch: pa.Table, corpus: Corpus, buckets: int) -> pa.Table:
    """One row for each document of a part that is still kept and each band of its signature."""
    signed, bands = _signed(batch["part"][0].as_py(), corpus), corpus.config.minhash.bands
    rows = pa.table(
        {
            "hash": signed.hashes.reshape(-1),
            "second": signed.seconds.reshape(-1),
            "rank": np.repeat(signed.ranks, bands),
            "key": np.repeat(signed.keys, bands),
        }
    )
    return rows.append_column("bucket", pa.array((signed.hashes.reshape(-1) % np.uint64(buckets)).astype(np.int32)))


def _one_band(signed: list[Signed], band: int) -> pa.Table:
    """What `_bands` gives, of one band of all documents."""
    columns = [{"hash": one.hashes[:, band], "second": one.seconds[:, band], "rank": one.ranks, "key": one.keys} for one in signed]
    return pa.table({name: np.concatenate([one[name] for one in columns]) for name in columns[0]})


def _quality(signals: pa.Table) -> np.ndarray:
    """float64[n]: the classifier's score, 0 without one."""
    return pc.fill_null(signals["quality_score"].cast(pa.float64()), 0.0).to_numpy()


def _whole_chars(signals: pa.Table) -> np.ndarray:
    return signals["chars"].to_numpy() + np.maximum(signals["translation_chars"].to_numpy(), 0)


def _candidates(rows: pa.Table, max_bucket: int) -> pa.Table:
    """From all rows of some buckets to the texts that candidate pairs need: each document once for each of its heads."""
    hashes, seconds, ranks, all_keys = (rows[name].to_numpy() for name in ("hash", "second", "rank", "key"))
    heads, members = candidate_pairs(hashes, seconds, ranks, all_keys, max_bucket)
    hubs = np.unique(heads)
    keys, stars = np.concatenate([members, hubs]), np.concatenate([heads, hubs])
    return pa.table({"part": part_and_row(keys)[0].astype(np.int32), "key": keys, "head": stars})


def _shingles(rows: pa.Table, corpus: Corpus, buckets: int) -> Iterator[pa.Table]:
    """Read the wanted documents of one part and send each shingle set to the heads that asked for it."""
    part = rows["part"][0].as_py()
    size = corpus.config.minhash.shingle_words
    wanted = np.unique(np.stack([part_and_row(rows["key"].to_numpy())[1], rows["head"].to_numpy()], axis=1), axis=0)
    signals = corpus.scores.read_table(f"signals/{corpus.parts[part]}.parquet", columns=["row", "lang", "quality_score"])
    signal_rows = signals["row"].to_numpy()
    first = 0
    for batch in read_batches(corpus.documents, f"documents/{corpus.parts[part]}.parquet", ["id", "text", "translation", "source"]):
        here = wanted[np.searchsorted(wanted[:, 0], first) : np.searchsorted(wanted[:, 0], first + batch.num_rows)]
        numbers, places = np.unique(here[:, 0], return_inverse=True)
        if len(numbers):
            documents = batch.take(pa.array(numbers - first)).combine_chunks()
            known = signals.take(pa.array(np.searchsorted(signal_rows, numbers)))
            documents, _ = corpus.editor.edit(documents, known["lang"].to_pylist())
            documents = documents.append_column("quality", pa.array(_quality(known)))
            yield _shingle_rows(documents, corpus.keys(part, here[:, 0]), here[:, 1], pa.array(places), size, buckets)
        first += batch.num_rows


def _shingle_rows(documents: pa.Table, keys: np.ndarray, heads: np.ndarray, places: pa.Array, shingle_words: int, buckets: int) -> pa.Table:
    """What the heads asked for: document `places[i]`, whose key is `keys[i]`, goes to `heads[i]`."""
    texts = whole_text(documents)
    bucket = ((heads.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) % np.uint64(buckets)
    return pa.table(
        {
            "bucket": bucket.astype(np.int32),
            "head": heads,
            "key": keys,
            "id": documents["id"].take(places),
            "quality": documents["quality"].take(places),
            "chars": pc.utf8_length(texts).cast(pa.int64()).take(places),
            "hashes": shingle_sets(texts, shingle_words).take(places),
        }
    )


def _verify(rows: pa.Table, config: MinHashConfig) -> pa.Table:
    """Compare the documents of each star with its head; give the pairs that are similar enough."""
    keys, heads = rows["key"].to_numpy(), rows["head"].to_numpy()
    hubs = np.flatnonzero(keys == heads)
    hubs = hubs[np.argsort(keys[hubs])]
    members = np.flatnonzero(keys != heads)
    hubs = hubs[np.searchsorted(keys[hubs], heads[members])]
    sets = rows["hashes"].combine_chunks()
    found = jaccards(sets.offsets.to_numpy(), sets.values.to_numpy(), hubs, members)
    if config.min_containment is not None:
        found = containments(found, *(np.diff(sets.offsets.to_numpy())[side] for side in (hubs, members)))
    near = found >= threshold(config)
    columns: dict[str, pa.Array | np.ndarray] = {"all": np.zeros(near.sum(), np.int32), "similarity": found[near]}
    for side, places in (("head", hubs[near]), ("member", members[near])):
        columns |= {f"{side}_{name}": rows[name].take(pa.array(places)) for name in ("key", "id", "quality", "chars")}
    return pa.table(columns)


def containments(jaccard: np.ndarray, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of the smaller set that lies in the larger, float64[n], from the Jaccard index and the sizes of both."""
    return np.minimum(jaccard / (1 + jaccard) * (ones + others) / np.maximum(np.minimum(ones, others), 1), 1.0)


def threshold(config: MinHashConfig) -> float:
    """What the similarity of a pair must reach."""
    return config.min_jaccard if config.min_containment is None else config.min_containment


def _cluster(pairs: pa.Table, corpus: Corpus) -> Iterator[pa.Table]:
    """All verified pairs in one task (56 bytes each): of similar documents the best in quality stays, then the longest, then the
    lowest id (`clusters.keepers`)."""
    pairs = pairs.take(pc.sort_indices(pairs, [("head_id", "ascending"), ("member_id", "ascending")]))
    corpus.out.write_table(PAIRS, pairs.select(["head_id", "member_id", "similarity"]))
    removed = _removed(pairs, threshold(corpus.config.minhash))
    for part in np.unique(removed["part"].to_numpy()):
        yield write_removals(removed.filter(pc.equal(removed["part"], part)), corpus, NEAR)


def _removed(pairs: pa.Table, limit: float) -> pa.Table:
    """The documents that go, as `removals`; the value is the similarity to the document kept in their place."""
    names = ["key", "id", "quality", "chars"]
    sides = [pairs.select([f"{side}_{name}" for name in names]).rename_columns(names) for side in ("head", "member")]
    documents = pa.concat_tables(sides)
    keys, first = np.unique(documents["key"].to_numpy(), return_index=True)
    documents = documents.take(pa.array(first))
    ranks = np.empty(len(keys), np.int64)
    order = pc.sort_indices(documents, [("quality", "descending"), ("chars", "descending"), ("id", "ascending")])
    ranks[order.to_numpy()] = np.arange(len(keys))
    ones, others = (np.searchsorted(keys, pairs[f"{side}_key"].to_numpy()) for side in ("head", "member"))
    kept, values = keepers(ranks, ones, others, pairs["similarity"].to_numpy())
    gone = np.flatnonzero(kept != np.arange(len(keys)))
    steps = pa.array([NEAR_DEDUP] * len(gone), pa.string())
    survivors = (documents["id"].take(pa.array(kept[gone])), keys[kept[gone]])
    reasons = pa.array([NEAR_DUPLICATE] * len(gone), pa.string())
    return removals(keys[gone], steps, reasons, values[gone], np.full(len(gone), limit), survivors)
