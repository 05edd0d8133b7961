"""Substring dedup on Ray Data: runs of at least `min_words` words that an earlier document, or place, has too.

After Lee et al. 2022 (arXiv 2107.06499), who find repeated runs of 50 BPE tokens with a suffix array of the whole corpus.
Here one copy of each run stays, and the search is a shuffle:

1. Each lone document that is still kept, as edited, gives the winnowed fingerprints of its words (`runs.py`): 32 bytes
   each, about 2 / (w + 1) of them a word, w = min_words / 2. They are shuffled by value.
2. The first place of a fingerprint in content order (document id, then word) owns it; the others are candidates. Stars, so
   a template in a million documents makes a million candidates, not pairs of all with all.
3. Documents in candidates are read once a part, and their word hashes sent to the bucket of the candidate's document, an
   owner once to each bucket that wants it. Matches are followed to both sides there, and runs >= min_words are kept.
4. Runs are shuffled by the owner's document together with the runs found in it. A run whose copy lies in no run itself may go.
   The others (tangled: quotations of quotations) are decided in one task, first places first: of each go the parts of at least
   `min_words` words whose copy stays. So of everything that goes a copy stays, whole and in one piece.
5. The spans that go are written by part: `SPANS` below `SPANS_FOLDER`, those of the one task apart.

Order is that of content (ties of the first 64 bits of two ids aside), never that of parts, partitions or workers. What may be
missed are runs all of whose fingerprints belong to a still earlier document with which they share less than `min_words` words.

Cost per TB of text (170 G words, min_words 50): 13 G fingerprints, 420 GB of shuffle; for the documents in candidates a second
reading and 8 bytes of shuffle a word, 1.3 TB if that is all of them. A task holds a bucket: the fingerprints of about
`ROWS_EACH` documents (2.5 bytes a word), and then the words of those in candidates and their owners. What breaks first is
the one task (100 bytes a tangled run, 1 byte a word of its documents), or the bucket of a fingerprint that is in everything (32
bytes a place).
"""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.keys import EXACT, NEAR, Corpus, part_and_row, partitions
from pipelines.dedup.runs import Candidates, Runs, fingerprints, first_places, match_runs, merge, settle, tangled, word_sequences
from pipelines.dedup.spans import SPANS
from pipelines.parts import read_batches, read_if_there
from pipelines.shuffle import shuffle, spread

SPANS_FOLDER = "dedup/spans"
"""Where the spans lie by part, those of plain and of tangled runs; parts without any have no file."""
PLAIN, TANGLED = f"{SPANS_FOLDER}/plain", f"{SPANS_FOLDER}/tangled"

ROWS_EACH = 50_000
"""Documents in a shuffle partition: at most some hundred MB of word hashes."""

_FINGERPRINTS = pa.schema(
    [("bucket", pa.int32()), ("value", pa.uint64()), ("rank", pa.uint64()), ("key", pa.int64()), ("place", pa.int32())]
)
_WANTED = pa.schema(
    [
        *(("part", pa.int32()), ("key", pa.int64()), ("bucket", pa.int32())),
        *(("place", pa.int32()), ("owner", pa.int64()), ("owner_place", pa.int32())),
    ]
)
"""The document `key` of `part` is wanted in `bucket`; with an owner (else -1) for this candidate, without as an owner."""
_SEQUENCES = pa.schema(
    [
        *(("bucket", pa.int32()), ("key", pa.int64()), ("id", pa.string()), ("words", pa.large_list(pa.uint64()))),
        *(("places", pa.large_list(pa.int32())), ("owners", pa.large_list(pa.int64())), ("owner_places", pa.large_list(pa.int32()))),
    ]
)
_RUN_COLUMNS = [
    *(("key", pa.int64()), ("start", pa.int64()), ("length", pa.int64()), ("owner", pa.int64()), ("owner_start", pa.int64())),
    *(("rank", pa.uint64()), ("owner_id", pa.string())),
]
_SENT = pa.schema([("bucket", pa.int32()), ("own", pa.bool_()), *_RUN_COLUMNS])
"""A run of the document `key`, sent to the bucket of its owner, and (`own`) to its own document's."""
_RUNS = pa.schema([("part", pa.int32()), *_RUN_COLUMNS])
"""A run of the document `key`, which may go, for the part of that; or for `_ONE_TASK`, tangled."""
_ONE_TASK = -1


