"""The report: one self-contained HTML page about a bake, made from its artifacts alone.

Reading order: `run` (the stage), `build_page` (every section's data, in the page's order), the section functions,
`render_page`. Pictures are in `evaluation/charts.py`, the page itself in `evaluation/report.html`.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from cluster.artifacts import Artifact
from cluster.progress import format_seconds
from cluster.stage import StageContext
from evaluation.charts import bar_chart, curve_chart
from evaluation.config import ReportConfig
from evaluation.data_card import CARD, data_card
from evaluation.data_sections import Artifacts, Table, build_data

VERSION = "4"
PAGE = "index.html"
TEMPLATE = Path(__file__).with_name("report.html")


def run(context: StageContext) -> dict[str, Any]:
    """Write `index.html` and the data card."""
    assert isinstance(context.config, ReportConfig)
    context.progress.note("drawing")
    page = render_page(build_page(context.inputs, context.config))
    context.out.write_text(PAGE, page)
    context.out.write_text(CARD, data_card(context.inputs, context.config.title))
    return {"headline": f"{len(page.encode()) / 1e6:.1f} MB page", "bytes": len(page.encode())}


def build_page(artifacts: Artifacts, config: ReportConfig) -> dict[str, Any]:
    """All values the template names. Without a model (a bake that ends before it) the sections on data alone."""
    page = build_data(artifacts, config)
    if "eval" not in artifacts:
        return page
    results = artifacts["eval"].folder.read_json("results.json")
    pretrain = artifacts["pretrain"].folder.read_json("summary.json")
    return page | {
        "tiles": [*page["tiles"], *_model_tiles(pretrain, results["results"])],
        "tokenizer_line": _tokenizer_line(artifacts["tokenizer"]),
        "tokenizer_rows": _tokenizer_table(artifacts["tokenizer"]),
        "training_line": _training_line(pretrain),
        "pretrain_svg": _training_chart(artifacts["pretrain"], "bits per byte, held out"),
        "anneal_svg": _training_chart(artifacts["anneal"], "bits per byte, held out") if "anneal" in artifacts else "",
        "sft_svg": _training_chart(artifacts["sft"], "held-out loss"),
        "dpo_svg": _training_chart(artifacts["dpo"], "held-out pairs") if "dpo" in artifacts else "",
        "instruction_rows": _instruction_table(artifacts["instructions"]),
        "bits_svg": _bits_chart(results["results"]),
        "pairs_svg": _pairs_chart(results["results"]),
        "result_rows": _result_table(results["results"]),
        "answers": results.get("answers", []),
        "versions_line": ", ".join(f"{name} {version}" for name, version in artifacts["eval"].manifest["versions"].items()),
    }


def render_page(page: dict[str, Any]) -> str:
    """The template filled in; every value is escaped except the pictures."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(**page)


def _model_tiles(pretrain: dict[str, Any], results: list[dict[str, Any]]) -> list[dict[str, str]]:
    tiles = [
        {"value": f"{pretrain['parameters'] / 1e6:.1f} M", "label": "parameters"},
        {"value": f"{pretrain['tokens'] / 1e6:.2f} M", "label": "tokens seen in pretraining"},
    ]
    for result in results:
        if result["task"] == "bits_per_byte" and result["model"] == "base" and result["subset"] in ("fr", "en"):
            xz = result["baselines"].get("xz -9")
            beside = f" (xz −9: {xz:.2f})" if xz else ""
            tiles.append({"value": f"{result['value']:.2f}", "label": f"held-out bits per byte, {result['subset']}{beside}"})
    return tiles


def _tokenizer_line(tokenizer: Artifact) -> str:
    fertility = tokenizer.folder.read_json("fertility.json")
    line = (
        f"Byte-level BPE, {tokenizer.metrics['vocab_size']:,} tokens, every byte a token of its own, digits one by one. "
        f"Measured on {fertility['note']}."
    )
    if bytes_alone := _premium_of_bytes(fertility):
        pair = next(iter(bytes_alone))
        costly, _, other = pair.partition("/")
        line += (
            f" The premium {pair} is how many tokens {costly} takes for what {other} says in one, over both sides of parallel "
            f"documents: at 1.20 the same content is a fifth longer in {costly}, and costs as much more to train on and to answer; "
            f"1.00 is even (UTF-8 bytes alone: {', '.join(f'{name} {ratio:.2f}' for name, ratio in bytes_alone.items())})."
        )
    return line


def _premium_of_bytes(fertility: dict[str, Any]) -> dict[str, float]:
    """By pair of languages; nothing without parallel documents, or in a tokenizer artifact from before they were compared."""
    return fertility.get("premium_of_bytes", {})


