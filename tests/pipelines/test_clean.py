from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from cluster.errors import WorkError
from cluster.storage import Folder
from pipelines.clean import is_held_out
from pipelines.config import CleanConfig
from pipelines.dedup import exact, near
from pipelines.document import DOCUMENT, LEDGER
from tests.clean_corpus import document
from tests.corpus import prose
from tests.pipelines.extracted import CONFIG, corpus_files, faulty_parts, run_stage, score_and_clean, write_extract

pytestmark = pytest.mark.usefixtures("ray_session")


def ledger_of(folder: Folder) -> list[dict]:
    return [row for name in folder.names(".parquet", under="ledger") for row in folder.read_table(name).to_pylist()]


def kept_of(folder: Folder, split: str = "") -> list[dict]:
    under = f"corpus/{split}".rstrip("/")
    return [row for name in folder.names(".parquet", under=under) for row in folder.read_table(name).to_pylist()]


def test_every_step_removes_what_it_should_and_the_ledger_balances(storage):
    damaged = dict.fromkeys(LEDGER.names, "") | {"stage": "extract", "reason": "empty", "source": "livre", "lang": "fr", "chars": 0}
    damaged |= {"value": None, "threshold": None, "survivor_id": None}
    parts = faulty_parts()
    extract = write_extract(storage, parts, ledger=[damaged])
    artifact = score_and_clean(storage, extract)
    ledger, kept = ledger_of(artifact.folder), kept_of(artifact.folder)
    reasons = Counter((row["stage"], row["reason"]) for row in ledger)
    assert reasons == {
        ("language", "wrong_language"): 4,
        ("quality", "too_many_hashes"): 1,
        ("quality", "too_few_words"): 1,
        ("url_dedup", "same_url"): 2,
        ("exact_dedup", "same_text"): 3,
        ("near_dedup", "near_duplicate"): 4,
    }
    documents = sum(len(rows) for rows in parts.values())
    assert artifact.metrics["documents_in"] == documents == len(kept) + len(ledger)
    assert artifact.metrics["train"] + artifact.metrics["heldout"] == artifact.metrics["kept"] == len(kept)
    assert len({row["id"] for row in kept}) == len(kept)
    funnel = artifact.folder.read_json("funnel.json")
    totals = {total["step"]: total for total in funnel["totals"]}
    assert totals["extract"]["documents_in"] == documents + 1
    assert totals["extract"]["reasons"] == {"empty": 1}
    assert totals["near_dedup"]["documents_in"] - totals["near_dedup"]["documents_removed"] == len(kept)
    chars = sum(len(row["text"]) + len(row["translation"] or "") for row in kept)
    assert totals["near_dedup"]["chars_in"] - totals["near_dedup"]["chars_removed"] == chars
    for step, following in zip(funnel["totals"], funnel["totals"][1:], strict=False):
        assert step["documents_in"] - step["documents_removed"] == following["documents_in"]
        assert step["chars_in"] - step["chars_removed"] == following["chars_in"]


def test_survivors_of_each_dedup_step(storage):
    artifact = score_and_clean(storage, write_extract(storage, faulty_parts()))
    kept = {row["id"]: row for row in kept_of(artifact.folder)}
    for row in ledger_of(artifact.folder):
        if row["stage"] == "url_dedup":
            assert kept[row["survivor_id"]]["date"] == "2024-03-01"
        elif row["stage"] == "exact_dedup":
            assert row["source"] == "copies"
            assert row["survivor_id"] == row["id"]
            assert kept[row["id"]]["source"] == "livre"
        elif row["stage"] == "near_dedup":
            assert kept[row["survivor_id"]]["source"] == "copies"
            assert row["value"] >= row["threshold"] == 0.8
            assert len(kept[row["survivor_id"]]["text"]) > row["chars"]
        else:
            assert row["survivor_id"] is None
        assert row["excerpt"]


