"""Properties of the learning-rate schedules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import OptimConfig
from training.schedule import learning_rate


@st.composite
def runs(draw: st.DrawFn) -> tuple[int, OptimConfig]:
    settings = OptimConfig(
        learning_rate=draw(st.floats(1e-5, 1e-1)),
        min_lr_ratio=draw(st.floats(0, 1)),
        schedule=draw(st.sampled_from(["cosine", "wsd"])),
        warmup_ratio=draw(st.floats(0, 0.5)),
        decay_ratio=draw(st.floats(0, 1)),
        decay_shape=draw(st.sampled_from(["linear", "sqrt"])),
    )
    return draw(st.integers(1, 400)), settings


@given(runs())
def test_rates_lie_between_zero_and_the_peak_and_rise_only_at_first(run: tuple[int, OptimConfig]) -> None:
    total, settings = run
    rates = [learning_rate(step, total, settings) for step in range(total)]
    assert all(0 <= rate <= settings.learning_rate * (1 + 1e-12) for rate in rates)
    assert settings.min_lr_ratio == 0 or rates[0] > 0
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    slack = settings.learning_rate * 1e-9
    assert all(later <= sooner + slack for sooner, later in zip(rates[top:], rates[top + 1 :], strict=False))
    warmup = sum(step < settings.warmup_ratio * total for step in range(total))
    assert all(rate >= settings.learning_rate * settings.min_lr_ratio * (1 - 1e-9) for rate in rates[warmup:])


@given(runs())
def test_the_last_step_after_warm_up_is_the_floor(run: tuple[int, OptimConfig]) -> None:
    total, settings = run
    if settings.warmup_ratio * total < total - 1 and (settings.schedule == "cosine" or settings.decay_ratio > 0) and total > 2:
        assert learning_rate(total - 1, total, settings) == pytest.approx(settings.learning_rate * settings.min_lr_ratio, abs=1e-12)


def test_cosine_by_hand() -> None:
    settings = OptimConfig(learning_rate=1.0, min_lr_ratio=0.0, warmup_ratio=0.2)
    rates = [learning_rate(step, 11, settings) for step in range(11)]
    assert rates[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert rates[-1] == pytest.approx(0)
    assert rates[3] + rates[10] == pytest.approx(rates[6] + rates[7])


def test_wsd_by_hand() -> None:
    settings = OptimConfig(learning_rate=1.0, min_lr_ratio=0.1, schedule="wsd", warmup_ratio=0.2, decay_ratio=0.3)
    rates = [learning_rate(step, 10, settings) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.7, 0.4, 0.1])


def test_without_decay_wsd_stays_at_the_peak() -> None:
    settings = OptimConfig(learning_rate=1.0, schedule="wsd", warmup_ratio=0, decay_ratio=0)
    assert [learning_rate(step, 3, settings) for step in range(3)] == [1, 1, 1]


def test_square_root_cool_down_by_hand() -> None:
    settings = OptimConfig(learning_rate=1.0, min_lr_ratio=0.0, schedule="wsd", decay_shape="sqrt", warmup_ratio=0, decay_ratio=0.4)
    rates = [learning_rate(step, 10, settings) for step in range(10)]
    assert rates == pytest.approx([1, 1, 1, 1, 1, 1, 1 - 0.25**0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0])


def test_a_branch_that_only_cools_down_begins_below_the_peak() -> None:
    settings = OptimConfig(learning_rate=1.0, min_lr_ratio=0.0, schedule="wsd", warmup_ratio=0, decay_ratio=1)
    assert [learning_rate(step, 4, settings) for step in range(4)] == pytest.approx([0.75, 0.5, 0.25, 0])
