from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.config import CleanConfig, ScoreConfig
from pipelines.document import DOCUMENT
from pipelines.score import COLUMNS, score_batch, signals_schema, whole_text
from tests.clean_corpus import document
from tests.corpus import code, prose
from tests.pipelines.extracted import run_stage, write_extract

CONFIG = ScoreConfig()


def scored(*rows: dict) -> list[dict]:
    batch = pa.Table.from_pylist(list(rows), schema=DOCUMENT).select(COLUMNS)
    table = score_batch(batch, "part-0", np.arange(len(rows)) * 10, CONFIG)
    assert table.schema == signals_schema(112)
    return table.to_pylist()


def test_signals_of_each_stream():
    text, other = prose("fr", 1), prose("en", 1)
    lone, program, parallel = scored(
        document("livre", "fr", text), document("programs", "code", code(1)), document("pages", "fr", text, other, page="p")
    )
    assert (lone["stream"], program["stream"], parallel["stream"]) == ("fr", "code", "parallel")
    assert (lone["langid"], program["langid"], parallel["translation_langid"]) == ("fr", None, "en")
    assert lone["translation_langid"] is None
    assert lone["declared_score"] == parallel["declared_score"] > 0.65
    assert (lone["chars"], lone["translation_chars"]) == (len(text), -1)
    assert (parallel["chars"], parallel["translation_chars"], parallel["page"]) == (len(text), len(other), "p")
    assert [row["row"] for row in (lone, program, parallel)] == [0, 10, 20]
    assert lone["words"] > 50
    assert lone["minhash"] != parallel["minhash"]
    assert lone["url_key"] != parallel["url_key"]


def test_an_undeclared_language_is_the_one_found():
    row = scored(document("livre", "", prose("en", 2)))[0]
    assert (row["lang"], row["stream"]) == ("en", "en")
    assert row["stop_words"] > 0


def test_short_texts_have_no_signature_and_missing_urls_no_key():
    row = scored(document("livre", "fr", "Quatre mots en tout") | {"url": ""})[0]
    assert row["minhash"] is None
    assert row["url_key"] == 0


def test_near_duplicate_search_reads_both_sides():
    rows = [document("a", "fr", "un\ndeux", "one\ntwo"), document("a", "fr", "seul")]
    assert whole_text(pa.Table.from_pylist(rows, schema=DOCUMENT)).to_pylist() == ["un\ndeux\none\ntwo", "seul"]


def test_the_score_section_follows_the_cleaning_section_and_no_threshold():
    plain, strict = CleanConfig(), CleanConfig(languages={"fr": {"min_words": 99}}, minhash={"min_jaccard": 0.9})
    assert plain.score_config().model_dump() == strict.score_config().model_dump()
    assert CleanConfig(minhash={"bands": 7}).score_config().minhash.bands == 7


@pytest.mark.usefixtures("ray_session")
def test_documents_beyond_the_cap_go_to_the_ledger(storage):
    rows = sorted((document("livre", "fr", prose("fr", n)) for n in range(20)), key=lambda row: row["id"])
    rows += [document("book", "en", prose("en", n)) for n in range(5)]
    cap = {"livre": {"threshold": rows[11]["id"], "cap_mb": 0.01}}
    artifact = run_stage(storage, "score", CONFIG, "test", extract=write_extract(storage, {"a": rows[::2], "b": rows[1::2]}, cap))
    assert artifact.metrics == {"documents": 25, "scored": 17, "ledger_rows": 8}
    ledger = [row for part in "ab" for row in artifact.folder.read_table(f"ledger/{part}.parquet").to_pylist()]
    assert {row["id"] for row in ledger} == {row["id"] for row in rows[12:20]}
    assert {(row["stage"], row["reason"], row["survivor_id"]) for row in ledger} == {("cap", "source_cap", None)}
    assert all(row["value"] == row["chars"] for row in ledger)
    for part, given in (("a", rows[::2]), ("b", rows[1::2])):
        for row in artifact.folder.read_table(f"signals/{part}.parquet").to_pylist():
            assert given[row["row"]]["id"] == row["id"]
            assert row["part"] == part
