"""The order of rows: exact shares in every window, every row once an epoch, and nothing remembered."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.errors import WorkError
from training.order import EMPTY_ROW, WINDOW_ROWS, Order, Permutation, floor_sum, share

Mix = list[tuple[int, float]]
SMALL = st.lists(st.tuples(st.integers(0, 40), st.floats(0, 5)), min_size=1, max_size=4)
LARGE = st.lists(st.tuples(st.one_of(st.integers(0, 3), st.integers(0, 3000)), st.floats(0, 3)), min_size=1, max_size=6)
SEEDS = st.integers(0, 50)


def order_of(mix: Mix, batch_rows: int, seed: int, total_rows: int | None = None) -> Order:
    counts, ratios = [count for count, _ in mix], [ratio for _, ratio in mix]
    assume(any(int(ratio) * count + int((ratio - int(ratio)) * count + 0.5) for count, ratio in mix))
    return Order(counts, ratios, batch_rows, seed, total_rows)


def seen(order: Order) -> list[int]:
    return [row for step in range(order.steps) for row in order.rows(step).tolist() if row != EMPTY_ROW]


def sources_of(order: Order) -> np.ndarray:
    """The source of each place of a run."""
    return np.searchsorted(np.cumsum(order.counts), seen(order), side="right")


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.text(max_size=5))
def test_permutation_is_a_bijection_and_knows_its_inverse(n: int, key: str) -> None:
    permutation = Permutation(n, key)
    values = permutation(np.arange(n))
    assert sorted(values.tolist()) == list(range(n))
    for place in {0, n // 3, n - 1}:
        assert permutation.place_of(int(values[place])) == place


def test_permutation_depends_on_its_key_and_leaves_no_order() -> None:
    places = np.arange(4096)
    one, two = Permutation(4096, "1")(places), Permutation(4096, "2")(places)
    assert (one == two).mean() < 0.01
    assert abs(np.corrcoef(one, places)[0, 1]) < 0.05
    assert np.abs(np.diff(one)).mean() == pytest.approx(4096 / 3, rel=0.05)


@given(st.integers(0, 60), st.integers(1, 99), st.integers(0, 200), st.integers(0, 500))
def test_floor_sum_is_the_sum_of_floors(terms: int, divisor: int, slope: int, start: int) -> None:
    assert floor_sum(terms, divisor, slope, start) == sum((slope * place + start) // divisor for place in range(terms))


@settings(deadline=None, max_examples=60)
@given(SMALL, st.integers(16, 64), SEEDS)
def test_each_row_is_seen_as_often_as_its_ratio_says(mix: Mix, batch_rows: int, seed: int) -> None:
    times = Counter(seen(order_of(mix, batch_rows, seed)))
    first = 0
    for count, ratio in mix:
        whole = int(ratio)
        rows = [times.pop(row, 0) for row in range(first, first + count)]
        assert set(rows) <= {whole, whole + 1}
        assert rows.count(whole + 1) == int((ratio - whole) * count + 0.5)
        first += count
    assert not times


@settings(deadline=None, max_examples=60)
@given(SMALL, st.integers(8, 64), SEEDS, st.integers(1, 900))
def test_no_row_comes_again_before_all_others_of_its_source(mix: Mix, batch_rows: int, seed: int, total_rows: int) -> None:
    """Also where a run goes through the mix several times, and stops anywhere."""
    order = order_of(mix, batch_rows, seed, total_rows)
    times, first = Counter(seen(order)), 0
    assert times.total() == total_rows
    for count in order.counts:
        found = [times[row] for row in range(first, first + count)]
        assert max(found, default=0) - min(found, default=0) <= 1
        first += count


@settings(deadline=None, max_examples=60)
@given(LARGE, SEEDS)
def test_every_window_has_each_sources_share_to_within_one_row(mix: Mix, seed: int) -> None:
    order = order_of(mix, 1 << 20, seed)
    sources, windows = sources_of(order), max(1, round(order.rows_in_pass / WINDOW_ROWS))
    shares = np.array(order.in_pass) / windows
    before = np.zeros(len(mix), np.int64)
    for window in range(1, windows + 1):
        after = np.array(order._before(window, 0))
        inside = np.bincount(sources[before.sum() : after.sum()], minlength=len(mix))
        assert (inside == after - before).all()
        assert (inside >= np.floor(shares)).all()
        assert (inside <= np.ceil(shares)).all()
        assert np.abs(after - window * shares).max() < 2 + np.log2(windows)  # any number of windows together
        before = after
    assert before.tolist() == order.in_pass


def test_windows_are_shuffled() -> None:
    order = Order([WINDOW_ROWS * 20, WINDOW_ROWS * 20], [1.0, 1.0], 1024, seed=1)
    sources = sources_of(order)
    repeats = (sources[1:] == sources[:-1]).mean()
    assert repeats == pytest.approx(0.5, abs=0.03)
    assert np.bincount(sources.reshape(-1, 8).sum(axis=1), minlength=9)[[2, 6]].min() > 0


@settings(deadline=None, max_examples=30)
@given(LARGE, st.integers(1, 500), SEEDS, st.integers(1, 12), st.data())
def test_order_is_a_pure_function_of_seed_and_step(mix: Mix, batch_rows: int, seed: int, length: int, data: st.DataObject) -> None:
    """A run resumed at any step sees the rows that it would have seen, and knows what it has seen without having seen it."""
    total_rows = data.draw(st.integers(batch_rows * (length - 1) + 1, batch_rows * length))
    going = order_of(mix, batch_rows, seed, total_rows)
    steps = [going.rows(step) for step in range(going.steps)]
    sources = sources_of(going)
    for step in data.draw(st.lists(st.integers(0, going.steps - 1), min_size=1, max_size=5)):
        resumed = order_of(mix, batch_rows, seed, total_rows)
        assert (resumed.rows(step) == steps[step]).all()
        assert resumed.seen(step) == np.bincount(sources[: step * batch_rows], minlength=len(mix)).tolist()
    assert going.seen(going.steps) == np.bincount(sources, minlength=len(mix)).tolist()


@settings(deadline=None, max_examples=40)
@given(SMALL, SEEDS, st.integers(0, 300), st.data())
def test_how_often_a_row_was_seen_is_known_without_counting(mix: Mix, seed: int, seen_rows: int, data: st.DataObject) -> None:
    order = order_of(mix, 8, seed)
    source = data.draw(st.sampled_from([place for place, count in enumerate(order.counts) if count]))
    row = data.draw(st.integers(0, order.counts[source] - 1))
    assert order.times(source, row, seen_rows) == order._rows_of(source, np.arange(seen_rows)).tolist().count(row)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9))
def test_workers_share_a_step_without_loss_in_equal_shapes(batch_rows: int, workers: int, micro_rows: int) -> None:
    rows = np.arange(batch_rows)
    parts = [share(rows, rank, workers, micro_rows) for rank in range(workers)]
    assert len({part.shape for part in parts}) == 1
    assert parts[0].shape[1] <= micro_rows
    assert [row for part in parts for row in part.ravel().tolist() if row != EMPTY_ROW] == rows.tolist()


def test_runs_longer_than_the_mix_go_on_with_rows_not_seen_yet() -> None:
    order = Order([10, 8], [1.0, 0.5], 7, seed=3, total_rows=28)
    rows = seen(order)
    assert sorted(rows) == sorted([*range(18), *range(10)])
    assert rows[:14] != rows[14:]


def test_a_corpus_of_trillions_of_tokens_needs_no_memory() -> None:
    order = Order([75_000_000] * 20, [1.7] * 20, 7_680, seed=1)
    step = order.steps - 2
    rows = order.rows(step)
    assert len(set(rows.tolist())) == 7_680
    even = np.array(order.seen(step)) - step * 7_680 / 20
    assert np.abs(even).max() < 10


def test_no_source_to_train_on_is_an_error() -> None:
    with pytest.raises(WorkError, match="nothing to train on"):
        Order([4, 0], [0.0, 2.0], 2, seed=1)
