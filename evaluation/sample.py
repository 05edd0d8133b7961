"""Picking documents of one stream from a clean corpus: a random sample that is the same on every run and machine.

Ids are hashes of content, so the documents with the smallest ids are a random sample, and the smaller sample is a
prefix of the larger. Files are read a batch at a time; never more than about twice the wanted bytes is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow.dataset as pads
import xxhash

from cluster.storage import Folder

COLUMNS = ["id", "source", "page", "lang", "text", "translation"]
BATCH_ROWS = 1_024
SCAN_FACTOR = 64


@dataclass(frozen=True)
class Sampled:
    """One document; `size` is the UTF-8 bytes of its text (of both sides for parallel data)."""

    id: str
    source: str
    page: str
    lang: str
    text: str
    translation: str | None
    size: int


def hash_hex(text: str) -> str:
    """xxh3-64 in hex: the order in which sentences and segments are drawn, and their ids."""
    return xxhash.xxh3_64_hexdigest(text.encode())


def sample_documents(corpus: Folder, stream: str, max_bytes: int) -> list[Sampled]:
    """The documents of `stream` below `corpus` (Parquet files) in id order, until `max_bytes` are reached.

    Files are read in hash order of their names, and no more once `SCAN_FACTOR * max_bytes` of the stream were seen:
    a small corpus is read whole, of a huge one a bounded part.
    """
    return smallest_ids(_scan(corpus, stream, SCAN_FACTOR * max_bytes), max_bytes)


def smallest_ids(documents: Iterable[Sampled], max_bytes: int) -> list[Sampled]:
    """The documents with the smallest ids, in order, up to and with the one that reaches `max_bytes`."""
    kept: list[Sampled] = []
    size, limit = 0, ""
    for document in documents:
        if limit and document.id > limit:
            continue
        kept.append(document)
        size += document.size
        if size > 2 * max_bytes:
            kept = _prefix(kept, max_bytes)
            size, limit = sum(item.size for item in kept), kept[-1].id
    return _prefix(kept, max_bytes)


def _prefix(documents: list[Sampled], max_bytes: int) -> list[Sampled]:
    ordered = sorted(documents, key=lambda document: document.id)
    size = 0
    for position, document in enumerate(ordered):
        size += document.size
        if size >= max_bytes:
            return ordered[: position + 1]
    return ordered


def _scan(corpus: Folder, stream: str, scan_bytes: int) -> Iterator[Sampled]:
    seen = 0
    for name in sorted(corpus.names(".parquet"), key=lambda name: (hash_hex(name), name)):
        for document in _documents(corpus, name, stream):
            seen += document.size
            yield document
        if seen >= scan_bytes:
            return


def _documents(corpus: Folder, name: str, stream: str) -> Iterator[Sampled]:
    table = pads.dataset(corpus.at(name), filesystem=corpus.filesystem, format="parquet")
    parallel = pads.field("translation").is_valid()
    wanted = parallel if stream == "parallel" else ~parallel & (pads.field("lang") == stream)
    for batch in table.to_batches(columns=COLUMNS, filter=wanted, batch_size=BATCH_ROWS, batch_readahead=1, fragment_readahead=1):
        for row in batch.to_pylist():
            size = len(row["text"].encode()) + len((row["translation"] or "").encode())
            yield Sampled(row["id"], row["source"], row["page"], row["lang"], row["text"], row["translation"], size)
