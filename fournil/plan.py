"""What a bake will cost, before it runs: `fournil plan RECIPE`."""

from __future__ import annotations

from typing import Any

from cluster.artifacts import find_artifact
from cluster.storage import Folder
from fournil.bake import PlannedStage, plan_bake
from fournil.recipe import Recipe, StageResources
from pipelines.config import STREAMS
from training.plan import PlanRow, plan_rows, plan_training

BYTES_PER_TOKEN = 3.5
"""A guess used only until the tokens stage has counted; French, English and code lie between 2.6 and 4.2."""
SCALES = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def describe_plan(recipe: Recipe, storage: Folder) -> dict[str, Any]:
    """Figures of the pretraining run and the state of every stage, ready to print."""
    planned = plan_bake(recipe, storage)
    tokens, origin = planned_tokens(recipe, planned, storage)
    lines: dict[str, Any] = {"recipe": recipe.name, "tokens to see": f"{tokens:,} ({origin})" if tokens else origin}
    if tokens:
        asked = recipe.resources.get("pretrain", StageResources())
        device = "cuda" if asked.gpus_per_worker else "cpu"
        plan = plan_training(recipe.model, recipe.tokenizer.vocab_size, recipe.pretrain, tokens, workers=asked.workers, device=device)
        lines["pretraining"] = {row.name: _written(row) for row in plan_rows(plan)}
    lines["sampling ratios"] = {stream: f"{recipe.mix.ratios.get(stream, 1.0):g}" for stream in STREAMS}
    lines["stages"] = {item.stage.name: f"{item.hash}  {'ready' if item.artifact else 'to do'}" for item in planned}
    return lines


def planned_tokens(recipe: Recipe, planned: list[PlannedStage], storage: Folder) -> tuple[int | None, str]:
    """Tokens that pretraining will see and where that figure comes from: counted, asked for, or guessed from caps."""
    if recipe.pretrain.tokens:
        return recipe.pretrain.tokens, "pretrain.tokens"
    address = next(item.hash for item in planned if item.stage.name == "tokens")
    if artifact := find_artifact(storage, "tokens", address):
        index = artifact.folder.read_json("index.json")
        return round(sum(source["tokens"] * source["ratio"] for source in index["sources"].values())), "counted"
    caps = [source.cap_mb for source in recipe.sources]
    if any(cap is None for cap in caps):
        return None, "unknown until the tokens stage has run: a source has no cap_mb and pretrain.tokens is not set"
    return round(sum(cap for cap in caps if cap) * 1e6 / BYTES_PER_TOKEN), f"guessed: caps at {BYTES_PER_TOKEN} bytes per token, seen once"


def _written(row: PlanRow) -> str:
    value = f"{row.value:,.4g}" if row.value < 1e3 else _scaled(row.value)
    return f"{value}{row.unit:<6} {row.note}"


def _scaled(value: float) -> str:
    scale, letter = next(((scale, letter) for scale, letter in SCALES if value >= scale), (1.0, ""))
    return f"{value / scale:.2f} {letter}"
