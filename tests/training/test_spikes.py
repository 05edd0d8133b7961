from __future__ import annotations

import json
import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.config import SpikesConfig
from training.spikes import Shift, SpikeGuard, go_round, skipped_steps

CPU = torch.device("cpu")
LEAST = 0.5


def judge(guard: SpikeGuard, loss: float, norm: float = 1.0) -> bool:
    return bool(guard.judge(torch.tensor(loss, dtype=torch.float64), torch.tensor(norm, dtype=torch.float64)))


def test_decisions_are_those_of_the_last_steps_that_were_taken() -> None:
    random = np.random.default_rng(1)
    losses, norms = random.normal(3, 0.1, 400), random.lognormal(0, 0.3, 400)
    losses[[150, 151, 300]] = [4.0, math.nan, 3.7]
    norms[[220, 221]] = [9.0, math.inf]
    guard = SpikeGuard(SpikesConfig(sigma=5.0, window=32), CPU, LEAST)
    taken: list[int] = []
    for step in range(400):
        recent = taken[-32:]
        spike = len(recent) == 32 and any(
            values[step] > values[recent].mean() + 5 * values[recent].std(ddof=1) for values in (losses, norms)
        )
        harmful = bool(spike or not math.isfinite(losses[step] + norms[step]))
        assert judge(guard, losses[step], norms[step]) == harmful
        if not harmful:
            taken.append(step)
    assert {150, 151, 220, 221, 300} <= set(range(400)) - set(taken)


def test_spikes_are_looked_for_only_when_the_window_is_full() -> None:
    guard = SpikeGuard(SpikesConfig(window=4), CPU, LEAST)
    assert [judge(guard, loss) for loss in (1.0, 50.0, math.nan, 1.0, 1.1)] == [False, False, True, False, False]
    assert judge(guard, 1e9)
    assert not judge(SpikeGuard(SpikesConfig(sigma=None, window=2), CPU, LEAST), 1e9)


def test_a_norm_that_is_not_clipped_is_no_spike() -> None:
    guard = SpikeGuard(SpikesConfig(window=4), CPU, 0.5)
    assert not any(judge(guard, 2.0 + step / 10, 0.1 + step / 1e3) for step in range(4))
    assert not judge(guard, 2.0, 0.45)
    assert judge(guard, 2.0, 5.0)


def test_a_row_of_spikes_never_passes_for_normal() -> None:
    guard = SpikeGuard(SpikesConfig(window=8), CPU, LEAST)
    for step in range(8):
        assert not judge(guard, 2 + step % 2 / 10)
    assert all(judge(guard, 9.0) for _ in range(50))
    assert not judge(guard, 2.0)


def test_the_window_survives_a_checkpoint() -> None:
    random = np.random.default_rng(2)
    first, second = (SpikeGuard(SpikesConfig(window=16), CPU, LEAST) for _ in range(2))
    for loss in random.normal(3, 0.1, 21):
        judge(first, loss)
    second.load(json.loads(json.dumps(first.state())))
    for loss in random.normal(3, 0.4, 100):
        assert judge(first, loss, loss) == judge(second, loss, loss)
    second.load(None)
    assert second.state() == SpikeGuard(SpikesConfig(window=16), CPU, LEAST).state()


def test_rows_move_on_by_what_was_passed_over() -> None:
    once = go_round([], back=8, stop=13)
    assert once == [Shift(8, 5)]
    assert [step + skipped_steps(once, step) for step in (7, 8, 9)] == [7, 13, 14]
    twice = go_round(once, back=8, stop=11)
    assert [step + skipped_steps(twice, step) for step in (7, 8)] == [7, 16]
    assert go_round(once, back=12, stop=20) == [Shift(8, 5), Shift(12, 8)]
    assert go_round([Shift(8, 5), Shift(12, 8)], back=4, stop=14) == [Shift(4, 23)]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 10)), max_size=6))
def test_no_row_comes_twice_however_often_a_run_goes_back(rewinds: list[tuple[int, int]]) -> None:
    shifts: list[Shift] = []
    for back, length in rewinds:
        reached = back + length
        wanted = reached + skipped_steps(shifts, reached)
        before = [step + skipped_steps(shifts, step) for step in range(back)]
        shifts = go_round(shifts, back, reached)
        assert [step + skipped_steps(shifts, step) for step in range(back)] == before
        assert back + skipped_steps(shifts, back) == wanted
    places = [step + skipped_steps(shifts, step) for step in range(40)]
    assert places == sorted(set(places))
