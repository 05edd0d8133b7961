"""Fits recover the constants that made their data, and refuse data that cannot give them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cluster.errors import RequestError
from training.scaling import MixingLaw, Reading, ScalingLaw, best_mix, describe_law, fit_law, fit_mixing, law_intervals, too_few

CHINCHILLA = ScalingLaw(1.69, 406.4, 410.7, 0.34, 0.28)
SIZES, LENGTHS = (1e6, 3e6, 1e7, 3e7), (1e8, 3e8, 1e9, 3e9)
EXACT = [Reading(size, length, CHINCHILLA.loss(size, length)) for size in SIZES for length in LENGTHS]


def noisy(share: float, seed: int = 0) -> list[Reading]:
    random = np.random.default_rng(seed)
    return [reading._replace(loss=reading.loss * math.exp(random.normal(0, share))) for reading in EXACT]


def test_exact_readings_give_back_the_constants() -> None:
    law = fit_law(EXACT)
    for name in ("e", "a", "b", "alpha", "beta"):
        assert getattr(law, name) == pytest.approx(getattr(CHINCHILLA, name), rel=1e-4)


def test_noise_of_two_in_a_thousand_moves_the_exponents_little_and_the_intervals_say_how_much() -> None:
    """Over 25 such sets the fitted alpha has a standard deviation of 0.0062, so that nine tenths lie within 0.020."""
    readings, target = noisy(0.002, seed=1), (1.3e9, 3e12)
    law = fit_law(readings)
    assert law.alpha == pytest.approx(CHINCHILLA.alpha, abs=0.02)
    assert law.beta == pytest.approx(CHINCHILLA.beta, abs=0.025)
    assert law.loss(*target) == pytest.approx(CHINCHILLA.loss(*target), rel=0.05)
    described = describe_law(law, readings, target, resamples=20)
    intervals = described["intervals"]
    assert 0.005 < intervals["alpha"][1] - intervals["alpha"][0] < 0.05
    assert intervals["target"][0] < CHINCHILLA.loss(*target) < intervals["target"][1]
    assert described["undetermined"] == []
    assert described["extrapolation"] == pytest.approx(1.3e9 * 3e12 / (3e7 * 3e9))


def test_one_run_gone_wrong_does_not_carry_the_curve_away() -> None:
    spoilt = [*EXACT[:-1], EXACT[-1]._replace(loss=2 * EXACT[-1].loss)]
    law = fit_law(spoilt)
    assert law.alpha == pytest.approx(CHINCHILLA.alpha, rel=0.02)
    assert law.beta == pytest.approx(CHINCHILLA.beta, rel=0.02)


def test_the_optimum_for_a_budget_is_the_least_loss_on_its_line() -> None:
    flops = 6 * 1e9 * 2e10
    parameters, tokens = CHINCHILLA.optimal(flops)
    assert 6 * parameters * tokens == pytest.approx(flops)
    for factor in (0.9, 1.1):
        assert CHINCHILLA.loss(parameters * factor, tokens / factor) > CHINCHILLA.loss(parameters, tokens)


def test_a_loss_that_does_not_depend_on_size_says_so() -> None:
    flat = ScalingLaw(1.0, 0.0, 410.7, 0.3, 0.28)
    readings = [Reading(size, length, flat.loss(size, length)) for size in SIZES for length in LENGTHS]
    described = describe_law(fit_law(readings), readings, (1e8, 1e10), resamples=5)
    assert described["undetermined"] == ["N"]
    assert described["optimal"] is None


def test_too_few_or_impossible_readings_are_refused() -> None:
    for few in (EXACT[:5], EXACT[:8], [reading for reading in EXACT if reading.tokens == 1e8]):
        assert too_few(few)
        with pytest.raises(RequestError, match="at least 6 runs of 3 sizes and 3 lengths"):
            fit_law(few)
    for wrong in (math.nan, -1.0, 0.0):
        with pytest.raises(RequestError, match="finite losses"):
            fit_law([*EXACT[:-1], EXACT[-1]._replace(loss=wrong)])


def test_a_curve_through_noise_is_said_to_be_loose() -> None:
    few = [reading for reading in noisy(0.05) if reading.parameters < 3e7 and reading.tokens < 3e9]
    law = fit_law(few)
    intervals = law_intervals(few, law, {"target": lambda law: law.loss(1e9, 1e11)}, resamples=20)
    exact = law_intervals(EXACT, CHINCHILLA, {"target": lambda law: law.loss(1e9, 1e11)}, resamples=3)
    assert intervals["target"][1] - intervals["target"][0] > 0.1
    assert exact["target"] == pytest.approx([CHINCHILLA.loss(1e9, 1e11)] * 2, rel=1e-4)
    assert describe_law(law, few, (1e9, 1e11), resamples=20)["undetermined"]


def mixes(*shares: float) -> list[dict[str, float]]:
    return [{"en": share, "fr": 1 - share} for share in shares]


def test_mixing_constants_come_back_and_the_best_mix_is_where_the_slopes_cancel() -> None:
    tried = mixes(0.1, 0.3, 0.5, 0.7, 0.9)
    truth = {"en": MixingLaw(("en",), 1.0, 0.8, (-2.5,)), "fr": MixingLaw(("en",), 1.2, 0.1, (2.0,))}
    laws = {stream: fit_mixing(tried, [law.loss(mix) for mix in tried]) for stream, law in truth.items()}
    for stream, law in laws.items():
        assert law.streams == ("en",)
        assert (law.c, law.k, law.t[0]) == pytest.approx((truth[stream].c, truth[stream].k, truth[stream].t[0]), rel=1e-3)
    # d/dr: 0.8 * 2.5 exp(-2.5 r) = 0.1 * 2 exp(2 r)
    wanted = math.log(0.8 * 2.5 / (0.1 * 2.0)) / 4.5
    best, value = best_mix(laws, {"en": 1.0, "fr": 1.0}, tried)
    assert best["en"] == pytest.approx(wanted, abs=0.01)
    assert value == pytest.approx(sum(law.loss({"en": wanted}) for law in truth.values()) / 2, rel=1e-4)
    assert best_mix(laws, {"en": 1.0, "fr": 20.0}, tried)[0]["en"] == pytest.approx(0.1)


def test_three_streams_and_the_hull_of_what_was_tried() -> None:
    corners = [{"code": 0.6, "en": 0.2, "fr": 0.2}, {"code": 0.2, "en": 0.6, "fr": 0.2}, {"code": 0.2, "en": 0.2, "fr": 0.6}]
    tried = [*corners, {"code": 1 / 3, "en": 1 / 3, "fr": 1 / 3}, {"code": 0.4, "en": 0.4, "fr": 0.2}]
    truth = MixingLaw(("code", "en"), 0.5, 1.0, (-1.5, 0.5))
    law = fit_mixing(tried, [truth.loss(mix) for mix in tried])
    assert law.loss({"code": 0.3, "en": 0.4, "fr": 0.3}) == pytest.approx(truth.loss({"code": 0.3, "en": 0.4}), rel=1e-3)
    best, _ = best_mix({"fr": law}, {"fr": 1.0}, tried)
    assert best["code"] == pytest.approx(0.6, abs=1e-6)
    assert sum(best.values()) == pytest.approx(1)


@pytest.mark.parametrize("shares", [(0.5,), (0.2, 0.8), (0.5, 0.5, 0.5)])
def test_too_few_mixes_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(RequestError, match="different mixes"):
        fit_mixing(mixes(*shares), [1.0] * len(shares))
