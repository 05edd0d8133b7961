"""Which rows each step takes: a pure function of the seed and the step, in constant memory.

    step -> places in the order -> window of the pass -> source, and how many of its rows came before -> row

A source of R rows and ratio r gives n = floor(r) * R + round((r - floor(r)) * R) rows to one pass through the mix. The N
places of a pass are cut into K windows of about `WINDOW_ROWS`; with the sources' n laid end to end on a line (F_0 = 0 ...
F_m = N), source s has in window w

    floor((F_s+1 + t_w) / K) - floor((F_s + t_w) / K) rows,    t_w = (g * w + c) mod K,    gcd(g, K) = 1

which is n / K rounded down or up: systematic sampling with one step of the line's grid for each window. As t_w takes each
value 0 ... K-1 once, Hermite's identity makes the K windows sum to exactly n; g near K divided by the golden ratio keeps
the sums of any few windows even; and what came before window w is a sum of floors of a linear function, which Euclid's
algorithm gives in O(log K). A window's rows are shuffled; the k-th row of a source, counted through all passes, is row
`Permutation(k mod R)` of its copy `k // R`, so no row comes again before all others of its source have.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from cluster.errors import WorkError

EMPTY_ROW = -1
WINDOW_ROWS = 256
FEISTEL_ROUNDS = 8
GOLDEN = (math.sqrt(5) - 1) / 2


class Order:
    """The order of rows over sources with `counts` rows that are seen `ratios` times a pass.

    Rows are numbered source after source. A run of `total_rows` (None: one pass) longer than the mix begins it again,
    with other rows of the sources that a pass does not see whole.
    """

    def __init__(self, counts: Sequence[int], ratios: Sequence[float], batch_rows: int, seed: int, total_rows: int | None = None) -> None:
        self.batch_rows, self.seed, self.counts = batch_rows, seed, list(counts)
        self.in_pass = [_drawn(count, ratio) for count, ratio in zip(counts, ratios, strict=True)]
        self._firsts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        self._line = np.concatenate([[0], np.cumsum(self.in_pass)]).astype(np.int64)
        self.rows_in_pass = int(self._line[-1])
        if self.rows_in_pass == 0:
            raise WorkError("there is nothing to train on: no source has tokens and a ratio above 0")
        self._windows = max(1, round(self.rows_in_pass / WINDOW_ROWS))
        self._stride = _coprime(self._windows)
        self.total_rows = self.rows_in_pass if total_rows is None else total_rows
        self.steps = math.ceil(self.total_rows / batch_rows)

    def rows(self, step: int, skipped: int = 0) -> np.ndarray:
        """The `batch_rows` row numbers of a step; the last step is filled up with `EMPTY_ROW`.

        A run that passed over the rows of `skipped` steps has those of as many steps later, and no fewer of them.
        """
        first = (step + skipped) * self.batch_rows
        rows = np.full(self.batch_rows, EMPTY_ROW, np.int64)
        sources, turns = self._turns(first, first + min(self.batch_rows, self.total_rows - step * self.batch_rows))
        for source in np.unique(sources).tolist():
            chosen = np.flatnonzero(sources == source)
            rows[chosen] = self._firsts[source] + self._rows_of(source, turns[chosen])
        return rows

    def seen(self, step: int, skipped: int = 0) -> list[int]:
        """Rows of each source in the order up to where a run is before `step` that passed over the rows of `skipped` steps."""
        place = min(step * self.batch_rows, self.total_rows) + skipped * self.batch_rows
        number, rest = divmod(place, self.rows_in_pass)
        window = self._window_at(rest, number)
        before = self._before(window, number)
        sources, _ = self._turns(place - (rest - sum(before)), place)
        inside = np.bincount(sources, minlength=len(self.counts)).tolist()
        return [number * n + count + more for n, count, more in zip(self.in_pass, before, inside, strict=True)]

    def times(self, source: int, row: int, seen: int) -> int:
        """How often row `row` of a source is among the source's first `seen` rows."""
        copies, rest = divmod(seen, self.counts[source])
        return copies + (self._copy(source, copies).place_of(row) < rest)

    def _turns(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The source of each place `first ... stop - 1`, and how many rows of it came before, through all passes."""
        sources, turns, place = [np.empty(0, np.int64)], [np.empty(0, np.int64)], first
        while place < stop:
            number, rest = divmod(place, self.rows_in_pass)
            end = min(stop - place + rest, self.rows_in_pass)
            found = self._turns_in_pass(number, rest, end)
            sources.append(found[0])
            turns.append(found[1] + number * np.array(self.in_pass)[found[0]])
            place += end - rest
        return np.concatenate(sources), np.concatenate(turns)

    def _turns_in_pass(self, number: int, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """`_turns` within one pass, window after window."""
        window = self._window_at(first, number)
        before = np.array(self._before(window, number), np.int64)
        start, sources, turns = int(before.sum()), [], []
        while start < stop:
            grid = (self._stride * window + self._offset(number)) % self._windows
            counts = np.diff((self._line + grid) // self._windows)
            chosen = np.repeat(np.arange(len(counts)), counts)[_shuffled(int(counts.sum()), f"{self.seed}/pass/{number}/window/{window}")]
            rank = np.empty_like(chosen)
            rank[np.argsort(chosen, kind="stable")] = np.arange(len(chosen))
            inside = slice(max(0, first - start), stop - start)
            sources.append(chosen[inside])
            turns.append(((before - np.cumsum(counts) + counts)[chosen] + rank)[inside])
            start, before, window = start + len(chosen), before + counts, window + 1
        return np.concatenate(sources), np.concatenate(turns)

    def _before(self, window: int, number: int) -> list[int]:
        """Rows of each source in the windows of pass `number` before `window`."""
        sums = [floor_sum(window, self._windows, self._stride, self._offset(number) + end) for end in self._line.tolist()]
        return [after - before for before, after in pairwise(sums)]

    def _window_at(self, place: int, number: int) -> int:
        """The window of pass `number` that holds `place`: the sizes of windows differ by one row, so a guess is near."""

        def start(window: int) -> int:
            ends = (self._offset(number), self._offset(number) + self.rows_in_pass)
            before, after = (floor_sum(window, self._windows, self._stride, end) for end in ends)
            return after - before

        window = place * self._windows // self.rows_in_pass
        while start(window) > place:
            window -= 1
        while start(window + 1) <= place:
            window += 1
        return window

    def _offset(self, number: int) -> int:
        return _number(f"{self.seed}/pass/{number}") % self._windows

    def _rows_of(self, source: int, turns: np.ndarray) -> np.ndarray:
        """The rows of a source, counted from its first, that come after `turns` others of it."""
        copies, within = np.divmod(turns, self.counts[source])
        for copy in np.unique(copies).tolist():
            chosen = copies == copy
            within[chosen] = self._copy(source, copy)(within[chosen])
        return within

    def _copy(self, source: int, copy: int) -> Permutation:
        return _permutation(self.counts[source], f"{self.seed}/source/{source}/copy/{copy}")


def _drawn(count: int, ratio: float) -> int:
    whole = math.floor(ratio)
    return whole * count + math.floor((ratio - whole) * count + 0.5)


def _coprime(n: int) -> int:
    """The number nearest to n divided by the golden ratio that has no divisor in common with n."""
    guess = max(1, round(n * GOLDEN))
    return next(number for off in range(n) for number in (guess - off, guess + off) if number > 0 and math.gcd(number, n) == 1)


def floor_sum(terms: int, divisor: int, slope: int, start: int) -> int:
    """Sum of floor((slope * i + start) / divisor) over i = 0 ... terms - 1, by Euclid's algorithm on (slope, divisor)."""
    total = 0
    while True:
        total += terms * (terms - 1) // 2 * (slope // divisor) + terms * (start // divisor)
        slope, start = slope % divisor, start % divisor
        top = slope * terms + start
        if top < divisor:
            return total
        terms, start = divmod(top, divisor)
        divisor, slope = slope, divisor


def share(rows: np.ndarray, rank: int, workers: int, micro_rows: int) -> np.ndarray:
    """The part of a step's rows that falls to one worker: [micro-batches, rows], the same shape on every worker.

    Micro-batches are as large as they can be with at most `micro_rows` rows and as few empty rows as that allows.
    """
    each = math.ceil(len(rows) / workers)
    count = math.ceil(each / micro_rows)
    size = math.ceil(each / count)
    mine = rows[rank * each : (rank + 1) * each]
    filled = np.full(count * size, EMPTY_ROW, np.int64)
    filled[: len(mine)] = mine
    return filled.reshape(count, size)


class Permutation:
    """A keyed bijection of 0 ... n-1 in constant memory.

    A balanced Feistel network over the next even power of two, walked again while it lands outside (cycle walking;
    Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Not a cipher: the round function is splitmix64's.
    """

    def __init__(self, n: int, key: str) -> None:
        self.n = n
        self._half = np.uint64(max(1, math.ceil((n - 1).bit_length() / 2)))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        digest = hashlib.blake2b(f"{key}/{n}".encode(), digest_size=8 * FEISTEL_ROUNDS).digest()
        self._keys = np.frombuffer(digest, "<u8")

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Where each of `places` (int64, inside 0 ... n-1) goes."""
        values = self._scramble(places.astype(np.uint64), self._keys)
        while (outside := values >= self.n).any():
            values[outside] = self._scramble(values[outside], self._keys)
        return values.astype(np.int64)

    def place_of(self, value: int) -> int:
        """The place that goes to `value`: the same network with its halves swapped and its keys in reverse."""
        values = np.array([value], np.uint64)
        while True:
            values = self._swapped(self._scramble(self._swapped(values), self._keys[::-1]))
            if values[0] < self.n:
                return int(values[0])

    def _scramble(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        left, right = values >> self._half, values & self._mask
        for round in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (mix64(right + keys[round : round + 1]) & self._mask)
        return left << self._half | right

    def _swapped(self, values: np.ndarray) -> np.ndarray:
        return (values & self._mask) << self._half | values >> self._half


_permutation = lru_cache(maxsize=1024)(Permutation)


def _shuffled(n: int, key: str) -> np.ndarray:
    """0 ... n-1 in an order that the key gives."""
    return np.argsort(mix64(np.arange(n, dtype=np.uint64) + np.uint64(_number(key))), kind="stable")


@lru_cache(maxsize=1024)
def _number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def mix64(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
