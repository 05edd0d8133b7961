"""Small runs before the large one: `fournil scale RECIPE`.

Reads the recipe's `scale` section and its finished tokens, trains what is missing (`training/ladder.py`), and writes
`runs/<recipe>/scale/scaling.json` and `scaling.png`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cluster.artifacts import Artifact
from cluster.errors import RequestError
from cluster.progress import Reporter
from cluster.stage import Resources
from cluster.storage import Folder
from fournil.bake import plan_bake
from fournil.plan_amounts import planned_tokens
from fournil.recipe import Recipe
from fournil.runs import Run
from training.flops import parameter_count
from training.ladder import make_trials, run_trials
from training.mixing import OBJECTIVE, analyse
from training.scaling import MixingLaw, ScalingLaw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESULTS, PICTURE = "scale/scaling.json", "scale/scaling.png"
COLORS = ("#c8762b", "#2f6b8a", "#6a8f3c", "#8a4b7d", "#a33b2e", "#4d4d4d")
UNIT = "held-out bits per byte"
COLUMNS = 3


def scale_recipe(recipe: Recipe, storage: Folder, *, address: str, at_once: int | None, reporter: Reporter) -> dict[str, Any]:
    """Run the ladder and return its report, once it is written beside the run."""
    planned = plan_bake(recipe, storage, "tokens")
    ready: dict[str, Artifact] = {item.stage.name: item.artifact for item in planned if item.artifact is not None}
    if missing := [name for name in ("tokenizer", "tokens") if name not in ready]:
        raise RequestError(f"the recipe has no {' and no '.join(missing)} yet; run `fournil bake RECIPE --until tokens` first")
    tokens, _ = planned_tokens(recipe, ready)
    assert tokens is not None
    trials = make_trials(recipe.scale, recipe.model, recipe.pretrain, ready["tokens"], ready["tokenizer"])
    asked = recipe.resources.get("scale")
    resources = asked.to_ask() if asked else Resources()
    from cluster.session import check_shared, connect

    connect(address)
    check_shared(storage)
    together = at_once or (resources.workers if asked else _places(resources))
    rows = run_trials(
        trials,
        storage,
        ready["tokens"].folder,
        ready["tokenizer"].folder,
        resources=resources,
        at_once=together,
        say=reporter.say,
    )
    report = analyse(rows, recipe.scale.objective, (parameter_count(recipe.model, recipe.tokenizer.vocab_size), tokens))
    folder = Run(recipe.name, storage).folder
    folder.write_json(RESULTS, report)
    folder.write_bytes(PICTURE, draw(report))
    return {**report, "files": [folder.at(RESULTS), folder.at(PICTURE)]}


def _places(resources: Resources) -> int:
    """Trials that the cluster has cores (and GPUs) for at once."""
    import ray

    there = ray.cluster_resources()
    cores = there.get("CPU", 1) / resources.cpus_per_worker
    return max(1, int(min(cores, there.get("GPU", 0) / resources.gpus_per_worker) if resources.gpus_per_worker else cores))


def describe_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report in lines to print: each law with its interval, the mixes, and the recommendation with what it rests on."""
    target, place, noise = report["target"], report["compared_at"], report["noise"]
    lines: dict[str, Any] = {"objective": "mean of " + ", ".join(f"{name} x {weight:g}" for name, weight in report["objective"].items())}
    for mix, laws in report["laws"].items():
        lines[f"law of {mix}"] = {name: _law_line(law) for name, law in laws.items()}
    how = f"{place['how']} at {place['parameters']:,.0f} parameters and {place['tokens']:,.0f} tokens"
    lines["mixes compared"] = how if len(report["mixes"]) > 1 else f"one mix only: give more under scale.mixes ({how})"
    lines["mixes"] = {
        mix: f"{_shares(entry['shares'])}: {entry['objective']:.4f} ({_values(entry['loss'])})" for mix, entry in report["mixes"].items()
    }
    lines["noise"] = f"{noise:.4f} between seeds (standard deviation)" if noise is not None else "unknown: each trial has one seed"
    lines["recommended"] = recommendation(report)
    lines["recipe's run"] = f"{target['parameters']:,.0f} parameters, {target['tokens']:,.0f} tokens"
    lines["files"] = report.get("files", [])
    return lines


def recommendation(report: Mapping[str, Any]) -> str:
    """The mix to take, in one line that says how sure it is."""
    mixing, mixes = report["mixing"], report["mixes"]
    if mixing is None:
        return "none: one mix was tried"
    ranked = sorted(mixes, key=lambda mix: mixes[mix]["objective"])
    best, gap = mixes[ranked[0]], mixes[ranked[1]]["objective"] - mixes[ranked[0]]["objective"]
    unsure = ""
    if report["noise"] is None:
        unsure = "; one seed each, so small differences mean nothing"
    elif gap < 2 * report["noise"]:
        unsure = f"; the two best mixes differ by {gap:.4f}, less than twice the noise"
    if "missing" in mixing:
        return f"{_shares(best['shares'])} ({ranked[0]}), the best one tried; no curve between mixes: {mixing['missing']}{unsure}"
    exact = "" if mixing["spare"] else "; the curve has as many constants as mixes, so nothing checks it"
    chosen = mixing["recommended"]
    beside = f"best tried: {ranked[0]}, {best['objective']:.4f}"
    return f"{_shares(chosen['shares'])}, objective {chosen['objective']:.4f} ({beside}){unsure}{exact}"