def remove_substrings(corpus: Corpus, rows: int) -> None:
    """Write the spans that go below `SPANS_FOLDER`."""
    import ray.data

    count, least = partitions(rows, ROWS_EACH), corpus.config.substrings.min_words
    parts = ray.data.from_items([{"part": part} for part in range(len(corpus.parts))], override_num_blocks=len(corpus.parts))
    places = spread(parts, partial(_fingerprints, corpus=corpus, buckets=count), "bucket")
    wanted = shuffle(places, partial(_candidates, buckets=count, min_words=least), count, "part")
    sequences = shuffle(wanted, partial(_sequences, corpus=corpus), min(count, len(corpus.parts)), "bucket")
    runs = shuffle(sequences, partial(_match, buckets=count, min_words=least), count, "bucket")
    sorted_out = shuffle(runs, _part_tangled, count, "part")
    for _ in shuffle(sorted_out, partial(_finish, corpus=corpus), min(count, len(corpus.parts) + 1), None).iter_batches(batch_size=None):
        pass


def read_spans(corpus: Corpus, part: int) -> pa.Table:
    """The `SPANS` of a part; none where the step is off."""
    if not corpus.config.substrings.enabled:
        return SPANS.empty_table()
    return _join(
        pa.concat_tables([read_if_there(corpus.out, f"{folder}/{corpus.parts[part]}.parquet", SPANS) for folder in (PLAIN, TANGLED)])
    )


def _fingerprints(batch: pa.Table, corpus: Corpus, buckets: int) -> Iterator[pa.Table]:
    """Fingerprints of the documents of a part that are still kept; parallel text and code have none."""
    part = batch["part"][0].as_py()
    signals = corpus.signals(part, ["id", "lang", "translation_chars"])
    kept = corpus.verdicts(part, signals, (EXACT, NEAR)).kept
    lone = pc.and_(pc.less(signals["translation_chars"], 0), pc.not_equal(signals["lang"], "code")).to_numpy()
    signals = signals.filter(pa.array(kept & lone))
    keys = corpus.keys(part, signals["row"].to_numpy())
    ranks = _ranks(signals["id"])
    yield _FINGERPRINTS.empty_table()
    for here, texts in _texts(corpus, part, signals):
        documents, places, values = fingerprints(word_sequences(texts), corpus.config.substrings.min_words)
        bucket = (values % np.uint64(buckets)).astype(np.int32)
        yield pa.table([bucket, values, ranks[here][documents], keys[here][documents], places], schema=_FINGERPRINTS)


def _texts(corpus: Corpus, part: int, signals: pa.Table) -> Iterator[tuple[slice, pa.Array]]:
    """The edited texts of documents of a part (`row`, ascending, and `lang`), a row group at a time, and which they are."""
    rows, first = signals["row"].to_numpy(), 0
    for batch in read_batches(corpus.documents, f"documents/{corpus.parts[part]}.parquet", ["text", "translation", "source"]):
        here = slice(*np.searchsorted(rows, (first, first + batch.num_rows)))
        if here.stop > here.start:
            documents = batch.take(pa.array(rows[here] - first)).combine_chunks()
            langs = signals["lang"].slice(here.start, here.stop - here.start).to_pylist()
            yield here, corpus.editor.edit(documents, langs)[0]["text"].combine_chunks()
        first += batch.num_rows