def test_held_out_pages_keep_all_their_languages_together_and_rows_their_order(storage):
    rows = []
    for number in range(30):
        pages = {"page": f"page-{number}"}
        rows += [document("livre", "fr", prose("fr", number)) | pages, document("book", "en", prose("en", 900 + number)) | pages]
    artifact = score_and_clean(storage, write_extract(storage, {"only": rows}), CleanConfig(heldout_share=0.3))
    train, heldout = kept_of(artifact.folder, "train"), kept_of(artifact.folder, "heldout")
    assert train and heldout
    assert len(train) + len(heldout) == 60
    assert {row["page"] for row in train}.isdisjoint(row["page"] for row in heldout)
    assert all(is_held_out(row["page"], 0.3) for row in heldout)
    order = [row["id"] for row in rows]
    assert [row["id"] for row in train] == [id for id in order if id in {row["id"] for row in train}]
    assert artifact.folder.read_table("corpus/train/only.parquet").schema == DOCUMENT


def test_the_result_depends_on_neither_parts_nor_shuffle_partitions(storage, tmp_path, monkeypatch):
    parts = faulty_parts()
    first = score_and_clean(storage, write_extract(storage, parts))
    monkeypatch.setattr(exact, "ROWS_EACH", 20)
    monkeypatch.setattr(near, "ROWS_EACH", 20)
    again = run_stage(storage, "clean", CONFIG, "again", extract=_artifact(storage, "extract"), score=_artifact(storage, "score"))
    assert corpus_files(again) == corpus_files(first)
    monkeypatch.undo()
    other = Folder(str(tmp_path / "other"))
    together = score_and_clean(other, write_extract(other, {"all": [row for rows in parts.values() for row in rows]}))
    assert {row["id"] for row in kept_of(together.folder)} == {row["id"] for row in kept_of(first.folder)}


def _artifact(storage: Folder, stage: str):
    from cluster.artifacts import load_artifact

    return load_artifact(storage, stage, "test")


def test_kill_minus_nine_and_another_worker_count_change_nothing(storage):
    extract = write_extract(storage, faulty_parts())
    undisturbed = score_and_clean(storage, extract)
    folder = storage / "artifacts/clean/killed"
    command = [sys.executable, "-m", "tests.pipelines.extracted", storage.path, "killed", "1"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 300
    while not folder.names(".json", under="receipts") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert folder.names(".json", under="receipts")
    assert not folder.exists("manifest.json")
    resumed = score_and_clean(storage, extract, key="killed")
    assert corpus_files(resumed) == corpus_files(undisturbed)


def test_a_source_that_dedup_would_wipe_out_stops_the_run(storage):
    text = prose("fr", 1, count=60)
    rows = [document("livre", "fr", prose("fr", 100 + n)) for n in range(5)]
    rows += [document("modele", "fr", f"{text} Exemplaire numéro {n}.") for n in range(30)]
    extract = write_extract(storage, {"only": rows})
    with pytest.raises(WorkError, match=r"29 of 30 documents of source 'modele'.*clean\.max_source_loss = 0\.95"):
        score_and_clean(storage, extract)
    relaxed = score_and_clean(storage, extract, CONFIG.model_copy(update={"max_source_loss": 1.0}), key="relaxed")
    assert relaxed.metrics["kept"] == 6


def test_a_template_with_different_content_is_not_wiped_out(storage):
    """Marin's lesson: one template, many documents. Shared boilerplate makes buckets, not duplicates."""
    boilerplate = prose("fr", 7, count=12)
    rows = [document("modele", "fr", f"{boilerplate}\n\n{prose('fr', 1_000 + n, count=12)}") for n in range(200)]
    artifact = score_and_clean(storage, write_extract(storage, {"only": rows}))
    assert artifact.metrics["kept"] == 200


def test_a_part_without_survivors_and_a_run_without_duplicates(storage):
    short = [document("livre", "fr", f"Trop court, numéro {n}.") for n in range(4)]
    good = [document("livre", "fr", prose("fr", n)) for n in range(4)]
    artifact = score_and_clean(storage, write_extract(storage, {"a": short, "b": good, "c": []}))
    assert artifact.metrics["kept"] == 4
    assert artifact.folder.read_table("corpus/train/c.parquet").num_rows == 0
    removed = pa.concat_tables([artifact.folder.read_table(name) for name in artifact.folder.names(".parquet", under="ledger")])
    assert set(removed["reason"].to_pylist()) == {"too_few_words"}


def test_nothing_survives_the_rules(storage):
    artifact = score_and_clean(storage, write_extract(storage, {"a": [document("livre", "fr", f"Court {n}.") for n in range(4)]}))
    assert artifact.metrics["kept"] == 0