def _law_line(law: Mapping[str, Any]) -> str:
    if "missing" in law:
        return f"too few points: {law['missing']}"

    def spoken(name: str, digits: str = ".3g") -> str:
        low, high = law["intervals"][name]
        return f"{law[name]:{digits}} [{low:{digits}}, {high:{digits}}]"

    warning = f"; not determined by these runs: {', '.join(law['undetermined'])}" if law["undetermined"] else ""
    return (
        f"E {spoken('e')}, alpha {spoken('alpha')}, beta {spoken('beta')}; recipe's run {spoken('target', '.4f')}"
        f" ({law['extrapolation']:,.3g} x the largest trial's FLOPs); mean error {law['mean_error']:.2%}{warning}"
    )


def _shares(shares: Mapping[str, float]) -> str:
    return " ".join(f"{stream} {share:.0%}" for stream, share in shares.items() if share >= 0.005)


def _values(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{stream} {loss:.4f}" for stream, loss in losses.items())


def draw(report: Mapping[str, Any]) -> bytes:
    """A PNG: a panel a mix with the objective by tokens, one line a size, and its law; and one with the loss over the mixes."""
    from matplotlib.figure import Figure

    laws, mixing = report["laws"], report["mixing"]
    streams = sorted({stream for entry in report["mixes"].values() for stream in entry["shares"]})
    varying = [s for s in streams if len({round(entry["shares"].get(s, 0.0), 6) for entry in report["mixes"].values()}) > 1]
    count = len(laws) + bool(mixing)
    columns, lines = min(COLUMNS, count), -(-count // COLUMNS)
    figure = Figure(figsize=(4.6 * columns, 3.4 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flatten())
    for panel, mix in zip(panels, laws, strict=False):
        if panel is not panels[0]:
            panel.sharey(panels[0])
        _draw_law(panel, mix, report)
    if mixing:
        _draw_mixes(panels[len(laws)], varying[0] if varying else streams[0], report)
    for number, panel in enumerate(panels):
        panel.spines[["top", "right"]].set_visible(False)
        if number >= count:
            panel.set_axis_off()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return out.getvalue()


def _draw_law(panel: Axes, mix: str, report: Mapping[str, Any]) -> None:
    import numpy as np

    rows = [row for row in report["trials"] if row["mix"] == mix]
    law = report["laws"][mix][OBJECTIVE]
    weights = report["objective"]
    lengths = np.geomspace(min(row["tokens"] for row in rows), max(row["tokens"] for row in rows), 60)
    for size, color in zip(sorted({row["parameters"] for row in rows}), COLORS * 9, strict=False):
        mine = [row for row in rows if row["parameters"] == size]
        values = [sum(row["loss"][s] * w for s, w in weights.items()) / sum(weights.values()) for row in mine]
        panel.plot([row["tokens"] for row in mine], values, "o", color=color, markersize=4, label=f"{size / 1e6:.3g} M parameters")
        if "missing" not in law:
            fitted = ScalingLaw(*(law[name] for name in ("e", "a", "b", "alpha", "beta")))
            panel.plot(lengths, [fitted.loss(size, length) for length in lengths], color=color, linewidth=1)
    panel.set(xscale="log", xlabel="tokens", ylabel=f"objective ({UNIT})")
    panel.set_title(f"{mix}: {_shares(rows[0]['shares'])}" + (" (too few points for a law)" if "missing" in law else ""), fontsize=8)
    panel.legend(frameon=False, fontsize=7)


def _draw_mixes(panel: Axes, stream: str, report: Mapping[str, Any]) -> None:
    """Loss by stream over the share of one stream; with two streams that vary also the fitted curves."""
    mixes, mixing = report["mixes"], report["mixing"]
    for name, color in zip(report["objective"], COLORS * 9, strict=False):
        points = sorted((entry["shares"].get(stream, 0.0), entry["loss"][name]) for entry in mixes.values())
        panel.plot(*zip(*points, strict=True), "o", color=color, markersize=4, label=name)
        law = mixing.get("laws", {}).get(name)
        if law and len(law["t"]) == 1:
            fitted = MixingLaw(tuple(law["streams"]), law["c"], law["k"], tuple(law["t"]))
            low, high = points[0][0], points[-1][0]
            line = [low + (high - low) * step / 60 for step in range(61)]
            panel.plot(line, [fitted.loss({stream: share}) for share in line], color=color, linewidth=1)
    if "recommended" in mixing:
        panel.axvline(mixing["recommended"]["shares"].get(stream, 0.0), color="#2b2320", linestyle=":", label="recommended")
    panel.set(xlabel=f"share of {stream} in the tokens", ylabel=UNIT)
    panel.set_title(f"by mix, {report['compared_at']['how']}", fontsize=8)
    panel.legend(frameon=False, fontsize=7)