def _bucket_of(keys: np.ndarray, buckets: int) -> np.ndarray:
    """int32[n]: where the runs of a document meet."""
    return (((keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) % np.uint64(buckets)).astype(np.int32)


def _candidates(rows: pa.Table, buckets: int, min_words: int) -> pa.Table:
    """From all places of some fingerprints to the documents to read: one row a candidate, one a bucket and owner."""
    columns = [rows[name].to_numpy() for name in ("value", "rank", "key", "place")]
    found = first_places(columns[0], columns[1], columns[2], columns[3], min_words)
    bucket = _bucket_of(found.documents, buckets)
    other = found.owners != found.documents
    owners = np.unique(np.stack([found.owners[other], bucket[other].astype(np.int64)], axis=1), axis=0)
    keys = np.concatenate([found.documents, owners[:, 0]])
    made = [part_and_row(keys)[0].astype(np.int32), keys, np.concatenate([bucket, owners[:, 1].astype(np.int32)])]
    columns = ((found.places, np.int32), (found.owners, np.int64), (found.owner_places, np.int32))
    made += [np.concatenate([column, np.full(len(owners), -1, kind)]) for column, kind in columns]
    return pa.table(made, schema=_WANTED)


def _sequences(rows: pa.Table, corpus: Corpus) -> Iterator[pa.Table]:
    """Read the wanted documents of one part and send the words of each, with its candidates, to the buckets that want it."""
    part = rows["part"][0].as_py()
    rows = rows.take(pc.sort_indices(rows, [(name, "ascending") for name in ("key", "bucket", "owner", "place", "owner_place")]))
    wanted, numbers = np.unique(np.stack([rows["key"].to_numpy(), rows["bucket"].to_numpy()], axis=1), axis=0, return_inverse=True)
    candidate = rows["owner"].to_numpy() >= 0
    counts = np.bincount(numbers.reshape(-1)[candidate], minlength=len(wanted))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    lists = [rows[name].filter(pa.array(candidate)).combine_chunks() for name in ("place", "owner", "owner_place")]
    candidates = [pa.LargeListArray.from_arrays(offsets, values) for values in lists]
    signals = corpus.scores.read_table(f"signals/{corpus.parts[part]}.parquet", columns=["row", "id", "lang"])
    keys = np.unique(wanted[:, 0])
    signals = signals.take(pa.array(np.searchsorted(signals["row"].to_numpy(), part_and_row(keys)[1])))
    yield _SEQUENCES.empty_table()
    for here, texts in _texts(corpus, part, signals):
        first, last = np.searchsorted(wanted[:, 0], (keys[here.start], keys[here.stop - 1] + 1))
        places = pa.array(np.searchsorted(keys[here], wanted[first:last, 0]))
        ids = signals["id"].slice(here.start, here.stop - here.start).take(places)
        columns = [wanted[first:last, 1].astype(np.int32), wanted[first:last, 0], ids, word_sequences(texts).take(places)]
        yield pa.table([*columns, *(one.slice(first, last - first) for one in candidates)], schema=_SEQUENCES)


def _match(rows: pa.Table, buckets: int, min_words: int) -> pa.Table:
    """Follow the candidates of some documents; each run goes to its owner and to its own document."""
    rows = rows.take(pc.sort_indices(rows, [("key", "ascending")])).combine_chunks()
    keys, ids = rows["key"].to_numpy(), rows["id"]
    places, owners, owner_places = (pc.list_flatten(rows[name]).to_numpy() for name in ("places", "owners", "owner_places"))
    documents = np.repeat(np.arange(len(keys)), pc.list_value_length(rows["places"]).to_numpy())
    candidates = Candidates(documents, places, np.searchsorted(keys, owners), owner_places)
    runs = match_runs(_plain(rows["words"].combine_chunks()), candidates, min_words)
    numbers = (keys[runs.documents], runs.starts, runs.lengths, keys[runs.owners], runs.owner_starts)
    columns = (*numbers, _ranks(ids)[runs.documents], ids.take(pa.array(runs.owners)).combine_chunks())
    sent = []
    for own, documents in ((False, numbers[3]), (True, numbers[0])):
        sent.append(pa.table([_bucket_of(documents, buckets), np.full(len(documents), own), *columns], schema=_SENT))
    return pa.concat_tables(sent)


def _ranks(ids: pa.ChunkedArray) -> np.ndarray:
    """uint64[n]: documents in the order of their ids."""
    return np.array([int(id[:16], 16) for id in ids.to_pylist()], np.uint64)


def _plain(lists: pa.Array) -> pa.LargeListArray:
    """The same lists with offsets from 0."""
    return pa.LargeListArray.from_arrays(pa.array(lists.offsets.to_numpy() - lists.offsets[0].as_py()), lists.flatten())


def _part_tangled(rows: pa.Table) -> pa.Table:
    """From the runs that some documents own, and those found in them, to the runs that may go as they are, and to the tangled
    ones with what deciding on them needs."""
    own = rows["own"].to_numpy()
    mine, owned = rows.filter(pa.array(own)), rows.filter(pa.array(~own))
    found = _runs(mine)
    twisted = tangled(_runs(owned), (found.documents, found.starts, found.starts + found.lengths))
    needed = np.isin(found.documents, owned["owner"].to_numpy()[twisted])
    plain = owned.filter(pa.array(~twisted))
    made = [(part_and_row(plain["key"].to_numpy())[0], plain)]
    for table in (owned.filter(pa.array(twisted)), mine.filter(pa.array(needed))):
        made.append((np.full(table.num_rows, _ONE_TASK), table))
    names = _RUNS.names[1:]
    return pa.concat_tables([pa.table([parts.astype(np.int32), *table.select(names).columns], schema=_RUNS) for parts, table in made])


def _runs(rows: pa.Table) -> Runs:
    return Runs(*(rows[name].to_numpy() for name in ("key", "start", "length", "owner", "owner_start")))


def _finish(rows: pa.Table, corpus: Corpus) -> Iterator[pa.Table]:
    """Write the spans of one part, or, in the one task, those that tangled runs leave in all parts."""
    part, runs = rows["part"][0].as_py(), _runs(rows)
    if part != _ONE_TASK:
        yield _write(_spans(runs, rows["owner_id"]), corpus, PLAIN, part)
        return
    which, runs = settle(runs, rows["rank"].to_numpy(), corpus.config.substrings.min_words)
    spans, parts = _spans(runs, rows["owner_id"].take(pa.array(which))), part_and_row(runs.documents)[0]
    for part in np.unique(parts):
        yield _write(spans.filter(pa.array(parts == part)), corpus, TANGLED, int(part))


def _spans(runs: Runs, owner_ids: pa.ChunkedArray) -> pa.Table:
    starts, ends = runs.starts.astype(np.int32), (runs.starts + runs.lengths).astype(np.int32)
    return pa.table([part_and_row(runs.documents)[1], starts, ends, owner_ids.combine_chunks()], schema=SPANS)


def _join(spans: pa.Table) -> pa.Table:
    """`SPANS` of one part, sorted, those that overlap or touch joined."""
    spans = spans.take(pc.sort_indices(spans, [("row", "ascending"), ("owner_id", "ascending")]))
    rows, starts, ends, numbers = merge(*(spans[name].to_numpy() for name in ("row", "start", "end")))
    owners = spans["owner_id"].take(pa.array(numbers)).combine_chunks()
    return pa.table([rows, starts.astype(np.int32), ends.astype(np.int32), owners], schema=SPANS)


def _write(spans: pa.Table, corpus: Corpus, folder: str, part: int) -> pa.Table:
    return pa.table({"rows": [corpus.out.write_table(f"{folder}/{corpus.parts[part]}.parquet", _join(spans))]})
