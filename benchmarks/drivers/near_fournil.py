"""Fournil's near-duplicate dedup end to end: texts in Parquet to the corpus without near-duplicates.

Timed are a pass that signs every text, and the clean stage of a recipe without rules: URL and exact dedup, candidates,
their verification on the texts, survivors, the written corpus and its ledger. Extraction and scoring come before the
clock; the score stage would sign the texts too, but among many other things. Ray and its workers are up before the clock
starts.
"""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from driver import report, write_ids
from memory import WorkerMemory
from rich.console import Console

from cluster.artifacts import Artifact
from cluster.progress import Reporter
from cluster.session import connect, disconnect
from cluster.storage import Folder
from fournil.bake import bake
from fournil.recipe import load_recipe
from fournil.runs import Run
from pipelines.config import MinHashConfig
from pipelines.kernels import minhash
from pipelines.ledger import NEAR_DEDUP, SUBSTRING_DEDUP, scan
from pipelines.parts import part_names, read_batches
from pipelines.score import whole_text


def main(recipe: str, storage: str, output: str = "") -> None:
    connect("local", cpus=1)
    Folder(storage).delete("artifacts/score")  # so that every repeat begins with workers that have just scored
    _bake(recipe, storage, "score")
    extract = Run(Path(recipe).stem, Folder(storage)).artifact("extract").folder
    settings = load_recipe(recipe).clean.minhash
    sign(extract, settings, first_only=True)
    Folder(storage).delete("artifacts/clean")
    memory = WorkerMemory()
    begun = time.perf_counter()
    with memory.watching():
        sign(extract, settings)
        signed = time.perf_counter()
        clean = _bake(recipe, storage, "clean").artifact("clean")
    seconds = time.perf_counter() - begun
    disconnect()
    counts = clean.metrics
    found = {"documents": counts["documents_in"], "kept": counts["kept"], "removed": counts["removed"].get(NEAR_DEDUP, 0)}
    if output:
        write_findings(clean, Path(output))
    timing: dict[str, float] = {"seconds": seconds, "cpu_seconds": seconds, "passes": 1}
    more = {"kept_chars": kept_chars(clean.folder), "stages": {"clean": clean.manifest["seconds"]}}
    report(timing, found, **more, sign_seconds=signed - begun, worker_own_mb=memory.own_mb, worker_resident_mb=memory.resident_mb)


def _bake(recipe: str, storage: str, until: str) -> Run:
    return bake(load_recipe(recipe), Folder(storage), until=until, reporter=Reporter(Console(file=io.StringIO())))


def sign(extract: Folder, settings: MinHashConfig, first_only: bool = False) -> None:
    """Read all texts of the extract artifact and make their signatures."""
    for part in part_names(extract, "documents"):
        for batch in read_batches(extract, f"documents/{part}.parquet", ["text", "translation"]):
            minhash(whole_text(batch), settings.shingle_words, settings.bands * settings.rows, settings.seed)
            if first_only:
                return


def kept_chars(clean: Folder) -> int:
    """Characters of the corpus."""
    return sum(pc.sum(pc.utf8_length(batch["text"])).as_py() or 0 for batch in scan(clean, "corpus", ["text"]))


def write_findings(clean: Artifact, output: Path) -> None:
    """The ids that near-duplicate or substring dedup removed, one a line, and the verified pairs."""
    removed: list[str] = []
    for batch in scan(clean.folder, "ledger", ["id", "stage"], pc.field("stage").isin([NEAR_DEDUP, SUBSTRING_DEDUP])):
        removed += batch["id"].to_pylist()
    write_ids(str(output / "removed.txt"), removed)
    pq.write_table(clean.folder.read_table("dedup/pairs.parquet"), output / "pairs.parquet")


if __name__ == "__main__":
    main(*sys.argv[1:])
