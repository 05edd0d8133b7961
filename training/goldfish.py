"""The goldfish loss (Hans et al. 2024, arXiv 2406.10209): some targets are never learnt, so no long passage is learnt by heart.

Which ones depends on the tokens before them alone: a passage loses the same targets wherever it stands and however often it
comes, so what was dropped once is never made up for.
"""

from __future__ import annotations

import numpy as np

from training.config import GoldfishConfig
from training.data import IGNORE, Batch
from training.order import mix64

_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def drop_targets(batch: Batch, config: GoldfishConfig) -> Batch:
    """The batch without the targets whose `context` preceding tokens hash to the lowest 1 / `k` of all values.

    The first `context - 1` targets of a row have fewer tokens before them there and stay.
    """
    dropped = context_hashes(batch.tokens, config.context) < np.uint64(2**64 // config.k)
    targets = batch.targets.copy()
    targets[:, config.context - 1 :][dropped] = IGNORE
    return batch._replace(targets=targets)


def context_hashes(tokens: np.ndarray, context: int) -> np.ndarray:
    """Hashes (uint64 [B, T - context + 1]) of every `context` tokens in a row of `tokens` [B, T]: a polynomial, then splitmix64's end."""
    values = tokens.astype(np.uint64) + np.uint64(1)
    count = max(0, values.shape[1] - context + 1)
    hashes = np.zeros((values.shape[0], count), np.uint64)
    for place in range(context):
        hashes = mix64(hashes * _FACTOR + values[:, place : place + count])
    return hashes
