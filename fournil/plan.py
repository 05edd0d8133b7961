"""What a bake will cost, before it runs: `fournil plan RECIPE`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.errors import RequestError
from cluster.storage import Folder
from fournil.bake import plan_bake, resources_of, stages_of
from fournil.plan_amounts import Amount, describe_annealing, describe_sources, planned_amounts
from fournil.recipe import Recipe
from pipelines.config import STREAMS
from training.anneal import anneal_settings
from training.config import LoopConfig
from training.hardware import find_gpu
from training.plan import PlanRow, Site, TrainingPlan, cost_rows, later_rows, plan_rows, plan_training, run_cost, scaled, total_cost
from training.plan_memory import check_fit

TITLES = {"pretrain": "pretraining", "anneal": "annealing", "sft": "fine-tuning", "dpo": "preference optimisation"}
"""The training stages, in their order."""
SPOKEN = {"s": ((86_400, "days"), (3_600, "hours"), (60, "minutes")), "kg": ((1e3, "t"),), "kWh": ((1e3, "MWh"),), "h": ()}


def describe_plan(recipe: Recipe, storage: Folder, sites: Mapping[str, Site] | None = None, *, numbers: bool = False) -> dict[str, Any]:
    """Figures of the training stages, at `sites` if there are any, and the state of every stage, ready to print; with `numbers`
    each figure is `{"value", "unit", "note"}`."""
    planned = plan_bake(recipe, storage)
    ready = {item.stage.name: item.artifact for item in planned if item.artifact is not None}
    amounts, settings, sites = planned_amounts(recipe, ready), _settings(recipe), sites or {}
    for stage, site in sites.items():
        _check_site(recipe, stage, settings[stage], site, amounts[stage])
    plans = {stage: _plan(recipe, stage, settings[stage], amount, sites.get(stage)) for stage, amount in amounts.items()}
    tokens, origin = amounts["pretrain"].tokens, amounts["pretrain"].origin
    lines: dict[str, Any] = {"recipe": recipe.name, "tokens to see": f"{tokens:,} ({origin})" if tokens else origin}
    for stage, plan in plans.items():
        if stage != "pretrain":
            rows = [*_amount_rows(amounts[stage], plan), *later_rows(plan, sites.get(stage))]
        else:
            rows = plan_rows(plan, sites.get(stage)) if tokens else []
        if rows:
            lines[TITLES[stage]] = _lines(rows, numbers)
    if sites:
        lines["all training"] = _lines(_total_rows(plans, sites), numbers)
    lines["sampling ratios"] = {stream: f"{recipe.mix.ratios.get(stream, 1.0):g}" for stream in STREAMS}
    lines["tokens seen by source"] = describe_sources(recipe, ready, tokens)
    if recipe.anneal:
        lines["tokens seen by source while annealing"] = describe_annealing(recipe, ready)
    lines["stages"] = {item.stage.name: f"{item.hash}  {'ready' if item.artifact else 'to do'}" for item in planned}
    return lines


def sites_of(recipe: Recipe, gpu: str | None, count: int | None, **assumed: float | None) -> dict[str, Site]:
    """Where each training stage is to be: on `count` GPUs (each stage's own workers in the recipe when None) named `gpu`, with
    `Site`'s assumptions where one is None. Empty without a GPU."""
    given = {name: value for name, value in assumed.items() if value is not None}
    if gpu is None:
        if count or given:
            raise RequestError("--gpus, --mfu, --pue and --grams-per-kwh need --gpu, the kind of GPU that is planned for")
        return {}
    kind = find_gpu(gpu)
    asked = {stage.name: resources_of(stage, recipe) for stage in stages_of(recipe) if stage.name in TITLES}
    return {stage: Site(kind, count or resources.workers, **given) for stage, resources in asked.items()}


def _settings(recipe: Recipe) -> dict[str, LoopConfig]:
    """The loop of each training stage that the recipe asks for."""
    settings: dict[str, LoopConfig] = {"pretrain": recipe.pretrain, "sft": recipe.sft}
    if recipe.anneal:
        settings["anneal"] = anneal_settings(recipe.pretrain, recipe.anneal, 1)
    if recipe.dpo:
        settings["dpo"] = recipe.dpo
    return settings


def _check_site(recipe: Recipe, stage: str, settings: LoopConfig, site: Site, amount: Amount) -> None:
    """A `RequestError` for a run that cannot be at `site`, or cannot be told."""
    if settings.precision == "fp32":
        section = "pretrain" if stage == "anneal" else stage
        raise RequestError(f"the planner knows the GPUs' bf16 peak and the recipe asks for fp32; set {section}.precision to auto or bf16")
    if stage == "pretrain" and not amount.tokens:
        raise RequestError(f"tokens to see: {amount.origin}; give --set pretrain.tokens=…")
    check_fit(recipe.model, recipe.tokenizer.vocab_size, settings, site.gpu, site.count, stage)


def _plan(recipe: Recipe, stage: str, settings: LoopConfig, amount: Amount, site: Site | None) -> TrainingPlan:
    asked = next(resources_of(item, recipe) for item in stages_of(recipe) if item.name == stage)
    return plan_training(
        recipe.model,
        recipe.tokenizer.vocab_size,
        settings,
        amount.tokens or 0,
        only_read=amount.once or 0 if stage == "dpo" else 0,
        workers=site.count if site else asked.workers,
        precision="fp32" if settings.precision == "fp32" else "bf16",
        device="cuda" if site or asked.gpus_per_worker else "cpu",
    )


def _amount_rows(amount: Amount, plan: TrainingPlan) -> list[PlanRow]:
    """What a stage after pretraining sees."""
    if not amount.tokens:
        return [PlanRow("tokens", None, "", amount.origin)]
    rows = [PlanRow("tokens", amount.tokens, "", f"{plan.steps:,} optimizer steps ({amount.origin})")]
    if amount.examples and amount.once:
        rows.insert(0, PlanRow("examples", amount.examples, "", f"seen {amount.tokens / amount.once:.3g} times"))
    return rows


def _total_rows(plans: Mapping[str, TrainingPlan], sites: Mapping[str, Site]) -> list[PlanRow]:
    """What the training stages take one after the other."""
    told = {stage: run_cost(plan, sites[stage]) for stage, plan in plans.items() if plan.tokens}
    missing = [TITLES[stage] for stage in plans if stage not in told]
    without = f"; without {' and '.join(missing)}, whose tokens are not known yet" if missing else ""
    return cost_rows(total_cost(told.values()), f"the stages above, one after the other{without}; data and evaluation come on top")


def _lines(rows: list[PlanRow], numbers: bool) -> dict[str, Any]:
    return {row.name: {"value": row.value, "unit": row.unit, "note": row.note} if numbers else _written(row) for row in rows}


def _written(row: PlanRow) -> str:
    if row.value is None:
        return row.note
    size, unit = next((scale for scale in SPOKEN.get(row.unit, ()) if row.value >= scale[0]), (1.0, row.unit))
    number = row.value / size
    if number < 1e3:
        text = f"{number:,.4g} {unit}"
    elif row.unit in SPOKEN or (not unit and number < 1e5):
        text = f"{number:,.0f} {unit}"
    else:
        text = f"{scaled(number)}{unit}"
    return f"{text:<14} {row.note}".rstrip()
