"""Boilerplate lines of a source: found by counting in how many documents a line occurs, dropped from their texts.

After Llama 3 (arXiv 2407.21783, section 3.1.1: lines in more than 6 documents of a bucket of 30 M go), with these choices:

- Lines are compared by their words alone (`words.py`): case, punctuation and spaces do not count, nor do the values of
  numbers. CCNet (Wenzek et al. 2020) also strips accents, which tell French words apart, so here they count.
- A line counts once a document, and documents with the same id (exact copies) count once.
- A source of k buckets of documents has the limit `max_repeats` * k, which is the bucket's limit on average.
- Lines with few letters always stay: headings, table rows and braces repeat without being boilerplate.
- A text that would lose more than `MAX_SHARE` of its characters keeps them all. It is one of many copies of a document, and
  deduplication must judge it, which leaves one; dropping lines would leave none.

Blank lines that a dropped line leaves doubled go with it.
"""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage import Folder
from pipelines.kernels.text import HASH_PRIME, HASH_START, TABLE_SIZE, buffers, count_characters
from pipelines.models.words import DIGIT, finish, fold_table, point_at
from pipelines.shuffle import shuffle, spread

MAX_SHARE = 0.8
FOLDER = "lines"
OCCURRENCES = pa.schema([("source", pa.string()), ("line", pa.uint64()), ("document", pa.uint64())])
"""One row for each different line of a document: hashes of the line and of the document's id."""

ROWS_EACH = 20_000_000
"""Occurrences in a shuffle partition: about 500 MB."""

_NEWLINE, _SPACE = np.uint8(10), np.uint64(0x20)


@numba.njit(cache=True)
def _hash_lines(offsets, data, table, hashes, letters, ends):
    count = 0
    for n in range(len(offsets) - 1):
        i, end = offsets[n], offsets[n + 1]
        value, known, gap, number = HASH_START, 0, False, False
        while i <= end:
            if i == end or data[i] == _NEWLINE:
                hashes[count], letters[count] = finish(value), known
                count += 1
                i += 1
                value, known, gap, number = HASH_START, 0, False, False
                continue
            point, size = point_at(data, i)
            i += size
            folded = table[point] if point < TABLE_SIZE else np.uint32(0)
            if folded == 0:
                gap, number = True, False
                continue
            if number and folded == DIGIT:
                continue
            if gap:
                value = (value ^ _SPACE) * HASH_PRIME
            value = (value ^ np.uint64(folded)) * HASH_PRIME
            gap, number = False, folded == DIGIT
            known += not number
        ends[n + 1] = count


