"""Intervals for the figures: Wilson's for shares, the bootstrap for everything summed over documents or segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054
RESAMPLES = 1_000
_CHUNK_CELLS = 4_000_000


def wilson_interval(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927, JASA 22:209); half successes (ties) are fine. (0, 1) when n is 0."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def share_stderr(successes: float, n: int) -> float | None:
    """Standard error of a share, sample standard deviation over sqrt(n) as lm-evaluation-harness; None below two."""
    if n < 2:
        return None
    share = successes / n
    return math.sqrt(share * (1 - share) / (n - 1))


def bootstrap_ratio(
    numerators: npt.ArrayLike, denominators: npt.ArrayLike, *, seed: int, resamples: int = RESAMPLES
) -> tuple[float | None, tuple[float, float] | None]:
    """Standard error and 95 % percentile interval of sum(numerators) / sum(denominators), resampling the pairs.

    The standard error is the standard deviation of the resampled ratios (not divided by sqrt(resamples)).
    """
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    n = len(above)
    if n < 2:
        return None, None
    generator = np.random.default_rng(seed)
    ratios: list[npt.NDArray[np.float64]] = []
    chunk = max(1, _CHUNK_CELLS // n)
    for begin in range(0, resamples, chunk):
        weights = generator.multinomial(n, np.full(n, 1 / n), size=min(chunk, resamples - begin))
        ratios.append((weights @ above) / (weights @ below))
    return _spread(np.concatenate(ratios))


def bootstrap_groups(
    groups: Sequence[Sequence[int]], statistic: Callable[[list[int]], float], *, seed: int, resamples: int = RESAMPLES
) -> tuple[float | None, tuple[float, float] | None]:
    """Standard error and 95 % interval of `statistic(item indices)`, resampling whole groups (items of one page go together)."""
    if len(groups) < 2:
        return None, None
    generator = np.random.default_rng(seed)
    values = np.empty(resamples)
    for turn in range(resamples):
        drawn = generator.integers(0, len(groups), len(groups))
        values[turn] = statistic([item for group in drawn for item in groups[group]])
    return _spread(values)


def _spread(values: npt.NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(values.std(ddof=1)), (float(low), float(high))
