"""The report's pictures, as SVG text ready to stand in a page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, KEPT, LOST = "#2b2320", "#b9aea6", "#c8762b", "#ead9c8"
SERIES = ("#c8762b", "#2f6b8a", "#6a8f3c", "#8a4b7d", "#a33b2e", "#4d4d4d")
MB = 1_000_000
LEAST_SHARE = 0.05
"""Percent removed below which a funnel's bar is not labelled."""


def funnel_chart(streams: dict[str, list[dict[str, Any]]]) -> str:
    """One panel a stream: MB of text left after each step, with what the step removed hatched above it.

    `streams[name]` is a list of `{"step", "chars_in", "chars_removed", "documents_in", "documents_removed"}` in order.
    """
    columns = min(2, len(streams))
    figure, panels = _figure(columns, height=2.9 * -(-len(streams) // columns), rows=-(-len(streams) // columns))
    for panel in panels[len(streams) :]:
        panel.set_axis_off()
    for panel, (stream, steps) in zip(panels, streams.items(), strict=False):
        names = [_spoken(step["step"]) for step in steps]
        left = [(step["chars_in"] - step["chars_removed"]) / MB for step in steps]
        lost = [step["chars_removed"] / MB for step in steps]
        panel.bar(names, left, color=KEPT, width=0.72)
        panel.bar(names, lost, bottom=left, color="none", edgecolor=FAINT, hatch="////", linewidth=0.6, width=0.72)
        for at, step in enumerate(steps):
            share = 100 * step["chars_removed"] / max(1, step["chars_in"])
            if share >= LEAST_SHARE:
                panel.text(at, (left[at] + lost[at]), f"−{share:.1f} %", ha="center", va="bottom", fontsize=6, color=INK)
        panel.set_title(stream, loc="left", fontsize=10, color=INK)
        panel.set_ylabel("million characters", fontsize=8)
        panel.tick_params(axis="x", labelrotation=40, labelsize=8)
        for label in panel.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
        panel.set_ylim(0, 1.15 * max(have + gone for have, gone in zip(left, lost, strict=True)) or 1)
    return _svg(figure)


def rates_chart(rates: list[dict[str, Any]]) -> str:
    """One panel a language: for each rule the share of documents that fail it, and the share it removes in its turn.

    `rates` are `{"lang", "step", "reason", "independent", "sequential"}` in order (after the filtering charts of ROOTS, Laurençon et
    al. 2022, arXiv 2303.03915). Empty without any.
    """
    langs = list(dict.fromkeys(rate["lang"] for rate in rates))
    if not langs:
        return ""
    tallest = max(sum(rate["lang"] == lang for rate in rates) for lang in langs)
    figure, panels = _figure(len(langs), height=1.2 + 0.24 * tallest)
    for panel, lang in zip(panels, langs, strict=True):
        mine = [rate for rate in rates if rate["lang"] == lang][::-1]
        places = range(len(mine))
        panel.barh([at + 0.2 for at in places], [100 * rate["independent"] for rate in mine], 0.38, color=LOST, label="fail it")
        panel.barh([at - 0.2 for at in places], [100 * rate["sequential"] for rate in mine], 0.38, color=KEPT, label="removed by it")
        panel.set_yticks(places, [f"{rate['step']}: {_spoken(rate['reason'])}" for rate in mine], fontsize=7)
        panel.set_title(lang, loc="left", fontsize=10, color=INK)
        panel.set_xlabel("% of the language's documents", fontsize=8)
        panel.legend(frameon=False, fontsize=8)
    return _svg(figure)


def curve_chart(panels: Sequence[tuple[str, str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]]) -> str:
    """Line charts side by side: `(title, x label, {series: (x values, y values)})` each."""
    figure, axes = _figure(len(panels), height=2.9)
    for axis, (title, label, series) in zip(axes, panels, strict=True):
        for (name, (x, y)), color in zip(series.items(), SERIES, strict=False):
            axis.plot(x, y, color=color, linewidth=1.6, label=name, marker="o" if len(x) < 12 else None, markersize=3)
        axis.set_title(title, loc="left", fontsize=10, color=INK)
        axis.set_xlabel(label, fontsize=8)
        if len(series) > 1:
            axis.legend(frameon=False, fontsize=8)
    return _svg(figure)


def bar_chart(
    title: str, groups: Sequence[str], series: Mapping[str, Sequence[float | None]], unit: str, chance: float | None = None
) -> str:
    """Grouped bars (None leaves a gap), one group a place on the x axis, with a dotted chance line."""
    figure, axes = _figure(1, height=3.0)
    axis, width = axes[0], 0.8 / max(1, len(series))
    for number, ((name, values), color) in enumerate(zip(series.items(), SERIES, strict=False)):
        places = [at + (number - (len(series) - 1) / 2) * width for at in range(len(groups))]
        heights = [value or 0.0 for value in values]
        axis.bar(places, heights, width * 0.92, color=color, label=name)
        for place, value in zip(places, values, strict=True):
            if value is not None:
                axis.text(place, value, f"{value:.2f}", ha="center", va="bottom", fontsize=7, color=INK)
    axis.set_xticks(range(len(groups)), groups)
    axis.set_title(title, loc="left", fontsize=10, color=INK)
    axis.set_ylabel(unit, fontsize=8)
    axis.margins(y=0.14)
    if chance is not None:
        axis.axhline(chance, color=INK, linewidth=0.9, linestyle=":", label=f"chance ({chance:g})")
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    return _svg(figure)


def _spoken(step: str) -> str:
    return step.replace("_", " ")


def _figure(columns: int, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, height) if columns > 1 else (7.2, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(FAINT)
        axis.tick_params(colors=INK, labelsize=8)
    return figure, list(axes)


def _svg(figure: Figure) -> str:
    """The figure as one `<svg>` element, without XML prologue, date or random ids, text left as text."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fournil", "font.family": "sans-serif"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
