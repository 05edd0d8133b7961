"""What `fournil scale` prints and draws of a report, and what it refuses."""

from __future__ import annotations

import io

import pytest

from cluster.errors import RequestError
from cluster.progress import Reporter
from cluster.storage import Folder
from fournil.recipe import load_recipe
from fournil.scale import describe_report, draw, recommendation, scale_recipe
from tests.training.test_mixing import TARGET, rows
from training.mixing import analyse


def test_a_ladder_with_laws_is_told_and_drawn() -> None:
    from matplotlib.image import imread

    report = analyse(rows(), {}, TARGET, resamples=5)
    lines = describe_report(report)
    assert lines["law of even"]["objective"].startswith("E ")
    assert "[" in lines["law of even"]["fr"]
    assert lines["mixes compared"] == "predicted by the laws at 100,000,000 parameters and 10,000,000,000 tokens"
    assert lines["recommended"].startswith("en 49% fr 51%, objective ")
    assert "one seed each" in lines["recommended"]
    picture = imread(io.BytesIO(draw(report)))
    assert min(picture.shape[:2]) > 600
    assert picture.std() > 0.05


def test_few_trials_say_what_is_missing() -> None:
    trials = [row for row in rows(1, 1, seeds=2) if row["mix"] in ("less", "more")]
    for row in trials:
        row["loss"] = {stream: loss + 0.5 * row["seed"] for stream, loss in row["loss"].items()}
    report = analyse(trials, {}, TARGET)
    lines = describe_report(report)
    assert "too few points: 2 runs of 1 sizes" in lines["law of less"]["objective"]
    assert "no curve between mixes: 2 different mixes" in lines["recommended"]
    assert "less than twice the noise" in lines["recommended"]
    assert draw(report)
    alone = analyse([row for row in rows(1, 1) if row["mix"] == "less"], {}, TARGET)
    assert recommendation(alone) == "none: one mix was tried"
    assert "give more under scale.mixes" in describe_report(alone)["mixes compared"]
    assert draw(alone)


def test_a_recipe_without_tokens_is_told_what_to_bake(storage: Folder) -> None:
    with pytest.raises(RequestError, match="fournil bake RECIPE --until tokens"):
        scale_recipe(load_recipe("recipes/demo.yaml"), storage, address="local", at_once=None, reporter=Reporter())
