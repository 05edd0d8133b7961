"""The evaluation items that training text must not repeat: held-out documents, and the suites that the recipe names.

Writes `contamination/heldout/<part>.parquet` (name, text), then the index of all items (`pipelines/decontaminate.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import RequestError
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder
from pipelines.config import DecontaminationConfig, SuiteConfig
from pipelines.corpus import held_out
from pipelines.decontaminate import INDEX, build_index, index_facts
from pipelines.dedup.keys import EXACT, NEAR, Corpus
from pipelines.parts import read_batches
from pipelines.score import whole_text
from pipelines.sources.files import UnitFile, input_files
from pipelines.sources.globs import LocalFile, list_files
from pipelines.sources.records import Damage
from pipelines.sources.streams import read_lines

FACTS = "contamination/facts.json"
ITEM = pa.schema([("name", pa.string()), ("text", pa.large_string())])
MB = 10**6
HEADER_WORDS = 64
"""Held-out code of fewer words is a licence header and a line or two: as an item it would condemn every file with that header."""
SURPLUS = 2
"""Held-out text is at most about this many times its share of all text: whole pages are held out."""


def write_index(corpus: Corpus, context: StageContext) -> dict[str, Any]:
    """Collect all items and write their index; returns `index_facts`. Nothing to look for leaves no index."""
    import ray

    settings = corpus.config.decontaminate
    if not settings.enabled:
        return {}
    if not corpus.out.exists(FACTS):
        share = _share(corpus, context)
        if share:
            map_parts(_parts(corpus, "items"), CollectHeldOut(corpus, share), context)
        context.progress.note("indexing evaluation items")
        facts = ray.get(ray.remote(_build).remote(corpus.out, settings, bool(share)))
        corpus.out.write_json(FACTS, facts | {"heldout_share_looked_for": share})
    return corpus.out.read_json(FACTS)


def _share(corpus: Corpus, context: StageContext) -> float:
    """The part of the held-out text to look for. It is counted only where it might be more than the recipe's limit."""
    config = corpus.config
    limit = config.decontaminate.heldout_mb * MB
    if not limit or not config.heldout_share:
        return 0.0
    if context.inputs["extract"].metrics["bytes"] * config.heldout_share * SURPLUS <= limit:
        return 1.0
    total = sum(receipt["chars"] for receipt in map_parts(_parts(corpus, "heldout"), CountHeldOut(corpus), context))
    return min(1.0, limit / total) if total else 0.0


def _parts(corpus: Corpus, prefix: str) -> list[dict[str, Any]]:
    return [{"name": f"{prefix}-{name}", "part": name, "number": number} for number, name in enumerate(corpus.parts)]


def _held_out_rows(corpus: Corpus, number: int) -> pa.Table:
    """Signals (row, id, lang, chars) of the documents of a part that stay and are held out."""
    signals = corpus.signals(number, ["id", "page", "chars", "translation_chars"])
    stays = corpus.verdicts(number, signals, (EXACT, NEAR)).kept & held_out(signals["page"], corpus.config.heldout_share)
    return signals.filter(pa.array(stays))


@dataclass(frozen=True)
class CountHeldOut:
    """How much held-out text a part has; reads signals alone."""

    corpus: Corpus

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        rows = _held_out_rows(self.corpus, part["number"])
        return {"chars": int(np.sum(rows["chars"].to_numpy()) + np.sum(np.maximum(rows["translation_chars"].to_numpy(), 0)))}


@dataclass(frozen=True)
class CollectHeldOut:
    """Writes the held-out documents of a part whose ids are in the first `share` of all ids: those that evaluation,
    which draws in the order of ids, takes first. A text shorter than an n-gram, and code shorter than `HEADER_WORDS`, is left
    to exact and near-duplicate dedup."""

    corpus: Corpus
    share: float

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        rows = _held_out_rows(self.corpus, part["number"])
        limit = int(self.share * 2**64)
        wanted = np.array([int(id[:16], 16) <= limit for id in rows["id"].to_pylist()], bool)
        rows = rows.filter(pa.array(wanted))
        table = pa.concat_tables([ITEM.empty_table(), *self._texts(part["part"], rows)])
        self.corpus.out.write_table(f"contamination/heldout/{part['part']}.parquet", table)
        return {"items": table.num_rows}

    def _texts(self, part: str, rows: pa.Table) -> Iterator[pa.Table]:
        numbers, first = rows["row"].to_numpy(), 0
        editor = self.corpus.editor
        for batch in read_batches(self.corpus.documents, f"documents/{part}.parquet", ["id", "text", "translation", "source"]):
            here = slice(*np.searchsorted(numbers, (first, first + batch.num_rows)))
            if here.stop > here.start:
                documents = batch.take(pa.array(numbers[here] - first)).combine_chunks()
                langs = rows["lang"].slice(here.start, here.stop - here.start).to_pylist()
                documents, _ = editor.edit(documents, langs)
                texts = whole_text(documents)
                table = pa.table({"name": documents["id"], "text": texts}, schema=ITEM)
                yield table.filter(long_enough(texts, langs, self.corpus.config.decontaminate.ngram_words))
            first += batch.num_rows


