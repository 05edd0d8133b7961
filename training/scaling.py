"""Curves through small runs: loss by size and tokens, and loss by mix, with what they say of a larger run.

    L(N, D) = E + A / N^alpha + B / D^beta          Hoffmann et al. 2022 (arXiv 2203.15556), approach 3
    L_i(r)  = c_i + k_i exp(sum_j t_ij r_j)         Ye et al. 2024 (arXiv 2403.16952), for each held-out stream i

N are all parameters, D tokens, r the share of the tokens that each stream has. Everything here is numbers in, numbers out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares, nnls

from cluster.errors import RequestError

HUBER = 1e-3
"""Difference of logs from which a reading counts as an outlier, as in Hoffmann et al."""
EXPONENTS = np.linspace(0.05, 1.5, 13)
BOUNDS = [-20.0, -20.0, -20.0, 1e-3, 1e-3], [20.0, 20.0, 20.0, 3.0, 3.0]
EDGES = 0.01, 2.5
"""Exponents outside say that the runs do not show the curve of that term."""
LOOSE = 4.0
"""So does an interval whose ends differ by more than this factor."""
CONSTANTS = 5
STARTS, REWEIGHTED = 3, 8
RESAMPLES = 100
INTERVAL = (5.0, 95.0)
LARGEST_T = 20.0
MIX_POINTS = 20_000


class Reading(NamedTuple):
    """One small run: parameters, tokens, and its held-out loss in any unit above 0."""

    parameters: float
    tokens: float
    loss: float


@dataclass(frozen=True)
class ScalingLaw:
    """The five constants; `a` and `b` are A and B, in the unit of the loss."""

    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        return self.e + self.a * parameters**-self.alpha + self.b * tokens**-self.beta

    def optimal(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens of the least loss for `flops` = 6ND (equation 4 of Hoffmann et al.)."""
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / 6 / parameters


def too_few(readings: Sequence[Reading]) -> str | None:
    """What is missing for a fit of five constants, or None."""
    sizes, lengths = len({reading.parameters for reading in readings}), len({reading.tokens for reading in readings})
    if sizes >= 3 and lengths >= 3 and len(readings) >= 6:
        return None
    return f"{len(readings)} runs of {sizes} sizes and {lengths} lengths; the curve needs at least 6 runs of 3 sizes and 3 lengths"


def fit_law(readings: Sequence[Reading], outlier: float | None = None) -> ScalingLaw:
    """The law with the least Huber loss of log predictions.

    Given both exponents the law is linear in E, A and B, so the starts are a grid of two dimensions and not five. What
    counts as an `outlier` is a difference of `HUBER`, or of `usual_error` where that is more: short runs are noisier than
    those of Hoffmann et al.
    """
    if missing := too_few(readings):
        raise RequestError(f"too few readings for a scaling law: {missing}")
    sizes, lengths, losses = (np.array(column, dtype=float) for column in zip(*readings, strict=True))
    if not (np.isfinite(losses).all() and min(losses.min(), sizes.min(), lengths.min()) > 0):
        raise RequestError("a scaling law needs finite losses, sizes and lengths above 0")
    middle = math.exp(np.log(sizes).mean()), math.exp(np.log(lengths).mean())
    n, d = np.log(sizes / middle[0]), np.log(lengths / middle[1])
    best = _best(n, d, losses, outlier or HUBER)
    e, a, b = np.exp(best[:3])
    law = ScalingLaw(float(e), float(a * middle[0] ** best[3]), float(b * middle[1] ** best[4]), float(best[3]), float(best[4]))
    usual = usual_error(law, readings)
    return law if outlier or usual <= HUBER else fit_law(readings, usual)


def usual_error(law: ScalingLaw, readings: Sequence[Reading]) -> float:
    """Twice the median error (of logs) of the runs that five constants cannot match anyway."""
    return 2 * float(np.median(np.sort(np.abs(_errors(law, readings)))[CONSTANTS:]))


def _errors(law: ScalingLaw, readings: Sequence[Reading]) -> np.ndarray:
    return np.log([reading.loss / law.loss(reading.parameters, reading.tokens) for reading in readings])


