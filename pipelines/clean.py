"""The clean stage: decides from signals which documents stay, and writes the corpus, the ledger and the funnel.

Steps, in funnel order: URL dedup, the rules (queries over signals, `rules/decide.py`, with the percentile cuts of
`cuts.py`), exact dedup (`dedup/exact.py`), near-duplicate dedup (`dedup/near.py`), substring dedup where the recipe asks for it
(`dedup/substring.py`), decontamination (`items.py`) and masks,
both while the corpus is written (`corpus.py`). Text is read for documents in candidate pairs, for held-out documents, and once for
all when the corpus is written. Each step and each written part is a commit that a rerun finds.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from cluster.artifacts import Artifact
from cluster.stage import StageContext, map_parts
from pipelines.config import CleanConfig
from pipelines.corpus import WritePart
from pipelines.cuts import resolve_cuts
from pipelines.dedup.copies import count_copies
from pipelines.dedup.exact import remove_exact
from pipelines.dedup.keys import COPIES, EXACT, NEAR, Corpus
from pipelines.dedup.near import remove_near
from pipelines.dedup.substring import SPANS_FOLDER, remove_substrings
from pipelines.edits import Taken
from pipelines.funnel import Kept, Tally, build_funnel, check_balance, check_losses
from pipelines.items import write_index
from pipelines.ledger import count_ledger
from pipelines.parts import part_names
from pipelines.rates import RATES, add_up

VERSION = "3"

DONE = "done.json"


def run(context: StageContext) -> dict[str, Any]:
    """Clean all scored documents; returns documents_in, kept, train, heldout, ledger_rows and removals by step."""
    import ray

    config = context.config
    assert isinstance(config, CleanConfig)
    extract, score = context.inputs["extract"], context.inputs["score"]
    corpus = _corpus(context, config)
    scored = sum(score.folder.table_rows(f"signals/{part}.parquet") for part in corpus.parts)
    steps = [(EXACT, remove_exact, "same URLs and same texts"), (NEAR, remove_near, "near-duplicates")]
    if config.substrings.enabled:
        steps.append((SPANS_FOLDER, remove_substrings, "repeated runs of words"))
    for folder, remove, note in steps:
        if not context.out.exists(f"{folder}/{DONE}"):
            context.progress.start(None, "")
            context.progress.note(f"looking for {note} among {scored:,} documents")
            remove(corpus, scored)
            context.out.write_json(f"{folder}/{DONE}", {"documents": scored})
    if not context.out.exists(f"{COPIES}/{DONE}"):
        ray.get(ray.remote(count_copies).remote(corpus))
        context.out.write_json(f"{COPIES}/{DONE}", {})
    items = write_index(corpus, context)
    parts = [{"name": name, "number": number} for number, name in enumerate(corpus.parts)]
    receipts = map_parts(parts, WritePart(corpus), context, cpus=context.resources.cpus_per_worker)
    return _finish(context, extract, scored, receipts) | {"evaluation_items": items}


def _corpus(context: StageContext, config: CleanConfig) -> Corpus:
    """The documents of this run; sources rank in the order of the recipe, which extract's manifest holds."""
    extract, survey, score = (context.inputs[stage] for stage in ("extract", "survey", "score"))
    parts = part_names(score.folder, "signals")
    cuts = resolve_cuts(score.folder, parts, config, context)
    caps = extract.folder.read_json("caps.json")
    listed = [source["name"] for source in extract.manifest["config"].get("sources", [])]
    ranked = [*listed, *sorted(set(caps) - set(listed))]
    parallel = any(source.get("translation_lang") for source in extract.manifest["config"].get("sources", []))
    ranks = tuple((name, rank) for rank, name in enumerate(ranked))
    return Corpus(
        extract.folder, survey.folder, score.folder, context.out, tuple(parts), ranks, config, cuts, parallel, extract.metrics["bytes"]
    )


def _finish(context: StageContext, extract: Artifact, scored: int, receipts: list[dict[str, Any]]) -> dict[str, Any]:
    """Funnel, balance check and wipe-out guard, from the receipts and the three ledgers."""
    import ray

    config = context.config
    assert isinstance(config, CleanConfig)
    context.progress.note("counting the ledger")
    kept: Kept = Counter()
    taken: Taken = Counter()
    for receipt in receipts:
        kept.update({(source, lang, measure): amount for source, lang, measure, amount in receipt["kept"]})
        taken.update({tuple(key): amount for *key, amount in receipt["taken"]})
    folders = [extract.folder, context.inputs["score"].folder, context.out]
    removed: Tally = sum(ray.get([ray.remote(count_ledger).remote(folder) for folder in folders]), Counter())
    removed.update({((step, reason, source, lang), measure): amount for (step, reason, source, lang, measure), amount in taken.items()})
    totals = {key: sum(receipt[key] for receipt in receipts) for key in ("train", "heldout", "ledger_rows")}
    funnel = build_funnel(removed, kept)
    survivors = totals["train"] + totals["heldout"]
    check_balance(extract.metrics["records_in"], extract.metrics["documents"], scored, funnel, survivors)
    check_losses(funnel, config.max_source_loss)
    context.out.write_json("funnel.json", funnel)
    context.out.write_json(RATES, add_up([receipt["rates"] for receipt in receipts]))
    by_step = {total["step"]: total["documents_removed"] for total in funnel["totals"]}
    headline = f"{survivors:,} of {scored:,} documents kept, {totals['heldout']:,} of them held out"
    return {"headline": headline, "documents_in": scored, "kept": survivors, **totals, "removed": by_step}
