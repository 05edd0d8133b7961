from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from evaluation.stats import bootstrap_groups, bootstrap_ratio, share_stderr, wilson_interval


@given(st.integers(1, 2_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(case: tuple[int, int]) -> None:
    right, n = case
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_share_stderr_is_the_sample_deviation_over_root_n() -> None:
    scores = [1.0] * 7 + [0.0] * 3
    assert share_stderr(7, 10) == pytest.approx(np.std(scores, ddof=1) / np.sqrt(10))
    assert share_stderr(1, 1) is None


def test_bootstrap_ratio_agrees_with_the_delta_method() -> None:
    generator = np.random.default_rng(3)
    below = generator.integers(50, 500, 400).astype(float)
    above = 2.0 * below + generator.normal(0, 40, 400)
    ratio = above.sum() / below.sum()
    delta = np.sqrt(np.sum((above - ratio * below) ** 2)) / below.sum()
    stderr, interval = bootstrap_ratio(above, below, seed=1)
    assert stderr == pytest.approx(delta, rel=0.15)
    assert interval is not None
    assert interval[0] < ratio < interval[1]
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 * delta, rel=0.15)


def test_bootstrap_is_the_same_for_a_seed_and_unknown_for_one_unit() -> None:
    assert bootstrap_ratio([1, 5, 2], [2, 4, 3], seed=7) == bootstrap_ratio([1, 5, 2], [2, 4, 3], seed=7)
    assert bootstrap_ratio([1], [2], seed=7) == (None, None)
    assert bootstrap_groups([[0, 1]], len, seed=7) == (None, None)


def test_groups_are_drawn_whole() -> None:
    values = np.array([0.0, 0.0, 10.0, 10.0])
    stderr, interval = bootstrap_groups([[0, 1], [2, 3]], lambda items: float(values[items].mean()), seed=1)
    assert interval == (0.0, 10.0)
    assert stderr == pytest.approx(10 / np.sqrt(8), rel=0.1)
