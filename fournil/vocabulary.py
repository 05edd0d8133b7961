"""What a recipe's vocabulary is worth: sizes side by side before training, hardly learnt tokens after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.artifacts import Artifact, find_artifact, stage_hash
from cluster.errors import RequestError
from cluster.progress import Reporter
from cluster.storage import Folder
from fournil.bake import PlannedStage, Stage, log_folder, make_artifact, plan_bake
from fournil.recipe import Recipe
from fournil.runs import Run
from training.tokenizer_sweep import SWEEP, SweepConfig, model_cost

SWEEP_STAGE = Stage("tokenizer_sweep", "training.tokenizer_sweep", lambda r: r.tokenizer, ("clean", "mix"), like="tokenizer")
COUNTED = {
    "pretrain": "tokens in pretraining",
    "anneal": "in annealing",
    "sft": "of the assistant's in fine-tuning",
    "dpo": "of chosen answers in preference optimisation",
}
"""What `training/seen.py` counts in each stage."""


# --- fournil tokenizer ---


def sweep_recipe(recipe: Recipe, storage: Folder, sizes: str | None, *, address: str, reporter: Reporter) -> dict[str, Any]:
    """Fit and measure the sizes (the recipe's when None) on the recipe's finished mix; what was fitted before is kept."""
    config = _sweep_config(recipe, sizes)
    planned = {item.stage.name: item for item in plan_bake(recipe, storage, "mix")}
    if missing := [name for name in SWEEP_STAGE.inputs if planned[name].artifact is None]:
        raise RequestError(f"the recipe has no {' and no '.join(missing)} yet; run `fournil bake RECIPE --until mix` first")
    declared = config.model_dump(mode="json")
    inputs = {name: planned[name].hash for name in SWEEP_STAGE.inputs}
    place = stage_hash(SWEEP_STAGE.name, SWEEP_STAGE.load().VERSION, declared, inputs)
    artifact = find_artifact(storage, SWEEP_STAGE.name, place)
    if artifact is None:
        from cluster.session import check_shared, connect

        connect(address)
        check_shared(storage)
        item = PlannedStage(SWEEP_STAGE, config, declared, place, inputs)
        finished = {name: one.artifact for name, one in planned.items() if one.artifact is not None}
        artifact = make_artifact(item, recipe, storage, finished, reporter, log_folder(Run(recipe.name, storage)))
    return _sweep_report(recipe, artifact, planned["mix"].artifact)


def _sweep_config(recipe: Recipe, sizes: str | None) -> SweepConfig:
    try:
        wanted = sorted({int(size) for size in sizes.split(",")}) if sizes else [recipe.tokenizer.vocab_size]
        return SweepConfig.model_validate({**recipe.tokenizer.model_dump(), "vocab_size": wanted[-1], "sizes": wanted})
    except ValidationError as error:
        problem = error.errors()[0]
        raise RequestError(f"--sizes: {problem['msg'][0].lower()}{problem['msg'][1:]} (got {problem['input']})") from None
    except ValueError:
        raise RequestError(f"--sizes {sizes}: give numbers with commas between, for example --sizes 4096,8192") from None


def _sweep_report(recipe: Recipe, artifact: Artifact, mix: Artifact | None) -> dict[str, Any]:
    """`sweep.json` with what each of the recipe's own tokenizers costs its model."""
    assert mix is not None
    report = artifact.folder.read_json(SWEEP)
    shares = {stream: entry["share"] for stream, entry in mix.metrics["streams"].items() if stream in report["text"]}
    for row in report["tokenizers"]:
        if row["name"].startswith("fournil "):
            tokens_per_byte = sum(share / row["streams"][stream]["bytes_per_token"] for stream, share in shares.items()) / sum(
                shares.values()
            )
            row["model"] = model_cost(recipe.model, row["vocab_size"], recipe.pretrain.seq_len, tokens_per_byte)
    return {**report, "warnings": artifact.metrics["warnings"], "files": [artifact.folder.at("sizes")]}


def sweep_tables(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The report as tables to print, by title."""
    streams, pairs = list(report["text"]), list(report["premium_of_bytes"])
    rows = report["tokenizers"]

    def by_stream(figure: str) -> list[dict[str, Any]]:
        return [{"tokenizer": row["name"], **{stream: f"{row['streams'][stream][figure]:.3f}" for stream in streams}} for row in rows]

    tables = {f"tokens per word ({report['note']})": by_stream("tokens_per_word"), "bytes per token": by_stream("bytes_per_token")}
    if pairs:
        premiums = [{"name": "UTF-8 bytes", "premium": report["premium_of_bytes"]}, *rows]
        tables["tokens for the same content (parallel documents)"] = [
            {"tokenizer": row["name"], **{pair: f"{row['premium'][pair]:.3f}" for pair in pairs}} for row in premiums
        ]
    tables["what the vocabulary costs the recipe's model"] = [
        {
            "tokenizer": row["name"],
            "embedding parameters": f"{row['model']['embedding_parameters']:,}",
            "of all": f"{row['model']['embedding_share']:.1%}",
            "training FLOPs a byte": f"{row['model']['flops_per_byte']:.3g}",
        }
        for row in rows
        if "model" in row
    ]
    mix = report["mix"]
    tables[f"bytes of the sample, as its first {mix['merges']:,} merges tell"] = [
        {"stream": stream, **{name: f"{share:.1%}" for name, share in entry.items()}} for stream, entry in mix["streams"].items()
    ]
    return tables


# --- fournil glitch ---


def scan_target(target: str, storage: Folder, stage: str, *, share: float, seen_below: int, worst: int) -> dict[str, Any]:
    """Scan a run's model after `stage`, checked by the counts of all tokens that it was trained on until then, or a model folder."""
    from training.glitch import scan
    from training.seen import TRAINED_STAGES, count_run

    if stage not in TRAINED_STAGES:
        raise RequestError(f"--stage {stage}: give one of {', '.join(TRAINED_STAGES)}")
    if (Path(target) / "config.json").is_file():
        return {"model": target, **scan(Folder(target), None, share=share, seen_below=seen_below, worst=worst)}
    run = Run(target, storage)
    export, made = run.artifact(stage).folder / "export", run.read()["artifacts"]
    read = ("mix", "tokens", *TRAINED_STAGES[: TRAINED_STAGES.index(stage) + 1])
    counts = count_run({name: run.artifact(name) for name in read if name in made})
    return {"model": f"{target}, {stage}", **scan(export, counts, share=share, seen_below=seen_below, worst=worst)}


def scan_lines(report: dict[str, Any]) -> list[str]:
    """What the scan found, in sentences."""
    lines = [f"{report['flagged']:,} of {report['tokens']:,} tokens of {report['model']} are nearest to the reserved ones"]
    if "check" in report:
        check = report["check"]
        counted = ", ".join(f"{tokens:,} {COUNTED[stage]}" for stage, tokens in check["counted"].items())
        lines.append(f"counted: {counted}")
        for name in ("distance", "cosine"):
            found = check[name]
            lines.append(
                f"{name}: {found['precision']:.1%} of them were seen less than {check['seen_below']} times "
                f"(of all tokens {found['of_all_tokens']:.1%}); they are {found['recall']:.1%} of all such tokens"
            )
    return lines
