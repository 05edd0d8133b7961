"""Stage `extract`: every unit's files to documents, and to ledger rows for what is blocked or cannot be read.

In order: the URL block list, extraction, Unicode repair, typography of parallel data, normalisation.
Writes `documents/<unit>-<n>.parquet` (DOCUMENT rows in reading order, about PART_BYTES of text each),
`ledger/<unit>-<n>.parquet` (LEDGER rows, stages `url_block` and `extract`), `histograms/<unit>.npy` (bytes by the first 16
bits of the id), `blocklist/hashes.npy` where there are lists, and `caps.json`. Nothing in the input stops it: records
found = documents + ledger rows, which is checked.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.errors import WorkError
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder
from pipelines import blocklist
from pipelines.document import DOCUMENT, LEDGER, document_id, normalise
from pipelines.ledger import URL_BLOCK
from pipelines.parts import PartWriter
from pipelines.repair import repair
from pipelines.sources import read_records
from pipelines.sources.config import ExtractConfig, ExtractOptions, Source
from pipelines.sources.files import UnitFile
from pipelines.sources.records import Damage, Found, Record
from pipelines.sources.typography import fix_typography

VERSION = "2"
BATCH_ROWS, BATCH_BYTES = 1024, 2**20
PART_BYTES = 32 * 2**20
BINS = 1 << 16
MB = 10**6
COUNTS = ("records_in", "documents", "ledger_rows", "url_blocked", "repaired", "typography", "bytes")
"""Of a unit, a source and the stage: records found = documents + ledger rows (of which `url_blocked`); documents whose text
`repaired` and `typography` changed; bytes of text."""


def run(context: StageContext) -> dict[str, Any]:
    """Extract all units. Metrics: `COUNTS`, and the same by source with reasons."""
    config = context.config
    assert isinstance(config, ExtractConfig)
    fetched = context.inputs["fetch"].folder
    units = sorted(fetched.read_json("units.json"), key=lambda unit: (-unit["bytes"], unit["name"]))
    sources = {source.name: source for source in config.sources}
    listed = blocklist.prepare(config.extract, context.out) if config.extract.blocklists else 0
    words = blocklist.read_words(config.extract)
    receipts = map_parts(units, ExtractUnit(sources, fetched, context.out, config.extract, words), context, unit="units")
    _drop_leftovers(context.out, receipts)
    _check_balance(receipts)
    context.out.write_json("caps.json", {name: cap(context.out, source, units) for name, source in sources.items()})
    by_source: dict[str, Any] = {name: dict.fromkeys(COUNTS, 0) | {"reasons": {}} for name in sources}
    for unit, receipt in zip(units, receipts, strict=True):
        totals = by_source[unit["source"]]
        for field in COUNTS:
            totals[field] += receipt[field]
        totals["reasons"] = dict(sorted((Counter(totals["reasons"]) + Counter(receipt["reasons"])).items()))
    totals = {field: sum(entry[field] for entry in by_source.values()) for field in COUNTS}
    headline = f"{totals['documents']:,} documents from {totals['records_in']:,} records, {totals['bytes'] / MB:.0f} MB of text"
    return {"headline": headline, **totals, "blocklist_entries": listed, "by_source": by_source}


@dataclass(frozen=True)
class ExtractUnit:
    """Extracts one unit; a part of `map_parts`. The receipt has `COUNTS` and reasons."""

    sources: Mapping[str, Source]
    fetched: Folder
    out: Folder
    options: ExtractOptions
    words: blocklist.Words

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        source = self.sources[part["source"]]
        files = [self._file(file) for file in part["files"]]
        with UnitWriter(self.out, part["name"], source, self.options) as writer:
            for record in read_records(source, files, self._blocked()):
                writer.add(record)
            return writer.close()

    def _blocked(self) -> blocklist.UrlBlock | None:
        if self.options.blocklists:
            return blocklist.load(self.out, self.words)
        return blocklist.UrlBlock(np.empty(0, np.uint64), self.words) if any(self.words.lists()) else None

    def _file(self, file: dict[str, Any]) -> UnitFile:
        return UnitFile(self._place(file["path"]), file["name"], file["translation"], file.get("start", 0), file.get("end"))

    def _place(self, path: str) -> str:
        return f"{self.fetched.url.rstrip('/')}/{path}" if path.startswith("files/") else path


class UnitWriter:
    """Mends one unit's documents and writes them and its ledger rows in parts of bounded size."""

    def __init__(self, out: Folder, unit: str, source: Source, options: ExtractOptions) -> None:
        self._out, self._unit, self._source, self._options = out, unit, source, options
        self._documents = _Parts(out, f"documents/{unit}", DOCUMENT)
        self._ledger = _Parts(out, f"ledger/{unit}", LEDGER)
        self._histogram = np.zeros(BINS, dtype=np.int64)
        self._reasons: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._bytes = 0

    def __enter__(self) -> UnitWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for parts in (self._documents, self._ledger):
            parts.end(kind, error, trace)

    def add(self, record: Record) -> None:
        self._counts["records_in"] += 1
        damage = self._document(record) if isinstance(record, Found) else record
        if damage is not None:
            self._reasons[damage.reason] += 1
            self._counts["url_blocked"] += damage.stage == URL_BLOCK
            self._ledger.add(ledger_row(damage, self._source), 4 * len(damage.excerpt))

    def _document(self, found: Found) -> Damage | None:
        """Keep a document; give back why it cannot be kept."""
        steps = mend(found, self._source, self._options)
        row = document_row(found, self._source)
        if isinstance(row, Damage):
            return row
        self._counts.update(steps)
        size = len(row["text"].encode()) + len((row["translation"] or "").encode())
        self._histogram[int(row["id"][:4], 16)] += size
        self._bytes += size
        self._documents.add(row, size)
        return None

    def close(self) -> dict[str, Any]:
        documents, ledger = self._documents.close(), self._ledger.close()
        if self._source.cap_mb is not None:
            buffer = io.BytesIO()
            np.save(buffer, self._histogram)
            self._out.write_bytes(f"histograms/{self._unit}.npy", buffer.getvalue())
        written = {"documents": self._documents.rows, "ledger_rows": self._ledger.rows, "bytes": self._bytes}
        return {
            **{name: self._counts[name] for name in COUNTS},
            **written,
            "reasons": dict(sorted(self._reasons.items())),
            "files": documents + ledger,
        }


