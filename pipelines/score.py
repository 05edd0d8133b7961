"""The score stage: one pass over the text that writes every signal a later decision may want, and decides nothing.

In: `documents/<unit>.parquet` and `caps.json` of extract. Out: `signals/<unit>.parquet` (schema `signals_schema`), one
row for each document inside its source's cap, in document order, and `ledger/<unit>.parquet` for those beyond it.
"""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from cluster.errors import WorkError
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder
from pipelines.config import ScoreConfig, SignatureConfig
from pipelines.document import LEDGER
from pipelines.kernels import minhash
from pipelines.langid import identify, model_path
from pipelines.ledger import CAP, ledger_rows
from pipelines.parts import PartWriter, part_names, read_batches
from pipelines.rules import bitext, gopher

VERSION = "1"

CAP_REASON = "source_cap"
COLUMNS = ["id", "text", "lang", "translation", "translation_lang", "source", "family", "url", "date", "page"]


def signals_schema(permutations: int) -> pa.Schema:
    """One row a document. part, row: where it lies in extract's documents · lang: as declared, else as identified ·
    chars, translation_chars: characters of each side (-1 without translation) · langid: best label, its score, and the
    declared language's score, for each side (null for code) · url_key: xxh3-64 of stream and URL, 0 without URL ·
    minhash: null when the text is shorter than a shingle; of both sides together for parallel documents."""
    strings = ["id", "url", "date", "source", "family", "lang", "translation_lang", "stream", "page", "part"]
    fields = [pa.field(name, pa.string()) for name in strings]
    fields += [pa.field(name, pa.int64()) for name in ("row", "chars", "translation_chars")]
    for side in ("", "translation_"):
        fields += [pa.field(f"{side}langid", pa.string())]
        fields += [pa.field(f"{side}langid_score", pa.float32()), pa.field(f"{side}declared_score", pa.float32())]
    fields += [pa.field(name, pa.float64()) for name in (*gopher.COLUMNS, "identical_sides", "length_ratio")]
    fields += [pa.field("url_key", pa.uint64()), pa.field("minhash", pa.list_(pa.uint32(), permutations))]
    return pa.schema(fields)


def run(context: StageContext) -> dict[str, Any]:
    """Score every part of extract's documents; returns how many were scored and how many lie beyond their cap."""
    config = context.config
    assert isinstance(config, ScoreConfig)
    model_path()
    documents = context.inputs["extract"].folder
    caps = {source: cap for source, cap in documents.read_json("caps.json").items() if cap.get("threshold") is not None}
    parts = [{"name": name} for name in part_names(documents, "documents")]
    if not sum(documents.table_rows(f"documents/{part['name']}.parquet") for part in parts):
        raise WorkError("extract found no documents; look at its ledger, then at the paths of the recipe's sources")
    receipts = map_parts(parts, ScorePart(documents, context.out, caps, config), context, cpus=context.resources.cpus_per_worker)
    totals = {key: sum(receipt[key] for receipt in receipts) for key in ("documents", "scored", "ledger_rows")}
    if totals["documents"] != totals["scored"] + totals["ledger_rows"]:
        raise WorkError(f"score lost documents: {totals}; delete {context.out} and bake again")
    return totals


@dataclass(frozen=True)
class ScorePart:
    """Scores one part, a row group at a time; only signals are held."""

    documents: Folder
    out: Folder
    caps: dict[str, dict[str, Any]]
    config: ScoreConfig

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        name, first = part["name"], 0
        permutations = self.config.minhash.bands * self.config.minhash.rows
        with (
            PartWriter(self.out, f"signals/{name}.parquet", signals_schema(permutations)) as signals,
            PartWriter(self.out, f"ledger/{name}.parquet", LEDGER) as ledger,
        ):
            for batch in read_batches(self.documents, f"documents/{name}.parquet", COLUMNS):
                rows = np.arange(first, first + batch.num_rows)
                first += batch.num_rows
                inside = self._inside_cap(batch)
                beyond, kept = batch.filter(pc.invert(inside)), batch.filter(inside)
                ledger.write(ledger_rows(beyond, CAP, CAP_REASON, values=_chars(beyond)))
                if kept.num_rows:
                    signals.write(score_batch(kept, name, rows[inside.to_numpy(zero_copy_only=False)], self.config))
        return {"documents": first, "scored": signals.rows, "ledger_rows": ledger.rows}

    def _inside_cap(self, batch: pa.Table) -> pa.Array:
        """bool[n]: ids in hash order up to the source's threshold are a random sample of it."""
        thresholds = [self.caps.get(source, {}).get("threshold") for source in batch["source"].to_pylist()]
        inside = pc.less_equal(batch["id"], pa.chunked_array([pa.array(thresholds, pa.string())]))
        return pc.fill_null(inside, True).combine_chunks()


