"""The clean stage: decides from signals which documents stay, and writes the corpus, the ledger and the funnel.

Steps, in funnel order: language, quality (both queries over signals, `rules/decide.py`), URL and exact dedup
(`dedup/exact.py`), near-duplicate dedup (`dedup/near.py`). Text is read twice: for documents in candidate pairs, and
once for all when the corpus is written. Each dedup step and each written part is a commit that a rerun finds.
"""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from cluster.artifacts import Artifact
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder
from pipelines.config import CleanConfig
from pipelines.dedup.exact import remove_exact
from pipelines.dedup.keys import EXACT, NEAR, Corpus
from pipelines.dedup.near import remove_near
from pipelines.document import DOCUMENT, LEDGER
from pipelines.funnel import Kept, Tally, build_funnel, check_balance, check_losses
from pipelines.ledger import count_ledger, ledger_rows
from pipelines.parts import PartWriter, part_names, read_batches

VERSION = "1"

DONE = "done.json"


def run(context: StageContext) -> dict[str, Any]:
    """Clean all scored documents; returns documents_in, kept, train, heldout, ledger_rows and removals by step."""
    config = context.config
    assert isinstance(config, CleanConfig)
    extract, score = context.inputs["extract"], context.inputs["score"]
    corpus = _corpus(extract, score, context.out, config)
    scored = sum(score.folder.table_rows(f"signals/{part}.parquet") for part in corpus.parts)
    for folder, remove, note in ((EXACT, remove_exact, "same URLs and same texts"), (NEAR, remove_near, "near-duplicates")):
        if not context.out.exists(f"{folder}/{DONE}"):
            context.progress.start(None, "")
            context.progress.note(f"looking for {note} among {scored:,} documents")
            remove(corpus, scored)
            context.out.write_json(f"{folder}/{DONE}", {"documents": scored})
    parts = [{"name": name, "number": number} for number, name in enumerate(corpus.parts)]
    receipts = map_parts(parts, WritePart(corpus), context, cpus=context.resources.cpus_per_worker)
    return _finish(context, extract, scored, receipts)


def _corpus(extract: Artifact, score: Artifact, out: Folder, config: CleanConfig) -> Corpus:
    """The documents of this run; sources rank in the order of the recipe, which extract's manifest holds."""
    parts = part_names(score.folder, "signals")
    caps = extract.folder.read_json("caps.json")
    listed = [source["name"] for source in extract.manifest["config"].get("sources", [])]
    ranked = [*listed, *sorted(set(caps) - set(listed))]
    return Corpus(extract.folder, score.folder, out, tuple(parts), tuple((name, rank) for rank, name in enumerate(ranked)), config)


def is_held_out(page: str, share: float) -> bool:
    """Whether a page is never trained on: by its hash, so that all language versions fall on one side."""
    return xxhash.xxh3_64_intdigest(page.encode()) < share * 2**64


@dataclass(frozen=True)
class WritePart:
    """Writes one part of the corpus and its ledger, a row group at a time, in document order."""

    corpus: Corpus

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        name, out = part["name"], self.corpus.out
        signals = self.corpus.signals(part["number"], ["page"])
        verdicts = self.corpus.verdicts(part["number"], signals, (EXACT, NEAR))
        rows = signals["row"].to_numpy()
        share = self.corpus.config.heldout_share
        heldout = np.array([is_held_out(page, share) for page in signals["page"].to_pylist()], bool)
        first, kept = 0, Counter()
        with (
            PartWriter(out, f"corpus/train/{name}.parquet", DOCUMENT) as train,
            PartWriter(out, f"corpus/heldout/{name}.parquet", DOCUMENT) as held,
            PartWriter(out, f"ledger/{name}.parquet", LEDGER) as ledger,
        ):
            for batch in read_batches(self.corpus.documents, f"documents/{name}.parquet"):
                here = slice(*np.searchsorted(rows, (first, first + batch.num_rows)))
                documents = batch.take(pa.array(rows[here] - first))
                documents = documents.set_column(
                    documents.column_names.index("lang"), "lang", signals["lang"].slice(here.start, here.stop - here.start)
                )
                first += batch.num_rows
                stays, held_out = verdicts.kept[here], heldout[here]
                train.write(documents.filter(pa.array(stays & ~held_out)))
                held.write(documents.filter(pa.array(stays & held_out)))
                gone = np.flatnonzero(~stays) + here.start
                ledger.write(
                    ledger_rows(
                        documents.filter(pa.array(~stays)),
                        verdicts.steps[gone],
                        verdicts.reasons[gone],
                        values=verdicts.values[gone],
                        thresholds=verdicts.thresholds[gone],
                        survivors=verdicts.survivors[gone],
                    )
                )
                kept.update(_count(documents.filter(pa.array(stays))))
        counts = [[source, lang, measure, amount] for (source, lang, measure), amount in sorted(kept.items())]
        return {"train": train.rows, "heldout": held.rows, "ledger_rows": ledger.rows, "kept": counts}


def _count(documents: pa.Table) -> Kept:
    """Documents and characters by source and language."""
    chars = pc.add(pc.utf8_length(documents["text"]), pc.fill_null(pc.utf8_length(documents["translation"]), 0))
    groups = documents.select(["source", "lang"]).append_column("chars", chars).group_by(["source", "lang"])
    kept: Kept = Counter()
    for row in groups.aggregate([("chars", "sum"), ("chars", "count")]).to_pylist():
        kept[row["source"], row["lang"], "documents"] = row["chars_count"]
        kept[row["source"], row["lang"], "chars"] = row["chars_sum"]
    return kept


def _finish(context: StageContext, extract: Artifact, scored: int, receipts: list[dict[str, Any]]) -> dict[str, Any]:
    """Funnel, balance check and wipe-out guard, from the receipts and the three ledgers."""
    import ray

    config = context.config
    assert isinstance(config, CleanConfig)
    context.progress.note("counting the ledger")
    kept: Kept = Counter()
    for receipt in receipts:
        kept.update({(source, lang, measure): amount for source, lang, measure, amount in receipt["kept"]})
    folders = [extract.folder, context.inputs["score"].folder, context.out]
    removed: Tally = sum(ray.get([ray.remote(count_ledger).remote(folder) for folder in folders]), Counter())
    funnel = build_funnel(removed, kept)
    totals = {key: sum(receipt[key] for receipt in receipts) for key in ("train", "heldout", "ledger_rows")}
    survivors = totals["train"] + totals["heldout"]
    check_balance(extract.metrics["records_in"], extract.metrics["documents"], scored, funnel, survivors)
    check_losses(funnel, config.max_source_loss)
    context.out.write_json("funnel.json", funnel)
    by_step = {total["step"]: total["documents_removed"] for total in funnel["totals"]}
    headline = f"{survivors:,} of {scored:,} documents kept, {totals['heldout']:,} of them held out"
    return {"headline": headline, "documents_in": scored, "kept": survivors, **totals, "removed": by_step}
