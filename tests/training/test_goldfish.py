from __future__ import annotations

import numpy as np
import pytest

from training.config import GoldfishConfig
from training.data import IGNORE, Batch
from training.goldfish import context_hashes, drop_targets

MASK = (1 << 64) - 1


def made(rows: int, length: int, seed: int = 1) -> Batch:
    tokens = np.random.default_rng(seed).integers(0, 8_192, (rows, length + 1))
    return Batch(tokens[:, :-1], tokens[:, 1:], None)


def plain_hash(context: list[int]) -> int:
    value = 0
    for token in context:
        value = (value * 0x9E3779B97F4A7C15 + token + 1) & MASK
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
        value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
        value ^= value >> 31
    return value


def test_hashes_are_those_of_the_tokens_before_each_target() -> None:
    tokens = made(2, 20).tokens
    hashes = context_hashes(tokens, 5)
    assert hashes.shape == (2, 16)
    assert all(int(hashes[row, end - 5]) == plain_hash(tokens[row, end - 5 : end].tolist()) for row in range(2) for end in range(5, 21))


@pytest.mark.parametrize("k", [2, 4, 50])
def test_one_target_in_k_is_dropped_and_nothing_else_changes(k: int) -> None:
    batch = made(100, 512)
    config = GoldfishConfig(k=k)
    after = drop_targets(batch, config)
    gone = after.targets == IGNORE
    assert not gone[:, : config.context - 1].any()
    share = gone[:, config.context - 1 :].mean()
    assert abs(share - 1 / k) < 5 * (1 / k / 50_000) ** 0.5
    assert (after.targets[~gone] == batch.targets[~gone]).all()
    assert after.tokens is batch.tokens
    assert (batch.targets != IGNORE).all()


def test_a_passage_loses_the_same_targets_wherever_it_stands() -> None:
    config = GoldfishConfig(k=3, context=4)
    passage = np.random.default_rng(3).integers(0, 600, 60)
    rows = np.random.default_rng(4).integers(0, 600, (3, 100))
    for row, place in enumerate((0, 7, 39)):
        rows[row, place : place + 60] = passage
    gone = drop_targets(Batch(rows[:, :-1], rows[:, 1:], None), config).targets == IGNORE
    first, second, third = (gone[row, place + 4 : place + 58] for row, place in enumerate((0, 7, 39)))
    assert (first == second).all()
    assert (first == third).all()
    assert 5 < first.sum() < 40


def test_short_rows_keep_their_targets() -> None:
    batch = made(2, 6)
    assert (drop_targets(batch, GoldfishConfig(k=2)).targets == batch.targets).all()
