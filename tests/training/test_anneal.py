"""Annealing goes on from pretraining's last step, at its rate, on a mix of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.artifacts import Artifact
from cluster.errors import WorkError
from cluster.stage import StageContext
from cluster.storage import Folder
from pipelines.config import MixConfig
from pipelines.mix import make_mix
from pipelines.tokens import load_tokenizer
from tests.training.test_sft import conversation, write_instructions
from tests.training.tiny import job, settings
from training.anneal import CHAT_SOURCE, WriteChat, anneal_settings, make_job
from training.chat import encode_messages
from training.checkpoint import CHECKPOINTS, checkpoint_path
from training.config import AnnealConfig, AnnealJobConfig, OptimConfig
from training.loop import train
from training.metrics import METRICS, read_metrics
from training.schedule import learning_rate

PRETRAIN = settings(tokens=128 * 20, optim=OptimConfig(schedule="wsd", decay_ratio=0.0, warmup_ratio=0.1))
COUNTS = [
    {"source": name, "stream": lang, "family": "culture", "lang": lang, "copies": 1, "documents": 20, "bytes": 1000}
    for name, lang in (("alpha", "fr"), ("beta", "en"))
]
Make = Callable[..., StageContext]


def test_the_rate_falls_from_where_pretraining_was() -> None:
    anneal = AnnealConfig(tokens=128 * 10, decay_shape="sqrt", min_lr_ratio=0.1, seed=4)
    found = anneal_settings(PRETRAIN, anneal, 20)
    assert (found.tokens, found.seed, found.seq_len, found.batch_tokens) == (1280, 4, 16, 128)
    rates = [learning_rate(step, 10, found.optim) for step in range(10)]
    assert rates[0] < PRETRAIN.optim.learning_rate
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.1 * learning_rate(19, 20, PRETRAIN.optim))


def test_chat_examples_become_documents_of_tokens(tmp_path: Path, root: Path) -> None:
    instructions = write_instructions(tmp_path / "in", [conversation(number) for number in range(5)], [])
    tokenizer, out = Folder(str(root / "tokenizer")), Folder(str(tmp_path / "chat"))
    receipt = WriteChat(instructions, tokenizer, Folder(str(root / "tokens")), out)({"name": "chat"})
    source = out.read_json("index.json")["sources"][CHAT_SOURCE]
    written = np.fromfile(out.local_path(source["shards"][0]["path"]), "<u2").tolist()
    wanted = [token for number in range(5) for token in [*encode_messages(load_tokenizer(tokenizer), conversation(number))[0], 0]]
    assert written == wanted
    assert (receipt["documents"], receipt["tokens"], source["tokens"]) == (5, len(wanted), len(wanted))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens, a tokenizer, and `base`, a pretraining of 20 steps."""
    folder = tmp_path_factory.mktemp("anneal")
    train(job(folder, "base", PRETRAIN))
    return folder


@pytest.fixture
def context(stage_context: Make, tmp_path: Path, root: Path) -> Callable[..., StageContext]:
    """`context(mix, anneal)`: what the stage is given."""

    def make(main: MixConfig, **anneal: object) -> StageContext:
        folder = Folder(str(tmp_path / "mix"))
        folder.write_json("mix.json", make_mix(COUNTS, main))
        inputs = {name: Artifact(name, name[0], Folder(str(root / name)), {}) for name in ("tokens", "tokenizer")}
        inputs["pretrain"] = Artifact("pretrain", "p", Folder(str(root / "base")), {})
        inputs["mix"] = Artifact("mix", "m", folder, {"config": json.loads(main.model_dump_json())})
        inputs["instructions"] = Artifact("instructions", "i", folder, {})
        config = AnnealJobConfig(pretrain=PRETRAIN, anneal=AnnealConfig.model_validate({"tokens": 128 * 10, **anneal}))
        return stage_context("anneal", config, **inputs)

    return make


def test_annealing_goes_on_with_moments_on_its_own_mix(context: Make, root: Path) -> None:
    made = context(MixConfig(annealing={"sources": {"alpha": 0}}))  # type: ignore[arg-type]
    summary = train(replace(make_job(made), attempt="a"))
    assert set(summary["sources"]) == {"beta"}
    assert (summary["steps"], summary["tokens"]) == (10, summary["sources"]["beta"]["tokens"])
    before, after = (moments(folder) for folder in (checkpoint_path(root / "base" / CHECKPOINTS, 20), newest(made)))
    assert (before, after) == (20, 30)
    lines = [line for line in read_metrics(made.out.local_path(METRICS)) if line["kind"] == "train"]
    assert lines[-1]["lr"] == 0.0
    assert all(np.isfinite(line["loss"]) for line in lines)


def newest(made: StageContext) -> Path:
    return checkpoint_path(made.out.local_path(CHECKPOINTS), 10)


def moments(checkpoint: Path) -> int:
    """Updates that the optimizer of a checkpoint has made."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = FileSystemReader(checkpoint)
    name = next(name for name in reader.read_metadata().state_dict_metadata if name.endswith("embed_tokens.weight.step"))
    state = {name: torch.zeros(())}
    load(state, storage_reader=reader)
    return int(state[name])


@pytest.mark.parametrize(
    ("mix", "anneal", "shares"),
    [
        (MixConfig(), {}, {"alpha": 1.0, "beta": 1.0}),
        (MixConfig(annealing={"ratios": {"fr": 3.0}}), {}, {"alpha": 3.0, "beta": 1.0}),  # type: ignore[arg-type]
        (MixConfig(annealing={"ratios": {"fr": 3.0}}), {"mix": {"ratios": {"en": 2.0}}}, {"alpha": 1.0, "beta": 2.0}),  # type: ignore[arg-type]
    ],
)
def test_the_mix_is_its_own_else_the_mixs_annealing_else_pretrainings(
    context: Make, mix: MixConfig, anneal: dict[str, object], shares: dict[str, float]
) -> None:
    assert make_job(context(mix, **anneal)).data.ratios == shares  # type: ignore[attr-defined]


def test_a_source_without_tokens_is_refused(context: Make) -> None:
    missing = make_job(context(MixConfig())).data
    with pytest.raises(WorkError, match="no source gamma"):
        replace(missing, ratios={"gamma": 1.0})()  # type: ignore[type-var]