def hash_lines(texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All lines of n texts: `ends` int64[n + 1], `hashes` uint64[lines] of their words, and `letters` int64[lines]."""
    offsets, data = buffers(texts)
    size = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == _NEWLINE)) + len(offsets)
    ends, hashes, letters = np.zeros(len(offsets), np.int64), np.zeros(size, np.uint64), np.zeros(size, np.int64)
    _hash_lines(offsets, data, fold_table(), hashes, letters, ends)
    return ends, hashes[: ends[-1]], letters[: ends[-1]]


@numba.njit(cache=True)
def _spared(offsets, data, ends, dropped, max_share):
    """Clear `dropped` for the lines of texts that would lose too much."""
    for n in range(len(offsets) - 1):
        total = count_characters(data, offsets[n], offsets[n + 1])
        lost, start = 0, offsets[n]
        for line in range(ends[n], ends[n + 1]):
            end = start
            while end < offsets[n + 1] and data[end] != _NEWLINE:
                end += 1
            lost += count_characters(data, start, end) if dropped[line] else 0
            start = end + 1
        if lost > max_share * total:
            dropped[ends[n] : ends[n + 1]] = False


@numba.njit(cache=True)
def _rewrite(offsets, data, ends, dropped, out, out_offsets, removed):
    place = 0
    for n in range(len(offsets) - 1):
        begin, start = place, offsets[n]
        changed = dropped[ends[n] : ends[n + 1]].any()
        blank = False
        for line in range(ends[n], ends[n + 1]):
            end = start
            while end < offsets[n + 1] and data[end] != _NEWLINE:
                end += 1
            if changed and end == start:
                blank = place > begin
            elif not dropped[line]:
                newlines = 1 if place > begin or (line > ends[n] and not changed) else 0
                for _ in range(newlines + (1 if blank else 0)):
                    out[place] = _NEWLINE
                    place += 1
                out[place : place + end - start] = data[start:end]
                place += end - start
                blank = False
            start = end + 1
        out_offsets[n + 1] = place
        if changed:
            removed[n] = count_characters(data, offsets[n], offsets[n + 1]) - count_characters(out, begin, place)


def drop_lines(texts: pa.Array, boilerplate: np.ndarray, max_share: float = MAX_SHARE) -> tuple[pa.Array, np.ndarray]:
    """n texts without the lines whose hashes are in `boilerplate` (sorted uint64), and the characters that went, int64[n].

    Texts that lose nothing come back byte for byte; so do those that would lose more than `max_share` of themselves.
    """
    ends, hashes, _ = hash_lines(texts)
    dropped = _contains(boilerplate, hashes)
    removed = np.zeros(len(texts), np.int64)
    if not dropped.any():
        return texts.cast(pa.large_string()), removed
    offsets, data = buffers(texts)
    _spared(offsets, data, ends, dropped, max_share)
    out, out_offsets = np.empty(max(1, int(offsets[-1] - offsets[0])), np.uint8), np.zeros(len(offsets), np.int64)
    _rewrite(offsets, data, ends, dropped, out, out_offsets, removed)
    made = [None, pa.py_buffer(out_offsets), pa.py_buffer(out[: out_offsets[-1]].copy())]
    return pa.Array.from_buffers(pa.large_string(), len(texts), made), removed


def _contains(ordered: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """bool[n]: which of `wanted` are in the sorted array."""
    if not len(ordered):
        return np.zeros(len(wanted), bool)
    places = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return ordered[places] == wanted


def occurrences(texts: pa.Array, ids: Sequence[str], sources: Sequence[str], limits: Mapping[str, int], min_letters: int) -> pa.Table:
    """`OCCURRENCES` of n documents, at most one more for each line than its source's limit: more change nothing."""
    ends, hashes, letters = hash_lines(texts)
    owners = np.repeat(np.arange(len(ids)), np.diff(ends))[letters >= min_letters]
    names, numbers = np.unique(np.array(sources, dtype=object).astype(str), return_inverse=True)
    documents = np.array([int(id[:16], 16) for id in ids], np.uint64)
    rows = (numbers[owners], hashes[letters >= min_letters], documents[owners])
    rows, ranks = _distinct(*rows)
    most = np.array([limits[name] for name in names], np.int64)
    few = ranks <= most[rows[0]]
    return pa.table([pa.array(names[rows[0][few]], pa.string()), rows[1][few], rows[2][few]], schema=OCCURRENCES)


def _distinct(sources: np.ndarray, lines: np.ndarray, documents: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """The different (source, line, document) rows, sorted, and the rank of each among those of its source and line."""
    order = np.lexsort((documents, lines, sources))
    columns = sources[order], lines[order], documents[order]
    same_line = (columns[0][1:] == columns[0][:-1]) & (columns[1][1:] == columns[1][:-1])
    keep = np.concatenate([[True], ~(same_line & (columns[2][1:] == columns[2][:-1]))]) if len(order) else np.zeros(0, bool)
    columns = tuple(column[keep] for column in columns)
    first = np.ones(len(columns[0]), bool)
    first[1:] = (columns[0][1:] != columns[0][:-1]) | (columns[1][1:] != columns[1][:-1])
    begins = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0)) if len(first) else np.zeros(0, np.int64)
    return columns, np.arange(len(first)) - begins


