"""What the experiments make of their figures: pairs by seed, means, noise."""

from __future__ import annotations

import pytest

from benchmarks.annealing import ARMS, SMALL, compare, difference
from benchmarks.annealing import table as annealing_table
from benchmarks.mix_ratio import by_share, table
from fournil.recipe import load_recipe


def test_differences_are_taken_seed_by_seed() -> None:
    found = difference([1.0, 2.0, 3.0], [1.5, 2.4, 3.3])
    assert found["difference"] == pytest.approx(0.4)
    assert found["standard_error"] == pytest.approx(0.1 / 3**0.5)
    assert difference([1.0], [2.0])["standard_error"] is None


def test_both_arms_see_the_same_tokens_after_the_same_pretraining() -> None:
    first, second = (load_recipe("recipes/demo.yaml", [*SMALL, arm]) for arm in ARMS.values())
    assert first.anneal is not None
    assert second.anneal is not None
    assert first.anneal.tokens == second.anneal.tokens
    assert first.pretrain == second.pretrain
    assert first.sft == second.sft
    assert second.anneal.instructions > 0 == first.anneal.instructions


def test_a_comparison_has_a_row_a_figure() -> None:
    measured = {
        seed: {arm: ({"bits per byte, fr": 2.0 + seed + (arm == "B"), "minimal pairs, base, fr": 0.5}, {}) for arm in ARMS}
        for seed in (1, 2)
    }
    bits, pairs = compare(measured)
    assert (bits["ours"], bits["peer_value"]) == (4.5, 3.5)
    assert (bits["counts"]["difference"], bits["counts"]["standard_error"]) == (1.0, 0.0)
    assert pairs["counts"]["less_is_better"] is False
    assert "| bits per byte, fr | 3.5000 | 4.5000 | +1.0000 | 0.0000 |" in annealing_table([bits, pairs])


def test_the_mixes_are_sorted_by_their_french() -> None:
    trials = [
        {"shares": {"fr": share, "en": 1 - share}, "seed": seed, "loss": {"fr": 3 - share + seed, "en": 2.0}, "parameters": 1, "tokens": 2}
        for share in (0.9, 0.1)
        for seed in (0, 1)
    ]
    rows = by_share(trials)
    assert [entry["counts"]["french"] for entry in rows] == [0.1, 0.9]
    assert rows[0]["counts"]["deviation"]["fr"] == pytest.approx(0.5**0.5)
    assert table(rows)[2] == "| 10% | 3.400 ± 0.707 | 2.000 ± 0.000 | 2.700 |"