class _Parts:
    """Rows on their way to `<name>-<n>.parquet`: a part ends with the row that gives it PART_BYTES of text."""

    def __init__(self, out: Folder, name: str, schema: pa.Schema) -> None:
        self._out, self._name, self._schema = out, name, schema
        self._rows: list[dict[str, Any]] = []
        self._bytes = self._waiting_bytes = 0
        self._writer: PartWriter | None = None
        self._written: list[str] = []
        self.rows = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        self._rows.append(row)
        self._bytes += size
        self._waiting_bytes += size
        if len(self._rows) >= BATCH_ROWS or self._waiting_bytes >= BATCH_BYTES:
            self._pack()
        if self._bytes >= PART_BYTES:
            self.end()

    def close(self) -> list[str]:
        """Write the rest; the names of all files written."""
        self.end()
        return self._written

    def _pack(self) -> None:
        if self._writer is None:
            self._writer = PartWriter(self._out, f"{self._name}-{len(self._written):04d}.parquet", self._schema).__enter__()
        self._writer.write(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._waiting_bytes = [], 0

    def end(self, kind: type[BaseException] | None = None, error: BaseException | None = None, trace: TracebackType | None = None) -> None:
        """End the part that is being written, after an error without it."""
        if self._rows and kind is None:
            self._pack()
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)
            self._written.append(self._writer.name)
            self.rows += self._writer.rows
        self._writer, self._bytes = None, 0


def mend(found: Found, source: Source, options: ExtractOptions) -> list[str]:
    """Repair a document's Unicode and, of parallel data, its typography, in place; the names of the steps that changed it."""
    steps = []
    if options.repair and source.lang != "code":
        before = found.text, found.translation
        found.text, found.translation = repair(found.text), None if found.translation is None else repair(found.translation)
        steps += ["repaired"] if (found.text, found.translation) != before else []
    if options.typography and found.translation is not None:
        before = found.text, found.translation
        found.text = fix_typography(found.text, source.lang)
        found.translation = fix_typography(found.translation, getattr(source, "translation_lang", None) or "")
        steps += ["typography"] if (found.text, found.translation) != before else []
    return steps


