"""What a bake will cost, before it runs: `fournil plan RECIPE`."""

from __future__ import annotations

from typing import Any

from cluster.artifacts import find_artifact
from cluster.errors import RequestError
from cluster.storage import Folder
from fournil.bake import PlannedStage, plan_bake
from fournil.recipe import Recipe, StageResources
from pipelines.config import STREAMS
from pipelines.mix import MANY_EPOCHS
from training.data import seen_by_source, token_order
from training.hardware import find_gpu
from training.plan import PlanRow, Site, check_fit, plan_rows, plan_training

BYTES_PER_TOKEN = 3.5
"""A guess used only until the tokens stage has counted; French, English and code lie between 2.6 and 4.2."""
SPOKEN = {"s": ((86_400, "days"), (3_600, "hours"), (60, "minutes")), "kg": ((1e3, "t"),), "kWh": ((1e3, "MWh"),), "h": ()}
SCALES = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def describe_plan(recipe: Recipe, storage: Folder, site: Site | None = None, *, numbers: bool = False) -> dict[str, Any]:
    """Figures of the pretraining run, at `site` if there is one, and the state of every stage, ready to print; with `numbers` each
    figure is `{"value", "unit", "note"}`."""
    planned = plan_bake(recipe, storage)
    tokens, origin = planned_tokens(recipe, planned, storage)
    lines: dict[str, Any] = {"recipe": recipe.name, "tokens to see": f"{tokens:,} ({origin})" if tokens else origin}
    if site:
        _check_site(recipe, site, tokens, origin)
    if tokens:
        asked = recipe.resources.get("pretrain", StageResources()).to_ask()
        plan = plan_training(
            recipe.model,
            recipe.tokenizer.vocab_size,
            recipe.pretrain,
            tokens,
            workers=site.count if site else asked.workers,
            precision="fp32" if recipe.pretrain.precision == "fp32" else "bf16",
            device="cuda" if site or asked.gpus_per_worker else "cpu",
        )
        lines["pretraining"] = {
            row.name: {"value": row.value, "unit": row.unit, "note": row.note} if numbers else _written(row)
            for row in plan_rows(plan, site)
        }
    if recipe.anneal:
        lines["tokens to see while annealing"] = f"{recipe.anneal.tokens:,} (anneal.tokens)"
    lines["sampling ratios"] = {stream: f"{recipe.mix.ratios.get(stream, 1.0):g}" for stream in STREAMS}
    lines["tokens seen by source"] = describe_sources(recipe, planned, tokens)
    lines["stages"] = {item.stage.name: f"{item.hash}  {'ready' if item.artifact else 'to do'}" for item in planned}
    return lines


def site_of(recipe: Recipe, gpu: str | None, count: int | None, **assumed: float | None) -> Site | None:
    """`count` GPUs (the recipe's pretraining workers when None) named `gpu`, with `Site`'s assumptions where one is None."""
    given = {name: value for name, value in assumed.items() if value is not None}
    if gpu is None:
        if count or given:
            raise RequestError("--gpus, --mfu, --pue and --grams-per-kwh need --gpu, the kind of GPU that is planned for")
        return None
    return Site(find_gpu(gpu), count or recipe.resources.get("pretrain", StageResources()).to_ask().workers, **given)


def _check_site(recipe: Recipe, site: Site, tokens: int | None, origin: str) -> None:
    """A `RequestError` for a run that cannot be at `site`, or cannot be told."""
    if recipe.pretrain.precision == "fp32":
        raise RequestError("the planner knows the GPUs' bf16 peak and the recipe asks for fp32; set pretrain.precision to auto or bf16")
    if not tokens:
        raise RequestError(f"tokens to see: {origin}; give --set pretrain.tokens=…")
    check_fit(recipe.model, recipe.tokenizer.vocab_size, recipe.pretrain, site.gpu, site.count)


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


def describe_sources(recipe: Recipe, planned: list[PlannedStage], tokens: int | None) -> dict[str, str]:
    """For each source of the mix the tokens that pretraining will see of it, the epochs and the share: counted once the tokens
    stage has run, from the mix's bytes once that has, before it from the caps."""
    origin, amounts = _amounts(recipe, planned, tokens)
    if not amounts:
        return {"unknown": "until the mix stage has run: a source has no cap_mb"}
    total = sum(seen for _, seen in amounts.values())
    lines = {"from": origin}
    for name, (size, seen) in amounts.items():
        epochs = seen / size if size else 0.0
        warning = f", more than {MANY_EPOCHS:g} epochs teach less and less" if epochs > MANY_EPOCHS else ""
        share = 100 * seen / total if total else 0.0
        lines[name] = f"{_scaled(seen)}tokens of {_scaled(size)}({epochs:.3g} epochs), {share:.1f} % of what is seen{warning}"
    return lines


def _amounts(recipe: Recipe, planned: list[PlannedStage], tokens: int | None) -> tuple[str, dict[str, tuple[float, float]]]:
    """Tokens that each source has and those that are seen, and where the figures come from."""
    ready = {item.stage.name: item.artifact for item in planned if item.artifact is not None}
    if "tokens" in ready:
        index = ready["tokens"].folder.read_json("index.json")
        found = seen_by_source(*token_order(index, recipe.pretrain))
        return "counted", {name: (entry["tokens"], found.get(name, {"tokens": 0})["tokens"]) for name, entry in index["sources"].items()}
    guess = f"guessed at {BYTES_PER_TOKEN} bytes per token"
    if "mix" in ready:
        sources = ready["mix"].folder.read_json("mix.json")["sources"]
        amounts = {name: (entry["bytes"] / BYTES_PER_TOKEN, entry["ratio"]) for name, entry in sources.items()}
        return f"bytes counted, tokens {guess}", _spread(amounts, tokens)
    if any(source.cap_mb is None for source in recipe.sources):
        return "", {}
    mix = recipe.mix
    amounts = {}
    for source in recipe.sources:
        stream = "parallel" if getattr(source, "translation_lang", None) else source.lang
        ratio = mix.sources.get(source.name, mix.families.get(source.family, mix.ratios.get(stream, 1.0)))
        amounts[source.name] = ((source.cap_mb or 0) * 1e6 / BYTES_PER_TOKEN, ratio)
    return f"caps, nothing removed, tokens {guess}", _spread(amounts, tokens)


def _spread(amounts: dict[str, tuple[float, float]], tokens: int | None) -> dict[str, tuple[float, float]]:
    """Sizes and ratios to sizes and tokens seen, of `tokens` (None: one pass) in all."""
    one_pass = sum(size * ratio for size, ratio in amounts.values())
    passes = tokens / one_pass if tokens and one_pass else 1.0
    return {name: (size, size * ratio * passes) for name, (size, ratio) in amounts.items()}


def _written(row: PlanRow) -> str:
    size, unit = next((scale for scale in SPOKEN.get(row.unit, ()) if row.value >= scale[0]), (1.0, row.unit))
    number = row.value / size
    if number < 1e3:
        text = f"{number:,.4g} {unit}"
    elif row.unit in SPOKEN or (not unit and number < 1e5):
        text = f"{number:,.0f} {unit}"
    else:
        text = f"{_scaled(number)}{unit}"
    return f"{text:<14} {row.note}".rstrip()


def _scaled(value: float) -> str:
    scale, letter = next(((scale, letter) for scale, letter in SCALES if value >= scale), (1.0, ""))
    return f"{value / scale:.2f} {letter}"
