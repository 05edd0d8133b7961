"""Ladders: which trials there are, that their mixes are what was asked for, and a real one in Ray tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.artifacts import Artifact
from cluster.errors import RequestError, WorkError
from cluster.stage import Resources
from cluster.storage import Folder
from tests.training.tiny import MODEL, VOCAB, settings, write_chat_tokenizer, write_tokens
from training.config import ModelConfig, PretrainConfig, ScaleConfig
from training.data import seen_by_source, token_order
from training.flops import flops_per_token
from training.ladder import OWN_MIX, Trial, make_trials, own_shares, run_trials, shape_of_width

BASE = settings(tokens=128 * 10)
TWO = Resources(workers=2, cpus_per_worker=1)


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Artifact, Artifact]:
    tokens, tokenizer = write_tokens(tmp_path / "tokens"), write_chat_tokenizer(Folder(str(tmp_path / "tokenizer")))
    return Artifact("tokens", "t", tokens, {}), Artifact("tokenizer", "k", tokenizer, {})


def ladder(inputs: tuple[Artifact, Artifact], base: PretrainConfig = BASE, **scale: Any) -> list[Trial]:
    return make_trials(ScaleConfig(**{"widths": (16, 32), "tokens": (256,), **scale}), MODEL, base, *inputs)


def test_a_ladder_is_every_mix_width_length_and_seed_once(inputs: tuple[Artifact, Artifact]) -> None:
    mixes = {"less": {"fr": 1, "en": 3}, "more": {"fr": 3, "en": 1}}
    trials = ladder(inputs, mixes=mixes, tokens=(256, 512), seeds=(1, 2))
    assert len({trial.hash for trial in trials}) == len(trials) == 2 * 2 * 2 * 2
    assert [trial.hash for trial in trials] == [trial.hash for trial in ladder(inputs, mixes=mixes, tokens=(256, 512), seeds=(1, 2))]
    assert {trial.settings.keep_checkpoints for trial in trials} == {1}
    first = trials[0]
    assert first.shares == {"en": 0.75, "fr": 0.25}
    flops = [tokens * flops_per_token(model, VOCAB, 16) for tokens, model in ((256, first.model), (1_280, MODEL))]
    assert first.settings.optim.learning_rate == pytest.approx(BASE.optim.learning_rate * (flops[0] / flops[1]) ** -0.125, rel=1e-3)
    (alone,) = ladder(inputs, widths=(32,))
    assert (alone.mix, alone.model) == (OWN_MIX, MODEL)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_streams_have_the_shares_that_a_mix_asks_for(inputs: tuple[Artifact, Artifact], share: float) -> None:
    """Counted over the rows of a run much longer than the data."""
    (trial,) = ladder(inputs, widths=(32,), mixes={"one": {"fr": share, "en": 1 - share}}, tokens=(100_000,))
    index = inputs[0].folder.read_json("index.json")
    seen = seen_by_source(*token_order(index, trial.settings, trial.ratios))
    total = sum(entry["rows"] for entry in seen.values())
    assert seen["alpha"]["rows"] / total == pytest.approx(share, abs=0.01)
    assert own_shares(index)["fr"] == pytest.approx(
        1 / (1 + 1.5 * index["sources"]["beta"]["tokens"] / index["sources"]["alpha"]["tokens"])
    )


def test_shapes_keep_the_proportions_of_the_recipe() -> None:
    shape = shape_of_width(ModelConfig(), 128)
    assert (shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers) == (128, 352, 3)
    assert (shape.num_attention_heads, shape.num_key_value_heads) == (8, 4)
    with pytest.raises(RequestError, match=r"scale.widths 36 does not suit the recipe's model: hidden_size must be a multiple"):
        shape_of_width(ModelConfig(), 36)


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ({"tokens": (64,)}, "less than one step"),
        ({"mixes": {"odd": {"de": 1}}}, r"scale.mixes.odd must give shares to streams that have tokens, which are en, fr"),
        ({"mixes": {"none": {"fr": 0}}}, "scale.mixes.none"),
        ({"objective": {"de": 1}}, "held-out streams, which are en, fr"),
        ({"objective": {"fr": 0}}, "scale.objective"),
        ({"widths": (36,)}, "scale.widths 36"),
    ],
)
def test_what_says_nothing_is_refused_before_any_work(inputs: tuple[Artifact, Artifact], scale: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        ladder(inputs, **scale)


@pytest.mark.usefixtures("ray_session")
def test_two_trials_train_in_tasks_and_the_second_time_nothing_does(inputs: tuple[Artifact, Artifact], storage: Folder) -> None:
    trials = ladder(inputs, widths=(32,), mixes={"less": {"fr": 1, "en": 3}, "more": {"fr": 3, "en": 1}})
    said: list[str] = []

    def run(trials: list[Trial]) -> list[dict[str, Any]]:
        tokens, tokenizer = (artifact.folder for artifact in inputs)
        return run_trials(trials, storage, tokens, tokenizer, resources=TWO, at_once=2, say=said.append)

    rows = run(trials)
    assert [row["mix"] for row in rows] == ["less", "more"]
    assert said[0] == "2 trials, 0 kept from before"
    assert {row["tokens"] for row in rows} == {256}
    assert all(0 < loss < 20 for row in rows for loss in row["loss"].values())
    assert rows[0]["loss"] != rows[1]["loss"]
    assert rows[0]["epochs"]["beta"] > rows[1]["epochs"]["beta"]
    json.dumps(rows)
    place = storage / "artifacts/trial" / trials[0].hash
    assert {"manifest.json", "metrics.jsonl", "summary.json"} <= set(place.names())
    assert not place.exists("checkpoints")
    before = {name: (storage / "artifacts" / "trial").size(name) for name in (storage / "artifacts/trial").names()}
    assert run(trials) == rows
    assert said[-1] == "2 trials, 2 kept from before"
    assert {name: (storage / "artifacts" / "trial").size(name) for name in (storage / "artifacts/trial").names()} == before

    (lost,) = ladder(inputs, widths=(32,), seeds=(2,))
    with pytest.raises(WorkError, match=r"trial recipe, width 32, 256 tokens, seed 2 failed \(.*kept and the same command goes on"):
        run_trials([lost], storage, Folder(f"{storage.url}/none"), inputs[1].folder, resources=TWO, at_once=2, say=said.append)
