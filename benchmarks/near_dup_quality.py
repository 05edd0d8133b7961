"""How good near-duplicate dedup is: what it removes against exact all-pairs Jaccard, and LilyPond's manuals.

A removal is right when some document that stays is truly at Jaccard 0.8 or more (word 5-grams). What should have gone
besides is found by visiting, best first, the documents that stayed although they have a true near-duplicate among
themselves. LilyPond's pages lie in its big pages almost whole but are a small part of them: their Jaccard index is
low by nature, and only containment shows the repetition.
"""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.corpus import BenchCorpus, read_languages, write_recipe
from benchmarks.exact_pairs import Pairs, at_least, similar_pairs
from benchmarks.harness import OURS, Contender, driver, row, run_child, say, write_results
from benchmarks.near_dup import NO_RULES, NO_SURVEY, ours
from benchmarks.peers import installed_peers, versions_of
from pipelines.dedup.clusters import keepers
from pipelines.kernels import shingle_sets

NAME = "near_dup_quality"
WORDS, LEAST_JACCARD, LOOSER_JACCARD, LEAST_CONTAINMENT = 5, 0.8, 0.7, 0.8


@dataclass(frozen=True)
class Judgement:
    """Of the documents removed, how many rightly; of those that stayed, how many should have gone."""

    removed: int
    rightly: int
    missed: int

    @property
    def precision(self) -> float:
        return self.rightly / self.removed if self.removed else 1.0

    @property
    def recall(self) -> float:
        wanted = self.rightly + self.missed
        return self.rightly / wanted if wanted else 1.0

    def counts(self) -> dict[str, int]:
        return {"removed": self.removed, "rightly": self.rightly, "missed": self.missed}


def judge(removed: np.ndarray, pairs: Pairs) -> Judgement:
    """`removed` bool[n] against all true pairs of n documents."""
    ones, others = removed[pairs.ones], removed[pairs.others]
    right = np.zeros(len(removed), bool)
    right[pairs.ones[ones & ~others]] = True
    right[pairs.others[others & ~ones]] = True
    stayed = ~ones & ~others
    kept, _ = keepers(np.arange(len(removed)), pairs.ones[stayed], pairs.others[stayed], pairs.jaccards[stayed])
    missed = int((kept != np.arange(len(removed))).sum())
    return Judgement(int(removed.sum()), int((removed & right).sum()), missed)


def run(corpus: BenchCorpus, _repeats: int) -> Path:
    """Judge ours and the peers once (nothing here is timed) and write the results file."""
    found, notes = installed_peers(("text-dedup", "datasketch"))
    paths = corpus.quality_documents()
    documents = read_languages(paths)
    ids = np.array(documents["id"].to_pylist())
    looser = similar_pairs(documents["text"].combine_chunks(), WORDS, LOOSER_JACCARD)
    pairs = at_least(looser, LEAST_JACCARD)
    say(f"  {len(pairs.ones):,} pairs at Jaccard {LEAST_JACCARD} or more among {len(ids):,} documents")
    shared = {"documents": len(ids), "true_pairs": len(pairs.ones), "documents_in_pairs": len(np.unique(np.concatenate(pairs[:2])))}
    with tempfile.TemporaryDirectory() as folder:
        inputs = {lang: [path] for lang, path in paths.items()}
        recipe = write_recipe(corpus.folder / "near-quality.yaml", "parquet", inputs, clean=NO_RULES, survey=NO_SURVEY)
        run_child(ours(OURS, recipe, folder))
        mine = np.isin(ids, _lines(f"{folder}/removed.txt"))
        rows = _pair_rows(f"{folder}/pairs.parquet", ids, pairs, shared)
        for name, peer in found.items():
            script = driver(f"near_{name.replace('-', '')}", peer.python)
            run_child(Contender(peer.title, (*script, f"{folder}/{name}.txt", *map(str, paths.values()))))
            theirs = np.isin(ids, _lines(f"{folder}/{name}.txt"))
            rows += _judged_rows(mine, peer.title, theirs, (pairs, looser), shared)
        rows += _lilypond_rows(corpus, folder)
    return write_results(corpus.results, NAME, rows, versions_of(found), notes)


def _lines(path: str) -> np.ndarray:
    return np.array(Path(path).read_text(encoding="utf-8").split())


