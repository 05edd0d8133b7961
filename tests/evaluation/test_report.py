"""The page escapes what it shows, and the funnel adds up by stream. The whole page is tested in tests/e2e."""

from __future__ import annotations

from evaluation.data_sections import Table, funnel_by_stream, reasons_to_show
from evaluation.report import render_page

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
