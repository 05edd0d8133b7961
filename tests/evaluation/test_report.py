"""The page escapes what it shows, the funnel adds up by stream, tokenizers stand side by side. The whole page is tested in tests/e2e."""

from __future__ import annotations

from cluster.artifacts import Artifact
from cluster.storage import Folder
from evaluation.data_sections import Table, funnel_by_stream, reasons_to_show
from evaluation.report import _tokenizer_line, _tokenizer_table, render_page

ROW = {"documents_in": 10, "documents_removed": 1, "chars_in": 100, "chars_removed": 5, "reasons": {}}
EMPTY = Table(("a",), [])
PAGE = {
    "title": "t",
    "capped": False,
    "tiles": [],
    "removal_samples": {},
    "mix_warnings": [],
    "tokenizer_line": "",
    "training_line": "",
    "versions_line": "",
    "answers": [],
    **dict.fromkeys(
        ("funnel_svg", "rates_svg", "pretrain_svg", "anneal_svg", "sft_svg", "dpo_svg", "bits_svg", "pairs_svg"), "<svg></svg>"
    ),
    **dict.fromkeys(
        (
            *("funnel_rows", "reason_rows", "rate_rows", "replay_rows", "edit_rows", "mix_rows", "family_rows", "tokenizer_rows"),
            *("instruction_rows", "result_rows", "source_rows", "stage_rows"),
        ),
        EMPTY,
    ),
}


def test_the_funnel_adds_sources_of_a_stream_and_keeps_the_order_of_steps() -> None:
    rows = [
        {"step": "quality", "source": "b", "lang": "fr", **ROW},
        {"step": "extract", "source": "a", "lang": "fr", **ROW},
        {"step": "extract", "source": "b", "lang": "fr", **ROW},
        {"step": "extract", "source": "pairs", "lang": "fr", **ROW},
    ]
    mix = {"sources": {"pairs": {"source": "pairs", "stream": "parallel"}}}
    steps = funnel_by_stream(rows, mix)
    assert list(steps) == ["fr", "parallel"]
    assert [(step["step"], step["documents_in"]) for step in steps["fr"]] == [("extract", 20), ("quality", 10)]


def test_samples_show_judgements_first_and_caps_last() -> None:
    rows = [
        {**ROW, "step": "cap", "reasons": {"source_cap": 900}},
        {**ROW, "step": "extract", "reasons": {"empty": 50, "invalid_utf8": 60}},
        {**ROW, "step": "language", "reasons": {"wrong_language": 4, "never": 0}},
        {**ROW, "step": "quality", "reasons": {"too_few_words": 3}},
        {**ROW, "step": "quality", "reasons": {"too_few_words": 2}},
    ]
    assert reasons_to_show(rows) == ["too_few_words", "wrong_language", "invalid_utf8", "empty", "source_cap"]


def test_text_from_documents_cannot_become_markup() -> None:
    sample = {
        "excerpt": "<script>alert(1)</script>",
        "id": "0",
        "source": "s",
        "lang": "fr",
        "value": None,
        "threshold": None,
        "survivor_id": None,
    }
    answer = {"lang": "fr", "question": "<b>?</b>", "answer": "<img src=x>"}
    page = render_page({**PAGE, "removal_samples": {"too_few_words": [sample]}, "answers": [answer]})
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "<img src=x>" not in page


def _tokenizer(storage: Folder, **changes: object) -> Artifact:
    """A tokenizer artifact with the figures of two tokenizers."""
    streams = {lang: {"tokens": 30, "tokens_per_word": 1.5, "bytes_per_token": 4.25} for lang in ("en", "fr")}
    rows = [
        {"name": name, "vocab_size": 8192, "streams": streams, "premium": {"fr/en": ratio}}
        for name, ratio in (("fournil", 1.1149), ("mistral-v1", 1.3851))
    ]
    fertility = {"text": {"en": {}, "fr": {}}, "tokenizers": rows, "premium_of_bytes": {"fr/en": 1.2512}, "note": "held-out text"}
    storage.write_json("fertility.json", fertility | changes)
    return Artifact("tokenizer", "t", storage, {"metrics": {"vocab_size": 8192}})


def test_each_tokenizer_has_its_premium_beside_its_fertility(storage: Folder) -> None:
    tokenizer = _tokenizer(storage)
    table = _tokenizer_table(tokenizer)
    assert table.columns[2:5] == ("tokens/word, en", "tokens/word, fr", "premium, fr/en")
    assert [row[4] for row in table.rows] == ["1.11", "1.39"]
    assert {len(row) for row in table.rows} == {len(table.columns)}
    line = _tokenizer_line(tokenizer)
    assert "how many tokens fr takes for what en says in one" in line
    assert "(UTF-8 bytes alone: fr/en 1.25)" in line


def test_without_parallel_documents_there_is_no_premium(storage: Folder) -> None:
    tokenizer = _tokenizer(storage, premium_of_bytes={})
    assert [column for column in _tokenizer_table(tokenizer).columns if "premium" in column] == []
    assert "premium" not in _tokenizer_line(tokenizer)