def _terms(point: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """E, A n^-alpha and B d^-beta for each reading; `point` is (log E, log A, log B, alpha, beta), n and d are logs."""
    return np.stack([np.full_like(n, np.exp(point[0])), np.exp(point[1] - point[3] * n), np.exp(point[2] - point[4] * d)])


def _best(n: np.ndarray, d: np.ndarray, losses: np.ndarray, huber: float) -> np.ndarray:
    """The point of the least Huber loss from the most promising starts."""

    def residuals(point: np.ndarray) -> np.ndarray:
        return np.log(_terms(point, n, d).sum(0) / losses)

    def slopes(point: np.ndarray) -> np.ndarray:
        terms = _terms(point, n, d)
        shares = terms / terms.sum(0)
        return np.stack([*shares, -n * shares[1], -d * shares[2]], axis=1)

    options: dict[str, Any] = {"jac": slopes, "bounds": BOUNDS, "loss": "huber", "f_scale": huber, "max_nfev": 40}
    fits = [least_squares(residuals, start, xtol=1e-10, ftol=1e-10, gtol=1e-12, **options) for start in _starts(n, d, losses, huber)]
    return min(fits, key=lambda fit: fit.cost).x


def _starts(n: np.ndarray, d: np.ndarray, losses: np.ndarray, huber: float) -> list[np.ndarray]:
    """The points of the grid of exponents where the law, linear there, is nearest to the losses by the sum of relative errors,
    which a run gone wrong pulls less than their squares: least squares of all grid points at once, reweighted."""
    alpha, beta = (grid.ravel() for grid in np.meshgrid(EXPONENTS, EXPONENTS))
    columns = np.stack([np.ones((len(alpha), len(n))), np.exp(-np.outer(alpha, n)), np.exp(-np.outer(beta, d))], axis=-1) / losses[:, None]
    linear, errors = np.zeros((len(alpha), 3)), np.ones((len(alpha), len(n)))
    for _ in range(REWEIGHTED):
        weighted = columns / np.maximum(np.abs(errors), huber)[..., None]
        products = weighted.swapaxes(1, 2) @ columns
        ridge = 1e-9 * np.trace(products, axis1=1, axis2=2)[:, None, None] * np.eye(3)
        linear = np.linalg.solve(products + ridge, weighted.sum(1)[..., None])[..., 0].clip(0)
        errors = np.einsum("gnk,gk->gn", columns, linear) - 1
    chosen = np.argsort(np.abs(errors).sum(1))[:STARTS]
    return [np.array([*np.log(np.clip(linear[place], 1e-6, 1e8)), alpha[place], beta[place]]) for place in chosen]


def law_intervals(
    readings: Sequence[Reading], law: ScalingLaw, figures: Mapping[str, Callable[[ScalingLaw], float]], resamples: int, seed: int = 0
) -> dict[str, list[float]]:
    """90 % bootstrap intervals of the five constants and of `figures`.

    Errors are resampled, not runs: a ladder of nine that lost three by chance would be another ladder (Efron and Tibshirani
    1993, section 9.5). They are scaled up for the constants that were fitted to them.
    """
    expected = np.array([law.loss(reading.parameters, reading.tokens) for reading in readings])
    errors = _errors(law, readings)
    errors = (errors - errors.mean()) * math.sqrt(len(errors) / (len(errors) - CONSTANTS))
    random, fits, outlier = np.random.default_rng(seed), [], max(HUBER, usual_error(law, readings))
    for _ in range(resamples):
        losses = expected * np.exp(random.choice(errors, len(errors)))
        fits.append(fit_law([reading._replace(loss=loss) for reading, loss in zip(readings, losses.tolist(), strict=True)], outlier))
    asked = {field.name: (lambda law, name=field.name: getattr(law, name)) for field in fields(ScalingLaw)} | dict(figures)
    return {name: np.percentile([figure(fit) for fit in fits], INTERVAL).tolist() for name, figure in asked.items()}


@dataclass(frozen=True)
class MixingLaw:
    """c + k exp(t . r) over the shares of `streams`; shares sum to 1, so one stream that varies is left out of them."""

    streams: tuple[str, ...]
    c: float
    k: float
    t: tuple[float, ...]

    def loss(self, shares: Mapping[str, float]) -> float:
        return self.c + self.k * math.exp(sum(t * shares.get(stream, 0.0) for stream, t in zip(self.streams, self.t, strict=True)))


def fit_mixing(mixes: Sequence[Mapping[str, float]], losses: Sequence[float]) -> MixingLaw:
    """The law nearest to the losses of one held-out stream under `mixes` (stream -> share of the tokens)."""
    varying = _varying(mixes)
    streams = varying[:-1]
    different = len({tuple(mix.get(stream, 0.0) for stream in varying) for mix in mixes})
    if different < len(streams) + 2 or not streams:
        raise RequestError(f"{different} different mixes; the curve over {max(2, len(varying))} streams needs {max(3, len(varying) + 1)}")
    shares = np.array([[mix.get(stream, 0.0) for stream in streams] for mix in mixes])
    wanted = np.array(losses, dtype=float)

    def residuals(point: np.ndarray) -> np.ndarray:
        return point[0] + point[1] * np.exp(shares @ point[2:]) - wanted

    def start(t: np.ndarray) -> np.ndarray:
        linear, _ = nnls(np.stack([np.ones(len(shares)), np.exp(shares @ t)], axis=1), wanted)
        return np.array([*linear, *t])

    random = np.random.default_rng(0)
    grid = [np.array(t) for t in itertools.product((-8.0, -3.0, -1.0, 1.0, 3.0, 8.0), repeat=len(streams))]
    chosen = grid if len(grid) <= 36 else [grid[place] for place in random.choice(len(grid), 36, replace=False)]
    low, high = [0.0, 0.0, *[-LARGEST_T] * len(streams)], [np.inf, np.inf, *[LARGEST_T] * len(streams)]
    fits = [least_squares(residuals, np.clip(start(t), low, high), bounds=(low, high), xtol=1e-12, ftol=1e-12) for t in chosen]
    best = min(fits, key=lambda fit: fit.cost).x
    return MixingLaw(tuple(streams), float(best[0]), float(best[1]), tuple(float(t) for t in best[2:]))


def _varying(mixes: Sequence[Mapping[str, float]]) -> list[str]:
    streams = sorted({stream for mix in mixes for stream in mix})
    return [stream for stream in streams if len({round(mix.get(stream, 0.0), 9) for mix in mixes}) > 1]


def best_mix(
    laws: Mapping[str, MixingLaw], weights: Mapping[str, float], mixes: Sequence[Mapping[str, float]], seed: int = 0
) -> tuple[dict[str, float], float]:
    """The mix with the least weighted mean of the laws, among those between the mixes tried (their convex hull): outside it
    the laws are guesses. Returns shares and the objective."""
    streams = sorted({stream for mix in mixes for stream in mix})
    corners = np.array([[mix.get(stream, 0.0) for stream in streams] for mix in mixes])
    inside = np.random.default_rng(seed).dirichlet(np.full(len(corners), 0.5), MIX_POINTS) @ corners
    points = np.concatenate([corners, inside])
    total = sum(weights.values())
    values = np.zeros(len(points))
    for stream, weight in weights.items():
        law = laws[stream]
        columns = points[:, [streams.index(name) for name in law.streams]]
        values += weight / total * (law.c + law.k * np.exp(columns @ np.array(law.t)))
    best = int(values.argmin())
    return {stream: float(share) for stream, share in zip(streams, points[best], strict=True)}, float(values[best])


def describe_law(law: ScalingLaw, readings: Sequence[Reading], target: tuple[float, float], resamples: int = RESAMPLES) -> dict[str, Any]:
    """Constants, what they predict at `target` (parameters, tokens) and for its FLOPs, 90 % intervals, and how well they fit."""
    figures = {"target": lambda law: law.loss(*target), "share_of_parameters": lambda law: law.beta / (law.alpha + law.beta)}
    intervals = law_intervals(readings, law, figures, resamples)
    undetermined = _undetermined(law, intervals, readings)
    optimal = None if {"N", "D"} & set(undetermined) else law.optimal(6 * target[0] * target[1])
    return {
        **asdict(law),
        **{name: figure(law) for name, figure in figures.items()},
        "optimal": optimal and {"parameters": optimal[0], "tokens": optimal[1]},
        "mean_error": float(np.abs(_errors(law, readings)).mean()),
        "undetermined": undetermined,
        "extrapolation": target[0] * target[1] / max(reading.parameters * reading.tokens for reading in readings),
        "intervals": intervals,
    }


def _undetermined(law: ScalingLaw, intervals: Mapping[str, Sequence[float]], readings: Sequence[Reading]) -> list[str]:
    """Terms that the runs do not fix: those that add nothing to any loss, and exponents at the edge or of any size."""
    least = 1e-3 * min(reading.loss for reading in readings)
    size = max(law.a * reading.parameters**-law.alpha for reading in readings)
    length = max(law.b * reading.tokens**-law.beta for reading in readings)

    def loose(name: str) -> bool:
        low, high = intervals[name]
        return high > LOOSE * low

    missing = {
        "E": law.e < least or loose("e"),
        "N": size < least or not EDGES[0] < law.alpha < EDGES[1] or loose("alpha"),
        "D": length < least or not EDGES[0] < law.beta < EDGES[1] or loose("beta"),
    }
    return [name for name, is_missing in missing.items() if is_missing]
