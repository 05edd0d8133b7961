from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from cluster.artifacts import Artifact, load_artifact
from cluster.errors import WorkError
from cluster.storage import Folder
from pipelines.corpus import is_held_out
from pipelines.dedup import exact, near
from pipelines.document import DOCUMENT, LEDGER
from pipelines.items import HEADER_WORDS
from tests.clean_corpus import document
from tests.corpus import prose
from tests.pipelines.extracted import CONFIG, Row, corpus_files, faulty_parts, run_stage, score_and_clean, write_extract

pytestmark = pytest.mark.usefixtures("ray_session")

DAMAGED: Row = {
    **dict.fromkeys(("id", "url", "excerpt"), ""),
    "stage": "extract",
    "reason": "empty",
    "source": "livre",
    "lang": "fr",
    "chars": 0,
    **dict.fromkeys(("value", "threshold", "survivor_id")),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    storage = Folder(str(tmp_path_factory.mktemp("clean")))
    write_extract(storage, faulty_parts(), ledger=[DAMAGED])
    return storage


@pytest.fixture(scope="module")
def cleaned(home: Folder, request: pytest.FixtureRequest) -> Artifact:
    """The undisturbed run."""
    request.getfixturevalue("ray_session")
    return score_and_clean(home, load_artifact(home, "extract", "test"))


def rows_of(folder: Folder, under: str) -> list[Row]:
    return [row for name in folder.names(".parquet", under=under) for row in folder.read_table(name).to_pylist()]


def test_every_step_removes_what_it_should_and_the_ledger_balances(cleaned):
    ledger, kept = rows_of(cleaned.folder, "ledger"), rows_of(cleaned.folder, "corpus")
    assert Counter((row["stage"], row["reason"]) for row in ledger) == {
        ("language", "wrong_language"): 4,
        ("quality", "too_many_hashes"): 1,
        ("quality", "too_few_words"): 1,
        ("url_dedup", "same_url"): 2,
        ("exact_dedup", "same_text"): 3,
        ("near_dedup", "near_duplicate"): 4,
        ("contamination", "contaminated"): 1,
    }
    documents = sum(len(rows) for rows in faulty_parts().values())
    assert cleaned.metrics["documents_in"] == documents == len(kept) + len(ledger)
    assert cleaned.metrics["train"] + cleaned.metrics["heldout"] == cleaned.metrics["kept"] == len(kept)
    assert len({row["id"] for row in kept}) == len(kept)
    assert sum(row["source"] == "modele" for row in kept) == 60, "a shared template makes buckets, not duplicates"


def ngrams(row: Row, size: int = 13) -> set[tuple[str, ...]]:
    words = re.findall(r"[^\W_]+", f"{row['text']}\n{row['translation'] or ''}".lower())
    return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)}


def test_training_text_repeats_no_held_out_document(cleaned):
    """Against a plain search: what went repeats the item that the ledger names, and nothing that stayed repeats any."""
    documents = {row["id"]: row for rows in faulty_parts().values() for row in rows}
    listed = rows_of(cleaned.folder, "corpus/heldout")
    heldout = {row["id"]: ngrams(row) for row in listed if row["lang"] != "code" or len(row["text"].split()) >= HEADER_WORDS}
    assert len(heldout) < len(listed)
    (gone,) = [row for row in rows_of(cleaned.folder, "ledger") if row["stage"] == "contamination"]

    def share(row: Row, item: set[tuple[str, ...]]) -> float:
        mine = ngrams(row)
        return len(mine & item) / min(len(mine), len(item)) if mine and item else 0.0

    assert gone["value"] == pytest.approx(share(documents[gone["id"]], heldout[gone["survivor_id"]]))
    assert gone["value"] >= gone["threshold"] == 0.7
    for row in rows_of(cleaned.folder, "corpus/train"):
        assert max(share(row, item) for item in heldout.values()) < 0.7
    assert cleaned.metrics["evaluation_items"]["items"] == len(heldout)


def test_the_funnel_follows_every_character(cleaned):
    totals = cleaned.folder.read_json("funnel.json")["totals"]
    kept = rows_of(cleaned.folder, "corpus")
    assert totals[0]["documents_in"] == cleaned.metrics["documents_in"] + 1
    assert next(total for total in totals if total["step"] == "extract")["reasons"] == {"empty": 1}
    for step, following in itertools.pairwise(totals):
        assert step["documents_in"] - step["documents_removed"] == following["documents_in"]
        assert step["chars_in"] - step["chars_removed"] == following["chars_in"]
    assert totals[-1]["documents_in"] - totals[-1]["documents_removed"] == len(kept)
    chars = sum(len(row["text"]) + len(row["translation"] or "") for row in kept)
    assert totals[-1]["chars_in"] - totals[-1]["chars_removed"] == chars