def long_enough(texts: pa.Array, langs: list[str], words: int) -> pa.Array:
    """More than `words` words, in code `HEADER_WORDS` at least."""
    least = [max(words + 1, HEADER_WORDS) if lang == "code" else words + 1 for lang in langs]
    return pa.array([len(text.split(None, count - 1)) >= count for text, count in zip(texts.to_pylist(), least, strict=True)], pa.bool_())


def _build(out: Folder, settings: DecontaminationConfig, with_heldout: bool) -> dict[str, Any]:
    tables = [ITEM.empty_table()]
    if with_heldout:
        tables += [out.read_table(name) for name in out.names(".parquet", "contamination/heldout")]
    tables += [suite_items(suite) for suite in settings.suites]
    for suite, texts in sorted(settings.items.items()):
        names = [f"{suite}#{number}" for number in range(1, len(texts) + 1)]
        tables.append(pa.table({"name": names, "text": list(texts)}, schema=ITEM))
    index = build_index(tables, settings.ngram_words)
    if len(index.grams):
        index.write(out)
    elif out.exists(INDEX):
        out.delete(INDEX)
    return index_facts(index)


def suite_files(suite: SuiteConfig) -> list[LocalFile]:
    """The files of a suite; a `RequestError` for a path that matches nothing."""
    found = [file for path in suite.paths for file in list_files(path)]
    if not found:
        raise RequestError(f"suite {suite.name!r}: no file matches {', '.join(suite.paths)}; correct clean.decontaminate.suites")
    return found


def suite_items(suite: SuiteConfig) -> pa.Table:
    """All items of a suite as `name` (`suite/file#row`) and `text`. A row without the columns is a `RequestError`: an item
    that is not looked for would be found only by its scores."""
    names, texts = [], []
    for file in suite_files(suite):
        for number, row in enumerate(_rows(file, suite), 1):
            names.append(f"{suite.name}/{file.relative}#{number}")
            texts.append(row)
    return pa.table({"name": names, "text": texts}, schema=ITEM)


def _rows(file: LocalFile, suite: SuiteConfig) -> Iterator[str]:
    where = f"suite {suite.name!r}: {file.path}"
    if file.path.endswith(".parquet"):
        folder, _, name = file.path.rpartition("/")
        with Folder(folder).filesystem.open_input_file(Folder(folder).at(name)) as source:
            for batch in pq.ParquetFile(source).iter_batches(columns=list(suite.columns)):
                for row in batch.to_pylist():
                    yield _joined(row, suite, where)
        return
    for member in input_files([UnitFile(file.path, file.relative, False)], ("**",)):
        if isinstance(member, Damage):
            raise RequestError(f"{where} cannot be read ({member.reason})")
        for line in read_lines(member.open()):
            if isinstance(line, Damage):
                raise RequestError(f"{where} cannot be read ({line.reason})")
            text = line.decode("utf-8", "replace").strip()
            if text:
                yield _joined(_parsed(text, where), suite, where) if ".json" in file.path else text


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise RequestError(f"{where} has a line that is not JSON") from None
    if not isinstance(row, dict):
        raise RequestError(f"{where} has a line that is not a JSON object")
    return row


def _joined(row: dict[str, Any], suite: SuiteConfig, where: str) -> str:
    missing = [column for column in suite.columns if column not in row]
    if missing:
        raise RequestError(f"{where} has no column {missing[0]!r}; correct `columns` of the suite (it has {', '.join(map(str, row))})")
    return "\n".join(str(row[column]) for column in suite.columns if row[column] is not None)