def document_row(found: Found, source: Source) -> dict[str, Any] | Damage:
    """A DOCUMENT row with normalised text, or why there is none (empty, nul_bytes, invalid_utf8)."""
    text = normalise(found.text)
    translation = None if found.translation is None else normalise(found.translation)
    if not text.strip() or (translation is not None and not translation.strip()):
        return Damage("empty", found.url, excerpt=found.text)
    whole = text if translation is None else f"{text}\n{translation}"
    if "\0" in whole:
        return Damage("nul_bytes", found.url, excerpt=whole, chars=len(whole))
    try:
        whole.encode("utf-8")
    except UnicodeEncodeError as error:
        return Damage("invalid_utf8", found.url, excerpt=whole, chars=len(whole), value=error.start)
    if translation is not None and text.count("\n") != translation.count("\n"):
        return Damage("unaligned", found.url, excerpt=text, chars=len(whole), value=text.count("\n"), threshold=translation.count("\n"))
    id = document_id(text, translation)
    return {
        "id": id,
        "text": text,
        "lang": source.lang,
        "translation": translation,
        "translation_lang": None if translation is None else getattr(source, "translation_lang", None),
        "source": source.name,
        "family": source.family,
        "license": found.license or source.license,
        "url": _encodable(found.url),
        "date": found.date,
        "page": _encodable(found.page) or id,
        "copies": 1,
        "meta": _encodable(json.dumps(found.meta, ensure_ascii=False, default=str)),
    }


def ledger_row(damage: Damage, source: Source) -> dict[str, Any]:
    """A LEDGER row; its id is that of the record's URL, for there is no text to take one from."""
    url = _encodable(damage.url)
    return {
        "id": document_id(url),
        "url": url,
        "source": source.name,
        "lang": source.lang,
        "stage": damage.stage,
        "reason": damage.reason,
        "value": damage.value,
        "threshold": damage.threshold,
        "survivor_id": None,
        "chars": damage.chars or len(damage.excerpt),
        "excerpt": damage.excerpt,
    }


def cap(out: Folder, source: Source, units: list[dict[str, Any]]) -> dict[str, Any]:
    """{"threshold", "cap_mb", "bytes"}: documents with `id <= threshold` fit the cap. Ids are hashes, so they are a random sample.

    At least one bin of ids is kept, so that a cap below the size of a single document leaves the source that document.
    """
    if source.cap_mb is None:
        return {"threshold": None, "cap_mb": None}
    names = [unit["name"] for unit in units if unit["source"] == source.name]
    total = sum((_histogram(out, name) for name in names), np.zeros(BINS, dtype=np.int64))
    return {"threshold": cap_threshold(total, int(source.cap_mb * MB)), "cap_mb": source.cap_mb}


def cap_threshold(histogram: np.ndarray, limit: int) -> str | None:
    """The highest id (32 hex digits) such that all ids up to it come to at most `limit` bytes; None when all fit."""
    cumulated = np.cumsum(histogram)
    if cumulated[-1] <= limit:
        return None
    fitting = int(np.searchsorted(cumulated, limit, side="right"))
    first = int(np.flatnonzero(histogram)[0])
    return f"{max(fitting - 1, first):04x}{'f' * 28}"


def _histogram(out: Folder, unit: str) -> np.ndarray:
    return np.load(io.BytesIO(out.read_bytes(f"histograms/{unit}.npy")))


def _drop_leftovers(out: Folder, receipts: list[dict[str, Any]]) -> None:
    """Delete part files of an attempt that was killed and whose input has changed since."""
    wanted = {name for receipt in receipts for name in receipt["files"]}
    for name in [*out.names(".parquet", "documents"), *out.names(".parquet", "ledger")]:
        if name not in wanted:
            out.delete(name)


def _check_balance(receipts: list[dict[str, Any]]) -> None:
    records, documents, rows = (sum(receipt[field] for receipt in receipts) for field in ("records_in", "documents", "ledger_rows"))
    if records != documents + rows:
        raise WorkError(f"extract found {records} records but wrote {documents} documents and {rows} ledger rows; please report this")


def _encodable(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates (which JSON may spell) and NUL become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