def _tokenizer_table(tokenizer: Artifact) -> Table:
    fertility = tokenizer.folder.read_json("fertility.json")
    streams, pairs = list(fertility["text"]), list(_premium_of_bytes(fertility))
    rows = [
        [
            entry["name"],
            f"{entry['vocab_size']:,}",
            *(f"{entry['streams'][stream]['tokens_per_word']:.2f}" for stream in streams),
            *(f"{entry['premium'][pair]:.2f}" for pair in pairs),
            *(f"{entry['streams'][stream]['bytes_per_token']:.2f}" for stream in streams),
        ]
        for entry in fertility["tokenizers"]
    ]
    fertilities, premiums = (f"tokens/word, {s}" for s in streams), (f"premium, {pair}" for pair in pairs)
    columns = ("tokenizer", "vocabulary", *fertilities, *premiums, *(f"bytes/token, {s}" for s in streams))
    return Table(columns, rows, frozenset(range(1, len(columns))))


def _training_line(summary: dict[str, Any]) -> str:
    speed, share, peak = summary["tokens_per_s"], summary["flops_share"], summary["matmul_flops"]
    pace = ""
    if speed and share:
        pace = f"{speed:,.0f} tokens/s, {100 * share:.0f} % of the {peak / 1e12:.2f} TFLOP/s of a matmul timed on the same machine; "
    return (
        f"{summary['parameters'] / 1e6:.2f} M parameters, {summary['steps']:,} steps, {summary['tokens'] / 1e6:.2f} M tokens, "
        f"{summary['precision']} on {summary['workers']} worker(s); {pace}{format_seconds(summary['seconds']['train'])} in the loop."
    )


def _training_chart(artifact: Artifact, heldout_title: str) -> str:
    from training.metrics import METRICS, read_metrics

    lines = list(read_metrics(artifact.folder.local_path(METRICS)))
    steps = [line for line in lines if line["kind"] == "train"]
    readings: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for line in lines:
        if line["kind"] == "eval":
            for stream, value in line["heldout"].items():
                readings[stream][0].append(line["step"])
                readings[stream][1].append(value)
    at = [line["step"] for line in steps]
    panels = [
        ("training loss (nats per token)", "step", {"loss": (at, [line["loss"] for line in steps])}),
        (heldout_title, "step", dict(readings)),
        ("tokens per second", "step", {"tokens/s": (at, [line["tokens_per_s"] for line in steps])}),
    ]
    return curve_chart([panel for panel in panels if panel[2]])


def _instruction_table(instructions: Artifact) -> Table:
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for at, name in enumerate(("train.parquet", "heldout.parquet")):
        table = instructions.folder.read_table(name, ["task", "lang"])
        for row in table.group_by(["task", "lang"]).aggregate([("task", "count")]).to_pylist():
            counts[row["task"], row["lang"]][at] = row["task_count"]
    rows = [[task, lang, f"{train:,}", f"{heldout:,}"] for (task, lang), (train, heldout) in sorted(counts.items())]
    return Table(("task", "language", "training examples", "held out"), rows, frozenset({2, 3}))


def _of_task(results: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    return [result for result in results if result["task"] == task]


def _bits_chart(results: list[dict[str, Any]]) -> str:
    found = _of_task(results, "bits_per_byte")
    groups = list(dict.fromkeys(result["subset"] for result in found))
    by_model = {(result["model"], result["subset"]): result for result in found}
    models = list(dict.fromkeys(result["model"] for result in found))
    series: dict[str, list[float | None]] = {
        f"{model} model": [by_model[model, group]["value"] if (model, group) in by_model else None for group in groups] for model in models
    }
    baselines = list(dict.fromkeys(name for result in found for name in result["baselines"]))
    for name in baselines:
        series[name] = [next((r["baselines"].get(name) for r in found if r["subset"] == group), None) for group in groups]
    return bar_chart("held-out bits per byte", groups, series, "bits per byte")


def _pairs_chart(results: list[dict[str, Any]]) -> str:
    found = [result for result in _of_task(results, "minimal_pairs") if "/" not in result["subset"]]
    if not found:
        return ""
    groups = list(dict.fromkeys(result["subset"] for result in found))
    by_model = {(result["model"], result["subset"]): result["value"] for result in found}
    models = list(dict.fromkeys(result["model"] for result in found))
    series: dict[str, list[float | None]] = {f"{model} model": [by_model.get((model, group)) for group in groups] for model in models}
    return bar_chart("minimal pairs", groups, series, "accuracy", chance=found[0]["chance"])


def _result_table(results: list[dict[str, Any]]) -> Table:
    rows = []
    for result in results:
        interval = result["interval95"]
        rows.append(
            [
                result["task"].replace("_", " "),
                result["subset"],
                result["model"],
                result["metric"],
                f"{result['value']:.3f}",
                f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "",
                f"{result['n']:,} {result['n_unit']}",
                "" if result["chance"] is None else f"{result['chance']:g}",
                ", ".join(f"{name} {value:.3f}" for name, value in result["baselines"].items()),
                "higher" if result["higher_is_better"] else "lower",
            ]
        )
    columns = ("task", "subset", "model", "metric", "value", "95 % interval", "n", "chance", "baselines", "better")
    return Table(columns, rows, frozenset({4, 5, 6, 7}))
