"""Pictures are well-formed SVG, the same for the same figures, and show what they are given."""

from __future__ import annotations

from xml.etree import ElementTree

from evaluation.charts import bar_chart, curve_chart, funnel_chart

STEPS = [
    {"step": "extract", "chars_in": 1_000_000, "chars_removed": 0, "documents_in": 10, "documents_removed": 0},
    {"step": "near_dedup", "chars_in": 1_000_000, "chars_removed": 250_000, "documents_in": 10, "documents_removed": 2},
]


def words(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_a_funnel_names_streams_steps_and_shares() -> None:
    svg = funnel_chart({"fr": STEPS, "en": STEPS})
    shown = words(svg)
    assert "near dedup" in shown
    assert "−25.0 %" in shown
    assert svg == funnel_chart({"fr": STEPS, "en": STEPS})


def test_curves_and_bars_are_svg_with_their_labels() -> None:
    curves = words(
        curve_chart([("loss", "step", {"train": ([1, 2, 3], [3.0, 2.0, 1.5])}), ("bits", "step", {"fr": ([1], [2.0]), "en": ([1], [2.1])})])
    )
    assert {"loss", "bits", "fr", "en"} <= set(curves.split())
    bars = words(bar_chart("pairs", ["fr", "en"], {"base": [0.7, None]}, "accuracy", chance=0.5))
    assert "chance (0.5)" in bars
    assert "0.70" in bars