def score_batch(batch: pa.Table, part: str, rows: np.ndarray, config: ScoreConfig) -> pa.Table:
    """The signals of some documents (a table of `COLUMNS`) that lie at `rows` of `part`; a pure function."""
    texts, translations = (batch[name].combine_chunks() for name in ("text", "translation"))
    parallel = pc.is_valid(translations)
    langs = batch["lang"].to_pylist()
    code = np.array([lang == "code" for lang in langs])
    columns: dict[str, Any] = _language_columns("", texts, langs, ~code)
    other_langs = [lang or "" for lang in batch["translation_lang"].to_pylist()]
    columns |= _language_columns("translation_", translations, other_langs, parallel.to_numpy(zero_copy_only=False))
    langs = [lang or found or "" for lang, found in zip(langs, columns["langid"].to_pylist(), strict=True)]
    columns |= _quality_columns(texts, langs, config)
    chars = pc.utf8_length(texts).to_numpy()
    translation_chars = pc.fill_null(pc.utf8_length(translations), -1).to_numpy(zero_copy_only=False)
    columns |= {
        "lang": pa.array(langs),
        "stream": pc.if_else(parallel, "parallel", pa.array(langs)),
        "part": pa.array([part] * len(langs)),
        "row": pa.array(rows),
        "chars": pa.array(chars),
        "translation_chars": pa.array(translation_chars.astype(np.int64)),
        "identical_sides": pa.array(bitext.identical_sides(texts, translations)),
        "length_ratio": pa.array(bitext.length_ratio(chars, translation_chars)),
        "minhash": _signatures(whole_text(batch), config.minhash),
    }
    columns["url_key"] = _url_keys(columns["stream"].to_pylist(), batch["url"].to_pylist())
    schema = signals_schema(config.minhash.bands * config.minhash.rows)
    return pa.table({name: columns[name] if name in columns else batch[name] for name in schema.names}).cast(schema)


def whole_text(batch: pa.Table) -> pa.Array:
    """What near-duplicate search reads: the text, followed by the translation where there is one."""
    texts, translations = (batch[name].combine_chunks() for name in ("text", "translation"))
    return pc.binary_join_element_wise(texts, translations, pa.scalar("\n", pa.large_string()), null_handling="skip")


def _language_columns(side: str, texts: pa.Array, declared: list[str], wanted: np.ndarray) -> dict[str, pa.Array]:
    """langid, langid_score and declared_score of one side, null where not `wanted`."""
    found = identify(texts.filter(pa.array(wanted)), [lang for lang, want in zip(declared, wanted, strict=True) if want])
    places = pa.array(np.where(wanted, np.cumsum(wanted) - 1, 0), mask=~wanted)
    return {
        f"{side}langid": pa.array(found.labels, pa.string()).take(places),
        f"{side}langid_score": pa.array(found.scores).take(places),
        f"{side}declared_score": pa.array(found.declared_scores).take(places),
    }


def _quality_columns(texts: pa.Array, langs: list[str], config: ScoreConfig) -> dict[str, np.ndarray]:
    """All Gopher scores, each document with its language's stop words."""
    columns = {name: np.zeros(len(langs)) for name in gopher.COLUMNS}
    all_langs = np.array(langs)
    for lang in sorted(set(langs)):
        mask = all_langs == lang
        for name, values in gopher.scores(texts.filter(pa.array(mask)), lang, config.stop_words.get(lang, ())).items():
            columns[name][mask] = values
    return columns


def _signatures(texts: pa.Array, config: SignatureConfig) -> pa.Array:
    values, signed = minhash(texts, config.shingle_words, config.bands * config.rows, config.seed)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1], mask=pa.array(~signed))


def _url_keys(streams: list[str], urls: list[str]) -> pa.Array:
    """A page and its parallel form may share a URL, so the stream is part of the key."""
    keys = [xxhash.xxh3_64_intdigest(f"{stream} {url}".encode()) or 1 if url else 0 for stream, url in zip(streams, urls, strict=True)]
    return pa.array(keys, pa.uint64())


def _chars(batch: pa.Table) -> np.ndarray:
    return pc.add(pc.utf8_length(batch["text"]), pc.fill_null(pc.utf8_length(batch["translation"]), 0)).to_numpy().astype(np.float64)
