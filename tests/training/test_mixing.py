"""From the rows of a ladder to a recommendation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from training.mixing import OBJECTIVE, analyse
from training.scaling import MixingLaw, ScalingLaw

SHARES = {"less": 0.2, "even": 0.5, "more": 0.8, "most": 0.9}
FLOOR = {"fr": MixingLaw(("fr",), 0.6, 0.8, (-2.5,)), "en": MixingLaw(("fr",), 0.7, 0.1, (2.0,))}
TARGET = (1e8, 1e10)


def rows(widths: int = 3, lengths: int = 3, seeds: int = 1, noise: float = 0.0) -> list[dict[str, Any]]:
    """Trials of a world where each stream's floor follows a mixing law, and size and length add the same to all."""
    random = np.random.default_rng(0)
    found = []
    for mix, share in SHARES.items():
        for size in (1e6, 3e6, 1e7)[:widths]:
            for length in (1e8, 3e8, 1e9)[:lengths]:
                for seed in range(seeds):
                    extra = ScalingLaw(0.0, 200.0, 300.0, 0.4, 0.35).loss(size, length)
                    loss = {stream: (law.loss({"fr": share}) + extra) * math.exp(random.normal(0, noise)) for stream, law in FLOOR.items()}
                    shares = {"en": 1 - share, "fr": share}
                    found.append({"mix": mix, "shares": shares, "parameters": size, "tokens": length, "seed": seed, "loss": loss})
    return found


def best_share() -> float:
    return math.log(0.8 * 2.5 / (0.1 * 2.0)) / 4.5


def test_the_mix_of_a_known_world_is_found_at_the_recipes_own_size() -> None:
    report = analyse(rows(), {}, TARGET, resamples=5)
    assert report["compared_at"] == {"parameters": 1e8, "tokens": 1e10, "how": "predicted by the laws"}
    assert report["objective"] == {"fr": 1.0, "en": 1.0}
    assert report["mixing"]["recommended"]["shares"]["fr"] == pytest.approx(best_share(), abs=0.02)
    extra = ScalingLaw(0.0, 200.0, 300.0, 0.4, 0.35).loss(*TARGET)
    wanted = sum(law.loss({"fr": 0.5}) + extra for law in FLOOR.values()) / 2
    assert report["laws"]["even"][OBJECTIVE]["target"] == pytest.approx(wanted, rel=1e-3)
    assert report["mixing"]["spare"] == 1
    assert report["noise"] is None


def test_few_trials_are_compared_where_they_were_measured() -> None:
    report = analyse(rows(widths=1, lengths=2, seeds=3, noise=0.002), {"fr": 1.0}, TARGET)
    assert report["compared_at"] == {"parameters": 1e6, "tokens": 3e8, "how": "measured (too few runs for laws)"}
    assert "6 runs of 1 sizes and 2 lengths" in report["laws"]["less"]["fr"]["missing"]
    assert report["mixing"]["recommended"]["shares"]["fr"] == pytest.approx(0.9)
    assert report["noise"] == pytest.approx(0.002 * np.mean([row["loss"]["fr"] for row in rows(1, 2)]), rel=0.5)


def test_laws_that_are_less_sure_than_the_mixes_differ_are_not_asked() -> None:
    report = analyse(rows(noise=0.1), {}, TARGET, resamples=5)
    assert report["compared_at"] == {"parameters": 1e7, "tokens": 1e9, "how": "measured (the laws are less sure than the mixes differ)"}


def test_two_mixes_have_no_curve_and_one_has_no_rival() -> None:
    two = analyse([row for row in rows(1, 1) if row["mix"] in ("less", "more")], {}, TARGET)
    assert "2 different mixes" in two["mixing"]["missing"]
    assert set(two["mixes"]) == {"less", "more"}
    assert analyse([row for row in rows(1, 1) if row["mix"] == "less"], {}, TARGET)["mixing"] is None