def repeated(rows: pa.Table, limits: Mapping[str, int]) -> pa.Table:
    """`source` and `line` of the lines in more documents than their source's limit, from all their occurrences."""
    names, numbers = np.unique(rows["source"].to_numpy().astype(str), return_inverse=True)
    (sources, lines, _), ranks = _distinct(numbers, rows["line"].to_numpy(), rows["document"].to_numpy())
    most = np.array([limits[name] for name in names], np.int64)
    past = ranks == most[sources]
    return pa.table({"source": pa.array(names[sources[past]], pa.string()), "line": lines[past]})


def write_boilerplate(folder: Folder, under: str, parts: Sequence[str], limits: Mapping[str, int], rows: int) -> dict[str, int]:
    """Find the boilerplate lines among the `rows` occurrences in `<under>/<part>.parquet` and write `lines/<source>.npy`.

    Returns how many lines by source. One Ray task, or two hash shuffles on Ray Data, by line and by source, where that
    would be too much for one. The result does not depend on parts or workers.
    """
    import ray
    import ray.data

    if rows <= ROWS_EACH:
        return ray.get(ray.remote(_write_all).remote(folder, under, parts, limits))
    count = min(4096, -(-rows // ROWS_EACH))
    named = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    read = partial(_read_occurrences, folder=folder, under=under, buckets=count)
    numbers = {source: number for number, source in enumerate(limits)}
    occurring = spread(named, read, "bucket")
    lines = shuffle(occurring, partial(_repeated, limits=limits, numbers=numbers), count, "number")
    written = shuffle(lines, partial(_write_lines, folder=folder), min(count, len(limits)), None)
    return {row["source"]: row["lines"] for row in written.iter_rows()}


def _write_all(folder: Folder, under: str, parts: Sequence[str], limits: Mapping[str, int]) -> dict[str, int]:
    found = repeated(pa.concat_tables(folder.read_table(f"{under}/{part}.parquet") for part in parts), limits)
    sources = sorted(set(found["source"].to_pylist()))
    return {source: _write_lines(found.filter(pc.equal(found["source"], source)), folder)["lines"][0].as_py() for source in sources}


def _read_occurrences(batch: pa.Table, folder: Folder, under: str, buckets: int) -> pa.Table:
    rows = folder.read_table(f"{under}/{batch['part'][0].as_py()}.parquet")
    bucket = (rows["line"].to_numpy() >> np.uint64(32)) % np.uint64(buckets)
    return rows.append_column("bucket", pa.array(bucket.astype(np.int32)))


def _repeated(rows: pa.Table, limits: Mapping[str, int], numbers: Mapping[str, int]) -> pa.Table:
    """`repeated` with the number of each source."""
    found = repeated(rows, limits)
    return found.append_column("number", pa.array([numbers[source] for source in found["source"].to_pylist()], pa.int32()))


def _write_lines(rows: pa.Table, folder: Folder) -> pa.Table:
    source = rows["source"][0].as_py()
    buffer = io.BytesIO()
    np.save(buffer, np.sort(rows["line"].to_numpy()))
    folder.write_bytes(f"{FOLDER}/{source}.npy", buffer.getvalue())
    return pa.table({"source": [source], "lines": [rows.num_rows]})


def load_lines(survey: Folder, source: str) -> np.ndarray:
    """The boilerplate lines of a source, sorted uint64 hashes; none where the survey found or looked for none."""
    return _load_lines(survey.url, source)


@lru_cache(maxsize=32)
def _load_lines(url: str, source: str) -> np.ndarray:
    folder, name = Folder(url), f"{FOLDER}/{source}.npy"
    if not folder.exists(name):
        return np.zeros(0, np.uint64)
    return np.load(io.BytesIO(folder.read_bytes(name)), allow_pickle=False)