def _judged_rows(
    mine: np.ndarray, title: str, theirs: np.ndarray, truths: tuple[Pairs, Pairs], shared: dict[str, int]
) -> list[dict[str, Any]]:
    """Both sides' removals (bool[n]) by the pairs at `LEAST_JACCARD`, and how many of them are right by the looser ones:
    unverified LSH of 14 bands of 8 turns at 0.72, not at 0.8."""
    sides = {"of_ours": mine, "of_peer": theirs}
    judged = {side: judge(removed, truths[0]) for side, removed in sides.items()}
    looser = {side: {f"rightly_at_{LOOSER_JACCARD}": judge(removed, truths[1]).rightly} for side, removed in sides.items()}
    counts = {**shared, **{side: {**judged[side].counts(), **looser[side]} for side in sides}}
    ours, peers = judged["of_ours"], judged["of_peer"]
    return [
        row(NAME, f"{measure} of removals at Jaccard {LEAST_JACCARD}", getattr(ours, measure), (title, getattr(peers, measure)), counts)
        for measure in ("precision", "recall")
    ]


def _pair_rows(path: str, ids: np.ndarray, pairs: Pairs, shared: dict[str, int]) -> list[dict[str, Any]]:
    """Our verified pairs against the true ones. In large buckets not every pair is compared, so recall of pairs is lower than
    recall of removals, which is what counts."""
    table = pq.read_table(path)
    numbers = {id: number for number, id in enumerate(ids)}
    mine = {
        tuple(sorted((numbers[one], numbers[other])))
        for one, other in zip(*(table[c].to_pylist() for c in ("head_id", "member_id")), strict=True)
    }
    true = set(zip(pairs.ones.tolist(), pairs.others.tolist(), strict=True))
    counts = {**shared, "pairs": len(mine), "true": len(mine & true)}
    return [
        row(NAME, "precision of verified pairs", len(mine & true) / max(1, len(mine)), None, counts),
        row(NAME, "recall of pairs", len(mine & true) / max(1, len(true)), None, counts),
    ]


LILYPOND_SETTINGS: dict[str, dict[str, Any]] = {
    "Jaccard 0.8": {},
    "containment 0.8": {"minhash": {"min_containment": LEAST_CONTAINMENT}},
    "substring dedup": {"substrings": {"enabled": True}},
}
"""What of our dedup is tried on pages that lie in big pages, as changes to a recipe's clean section."""


def _lilypond_rows(corpus: BenchCorpus, folder: str) -> list[dict[str, Any]]:
    """Which of LilyPond's pages that lie in a big page go, and how much text stays, by setting."""
    paths = corpus.lilypond()
    documents = read_languages(paths)
    if not documents.num_rows:
        return []
    texts, ids = documents["text"].combine_chunks(), np.array(documents["id"].to_pylist())
    big = np.array(["big-page" in url for url in documents["url"].to_pylist()])
    inside = ~big & (best_containment(texts, big) >= LEAST_CONTAINMENT)
    alike = np.zeros(len(big), bool)
    pairs = similar_pairs(texts, WORDS, LEAST_JACCARD)
    alike[np.concatenate([pairs.ones, pairs.others])] = True
    shared = {"pages": int((~big).sum()), "big_pages": int(big.sum()), "pages_inside_a_big_page": int(inside.sum())}
    shared |= {"of_them_with_a_near_duplicate": int((inside & alike).sum()), "chars": int(pc.sum(pc.utf8_length(texts)).as_py())}
    rows = []
    for number, (setting, changes) in enumerate(LILYPOND_SETTINGS.items()):
        recipe = corpus.folder / f"near-lilypond-{number}.yaml"
        write_recipe(recipe, "parquet", {lang: [path] for lang, path in paths.items()}, clean={**NO_RULES, **changes}, survey=NO_SURVEY)
        found = run_child(ours(OURS, recipe, folder))
        removed = np.isin(ids, _lines(f"{folder}/removed.txt"))
        counts = {**shared, "of_them_removed": int((inside & removed).sum()), "removed": int(removed.sum())}
        counts["kept_chars"] = found.more["kept_chars"]
        unit = f"share of LilyPond pages removed whose containment in a big page is {LEAST_CONTAINMENT} or more, {setting}"
        rows.append(row(NAME, unit, counts["of_them_removed"] / max(1, int(inside.sum())), None, counts))
    return rows


def best_containment(texts: pa.Array, big: np.ndarray) -> np.ndarray:
    """For n texts, the largest share of their shingles that one of the texts `big` (bool[n]) holds; 0 for those themselves."""
    sets = shingle_sets(texts, WORDS)
    ends, hashes = sets.offsets.to_numpy(), sets.values.to_numpy()
    best = np.zeros(len(texts))
    sizes = np.diff(ends)
    for number in np.flatnonzero(big):
        shared = np.concatenate([[0], np.cumsum(np.isin(hashes, hashes[ends[number] : ends[number + 1]]))])
        inside = (shared[ends[1:]] - shared[ends[:-1]]) / np.maximum(sizes, 1)
        best = np.maximum(best, np.where(big, 0.0, inside))
    return best
