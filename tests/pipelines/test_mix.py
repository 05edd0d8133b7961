from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.errors import WorkError
from pipelines import mix
from pipelines.config import MixConfig
from pipelines.document import render
from tests.clean_corpus import bilingual, document, write_clean

COUNTS = [
    {"source": "livre", "stream": "fr", "lang": "fr", "documents": 10, "bytes": 1_000},
    {"source": "livre", "stream": "fr", "lang": "fr", "documents": 5, "bytes": 500},
    {"source": "book", "stream": "en", "lang": "en", "documents": 30, "bytes": 3_000},
    {"source": "web", "stream": "en", "lang": "en", "documents": 1, "bytes": 100},
    {"source": "web", "stream": "fr", "lang": "fr", "documents": 2, "bytes": 200},
]


@pytest.mark.usefixtures("ray_session")
def test_counts_equal_the_rendered_texts(storage, stage_context):
    rows = bilingual(20)
    context = stage_context("mix", MixConfig(ratios={"fr": 2.5}), clean=write_clean(storage, rows, []))
    metrics = mix.run(context)
    written = context.out.read_json(mix.MIX)
    for source, stream in (("livre", "fr"), ("book", "en"), ("programs", "code"), ("pages", "parallel")):
        texts = [text for row in rows if row["source"] == source for text in render(row["text"], row["translation"])]
        entry = written["sources"][source]
        assert (entry["stream"], entry["documents"]) == (stream, 20)
        assert entry["bytes"] == sum(len(text.encode()) for text in texts)
    assert written["sources"]["livre"]["ratio"] == 2.5
    assert written["sources"]["book"]["ratio"] == 1.0
    assert sum(entry["share"] for entry in written["sources"].values()) == pytest.approx(1, abs=1e-5)
    assert metrics["streams"] == written["streams"]


@pytest.mark.usefixtures("ray_session")
def test_an_empty_corpus_is_an_error(storage, stage_context):
    with pytest.raises(WorkError, match="no document survived"):
        mix.run(stage_context("mix", MixConfig(), clean=write_clean(storage, [], [])))


@given(st.lists(st.tuples(st.text("aé\n ", max_size=30), st.booleans()), min_size=1, max_size=8))
def test_training_bytes_equals_rendering(rows: list[tuple[str, bool]]):
    pairs = [(text, text.replace("a", "éé") if parallel else None) for text, parallel in rows]
    frame = pl.DataFrame({"text": [p[0] for p in pairs], "translation": [p[1] for p in pairs]}, schema_overrides={"translation": pl.String})
    measured = frame.select(mix.training_bytes()).to_series().to_list()
    assert measured == [sum(len(text.encode()) for text in render(*pair)) for pair in pairs]


def test_ratios_of_sources_win_over_streams():
    made = mix.make_mix(COUNTS, MixConfig(ratios={"fr": 2, "en": 1}, sources={"livre": 3, "web": 0.5}))
    sources = made["sources"]
    assert list(sources) == ["book", "web@en", "livre", "web@fr"]
    assert sources["livre"] == {
        "source": "livre",
        "stream": "fr",
        "lang": "fr",
        "documents": 15,
        "bytes": 1_500,
        "ratio": 3.0,
        "bytes_seen": 4_500,
        "share": round(4_500 / 7_650, 6),
    }
    assert sources["web@fr"]["bytes_seen"] == 100
    assert made["streams"]["en"]["bytes_seen"] == 3_050
    assert made["total"]["ratio"] == round(7_650 / 4_800, 4)
    assert mix.source_keys(made)["web", "fr"] == "web@fr"


def test_many_epochs_dropped_and_unknown_sources_are_said():
    made = mix.make_mix(COUNTS, MixConfig(ratios={"fr": 4.0}, sources={"livre": 6.13, "book": 0, "livres": 2}))
    assert made["dropped"] == ["book"]
    assert "book" not in mix.source_keys(made).values()
    assert [line.split()[0] for line in made["warnings"]] == ["livre", "book", "mix.sources"]
    assert "6.13 times" in made["warnings"][0]


def test_nothing_to_train_on_and_bad_ratios():
    with pytest.raises(WorkError, match="ratio 0"):
        mix.make_mix(COUNTS, MixConfig(ratios={"fr": 0, "en": 0}))
    with pytest.raises(ValidationError):
        MixConfig(ratios={"fr": -1})


def test_table_has_the_columns_of_table_1():
    """The figures of CroissantLLM's Table 1 in thousands of tokens: its seen tokens and shares come out."""
    table = {"fr": (1258.70, 376.27, 303.51, 4.09), "en": (2351.13, 591.23, 655.64, 1.89), "code": (366.87, 81.90, 141.43, 2.04)}
    table["parallel"] = (113.91, 408.03, 35.78, 6.13)
    counts = [
        {"source": f"{s}-web", "stream": s, "lang": s, "documents": round(docs * 1e3), "bytes": round(size * 1e6)}
        for s, (size, docs, _, _) in table.items()
    ]
    made = mix.make_mix(counts, MixConfig(ratios={s: row[3] for s, row in table.items()}))
    index = {"sources": {f"{s}-web": {"tokens": round(row[2] * 1e6)} for s, row in table.items()}}
    rows = {(row["kind"], row["name"]): row for row in mix.mix_table(made, index)}
    assert len(rows) == 4 + 4 + 1
    french, total = rows["stream", "fr"], rows["total", "total"]
    assert french["tokens_seen"] == pytest.approx(1_241.36e6, rel=1e-3)
    assert french["share"] == pytest.approx(0.415, abs=1e-3)
    assert french["tokens_per_document"] == pytest.approx(806.63, abs=0.01)
    assert french["bytes_per_token"] == pytest.approx(4.15, abs=0.01)
    assert total["tokens"] == pytest.approx(1_136.35e6, rel=1e-4)
    assert rows["source", "en-web"]["ratio"] == 1.89


def test_a_dropped_source_has_an_empty_row():
    made = mix.make_mix([*COUNTS], MixConfig(sources={"book": 0}))
    rows = {row["name"]: row for row in mix.mix_table(made, {"sources": {"livre": {"tokens": 300}}})}
    assert (rows["book"]["tokens"], rows["book"]["share"], rows["book"]["bytes_per_token"]) == (0, 0.0, 0.0)
    assert rows["livre"]["share"] == 1.0


@pytest.mark.usefixtures("ray_session")
def test_one_document_without_text(storage, stage_context):
    rows = [document("vide", "fr", ""), document("livre", "fr", "Bonjour.")]
    context = stage_context("mix", MixConfig(), clean=write_clean(storage, rows, []))
    mix.run(context)
    assert context.out.read_json(mix.MIX)["sources"]["vide"]["bytes"] == 0
