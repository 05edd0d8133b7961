"""What a ladder of small runs says: a law for each mix and held-out stream, the loss as a function of the mix, and the mix to take.

Where every mix has a law for every stream, and the mixes differ by more than the laws are unsure of, they are compared at the
recipe's own size and length, as the laws predict them (the nested use of laws of Ye et al. 2024); else at the largest size
and length that all mixes were tried at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cluster.errors import RequestError
from training.scaling import RESAMPLES, MixingLaw, Reading, best_mix, describe_law, fit_law, fit_mixing, too_few

OBJECTIVE = "objective"


def analyse(
    rows: Sequence[Mapping[str, Any]], objective: Mapping[str, float], target: tuple[float, float], resamples: int = RESAMPLES
) -> dict[str, Any]:
    """The report on the trials `rows` (see `ladder.run_trials`), `target` being the recipe's parameters and tokens.

    `objective` weighs the held-out streams; empty, all count alike. `resamples` are those of the laws' intervals.
    """
    weights = {stream: weight for stream, weight in objective.items() if weight} or dict.fromkeys(rows[0]["loss"], 1.0)
    mixes = {row["mix"]: row["shares"] for row in rows}
    laws = {mix: _laws([row for row in rows if row["mix"] == mix], weights, target, resamples) for mix in mixes}
    place, losses = _comparison(rows, laws, weights, target)
    tried = {mix: _mean(losses[mix], weights) for mix in losses}
    return {
        "objective": weights,
        "target": {"parameters": target[0], "tokens": target[1]},
        "trials": list(rows),
        "laws": laws,
        "compared_at": place,
        "mixes": {mix: {"shares": mixes[mix], "loss": losses[mix], "objective": tried[mix]} for mix in losses},
        "noise": _noise(rows, weights),
        "mixing": _mixing(mixes, losses, weights) if len(losses) > 1 else None,
    }


def _laws(rows: Sequence[Mapping[str, Any]], weights: Mapping[str, float], target: tuple[float, float], resamples: int) -> dict[str, Any]:
    """The law of each held-out stream and of the objective under one mix, or what is missing for it."""
    series = {stream: [row["loss"][stream] for row in rows] for stream in rows[0]["loss"]}
    series[OBJECTIVE] = [_mean(row["loss"], weights) for row in rows]
    laws = {}
    for name, values in series.items():
        readings = [Reading(row["parameters"], row["tokens"], value) for row, value in zip(rows, values, strict=True)]
        missing = too_few(readings)
        laws[name] = {"missing": missing} if missing else describe_law(fit_law(readings), readings, target, resamples)
    return laws


def _comparison(
    rows: Sequence[Mapping[str, Any]], laws: Mapping[str, Any], weights: Mapping[str, float], target: tuple[float, float]
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Where the mixes are compared, and the loss of each there by stream."""
    unsure = "the laws are less sure than the mixes differ"
    if any("missing" in laws[mix][stream] for mix in laws for stream in weights):
        unsure = "too few runs for laws"
    elif len(laws) == 1 or all(_tells_apart([laws[mix][stream] for mix in laws]) for stream in weights):
        place = {"parameters": target[0], "tokens": target[1], "how": "predicted by the laws"}
        return place, {mix: {stream: laws[mix][stream]["target"] for stream in weights} for mix in laws}
    tried: dict[tuple[float, float], dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        tried[row["parameters"], row["tokens"]][row["mix"]].append(row)
    shared = [rung for rung, by_mix in tried.items() if len(by_mix) == len(laws)]
    parameters, tokens = max(shared, key=lambda rung: (rung[0] * rung[1], rung))
    found = {
        mix: {stream: float(np.mean([row["loss"][stream] for row in several])) for stream in weights}
        for mix, several in tried[parameters, tokens].items()
    }
    return {"parameters": parameters, "tokens": tokens, "how": f"measured ({unsure})"}, found


def _tells_apart(laws: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the predictions of one stream under several mixes differ by more than the widest of their 90 % intervals."""
    predictions = [law["target"] for law in laws]
    return max(predictions) - min(predictions) > max(law["intervals"]["target"][1] - law["intervals"]["target"][0] for law in laws)


def _mixing(
    mixes: Mapping[str, Mapping[str, float]], losses: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]
) -> dict[str, Any]:
    """The law of each weighed stream over the mixes and the best mix between those tried, or what is missing for it."""
    shares = [mixes[mix] for mix in losses]
    laws: dict[str, MixingLaw] = {}
    try:
        for stream in weights:
            laws[stream] = fit_mixing(shares, [losses[mix][stream] for mix in losses])
    except RequestError as error:
        return {"missing": str(error)}
    best, value = best_mix(laws, weights, shares)
    errors = [abs(law.loss(mixes[mix]) - losses[mix][stream]) for stream, law in laws.items() for mix in losses]
    constants = 2 + len(next(iter(laws.values())).t)
    return {
        "laws": {stream: asdict(law) for stream, law in laws.items()},
        "recommended": {"shares": best, "objective": value},
        "largest_error": max(errors),
        "spare": len(shares) - constants,
    }


def _noise(rows: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> float | None:
    """Standard deviation of the objective between seeds of otherwise equal trials, None where each has one seed."""
    groups: dict[Any, list[float]] = defaultdict(list)
    for row in rows:
        groups[row["mix"], row["parameters"], row["tokens"]].append(_mean(row["loss"], weights))
    spread = [np.var(values, ddof=1) for values in groups.values() if len(values) > 1]
    return float(np.sqrt(np.mean(spread))) if spread else None


def _mean(losses: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(losses[stream] * weight for stream, weight in weights.items()) / sum(weights.values())