def test_survivors_of_each_dedup_step(cleaned):
    kept = {row["id"]: row for row in rows_of(cleaned.folder, "corpus")}
    for row in rows_of(cleaned.folder, "ledger"):
        assert row["excerpt"]
        if row["stage"] == "url_dedup":
            assert kept[row["survivor_id"]]["date"] == "2024-03-01"
        elif row["stage"] == "exact_dedup":
            assert row["source"] == "copies"
            assert row["survivor_id"] == row["id"]
            assert kept[row["id"]]["source"] == "livre"
        elif row["stage"] == "contamination":
            assert row["survivor_id"] in kept
        elif row["stage"] == "near_dedup":
            assert kept[row["survivor_id"]]["source"] == "copies"
            assert row["value"] >= row["threshold"] == 0.8
            assert len(kept[row["survivor_id"]]["text"]) > row["chars"]
        else:
            assert row["survivor_id"] is None


def test_held_out_pages_keep_their_languages_together_and_rows_their_order(cleaned):
    train, heldout = rows_of(cleaned.folder, "corpus/train"), rows_of(cleaned.folder, "corpus/heldout")
    assert len({row["page"] for row in heldout}) > 5
    assert {row["page"] for row in train}.isdisjoint(row["page"] for row in heldout)
    assert all(is_held_out(row["page"], CONFIG.heldout_share) for row in heldout)
    for name, rows in faulty_parts().items():
        table = cleaned.folder.read_table(f"corpus/train/{name}.parquet")
        assert table.schema == DOCUMENT
        places = {(row["id"], row["url"]): place for place, row in enumerate(rows)}
        found = [places[row["id"], row["url"]] for row in table.to_pylist()]
        assert found == sorted(found)


@pytest.mark.parametrize(("exact_limit", "near_limit"), [(0, 0), (500_000, 60)], ids=["all shuffled", "candidates in one task"])
def test_the_result_does_not_depend_on_shuffles(home, cleaned, monkeypatch, exact_limit, near_limit):
    monkeypatch.setattr(exact, "ROWS_IN_ONE_TASK", exact_limit)
    monkeypatch.setattr(exact, "ROWS_EACH", 20)
    monkeypatch.setattr(near, "ROWS_IN_ONE_TASK", near_limit)
    monkeypatch.setattr(near, "ROWS_EACH", 20)
    extract, survey, score = (load_artifact(home, stage, "test") for stage in ("extract", "survey", "score"))
    again = run_stage(home, "clean", CONFIG, f"limit-{near_limit}", extract=extract, survey=survey, score=score)
    assert corpus_files(again) == corpus_files(cleaned)


def test_the_result_does_not_depend_on_parts(cleaned, tmp_path):
    other = Folder(str(tmp_path / "other"))
    together = score_and_clean(other, write_extract(other, {"all": [row for rows in faulty_parts().values() for row in rows]}))
    assert {row["id"] for row in rows_of(together.folder, "corpus")} == {row["id"] for row in rows_of(cleaned.folder, "corpus")}


def test_kill_minus_nine_and_another_worker_count_change_nothing(home, cleaned):
    folder = home / "artifacts/clean/killed"
    command = [sys.executable, "-m", "tests.pipelines.extracted", home.path, "killed", "1"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 600
    while not folder.names(".json", under="receipts") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert folder.names(".json", under="receipts")
    assert not folder.exists("manifest.json")
    resumed = score_and_clean(home, load_artifact(home, "extract", "test"), key="killed")
    assert corpus_files(resumed) == corpus_files(cleaned)


def test_a_source_that_dedup_would_wipe_out_stops_the_run(storage):
    text = prose("fr", 1, count=60)
    rows = [document("livre", "fr", prose("fr", 100 + n)) for n in range(5)]
    rows += [document("modele", "fr", f"{text} Exemplaire numéro {n}.") for n in range(30)]
    with pytest.raises(WorkError, match=r"29 of 30 documents of source 'modele'.*clean\.max_source_loss = 0\.95"):
        score_and_clean(storage, write_extract(storage, {"only": rows}))
    assert not (storage / "artifacts/clean/test").exists("funnel.json")


def test_parts_without_survivors_or_documents(storage):
    short = [document("livre", "fr", f"Trop court, numéro {n}.") for n in range(4)]
    good = [document("livre", "fr", prose("fr", n)) for n in range(4)]
    artifact = score_and_clean(storage, write_extract(storage, {"a": short, "b": good, "c": []}))
    assert artifact.metrics["kept"] == 4
    assert artifact.folder.read_table("corpus/train/c.parquet").schema == DOCUMENT
    assert {row["reason"] for row in rows_of(artifact.folder, "ledger")} == {"too_few_words"}
    assert artifact.folder.read_table("ledger/a.parquet").schema == LEDGER


def test_nothing_survives_the_rules(storage):
    artifact = score_and_clean(storage, write_extract(storage, {"a": [document("livre", "fr", f"Court {n}.") for n in range(4)]}))
    assert artifact.metrics["kept"] == 0


def test_no_documents_at_all_is_said(storage):
    with pytest.raises(WorkError, match="no documents"):
        score_and_clean(storage, write_extract(storage, {"a": []}))
