"""Fine-tuning under Ray Train on the weights of a small base model, and the packing of chat examples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cluster.artifacts import Artifact
from cluster.errors import RequestError
from cluster.stage import Resources, StageContext
from cluster.storage import Folder
from pipelines.tokens import load_tokenizer
from tests.training.tiny import MODEL, VOCAB, job, settings, write_chat_tokenizer
from training import sft
from training.chat import encode_messages
from training.config import OptimConfig, SftConfig
from training.data import EMPTY_ROW, IGNORE
from training.loop import train
from training.metrics import METRICS, read_metrics
from training.model import Llama, init_weights
from training.objectives import next_token, on_device
from training.packing import PACKED, PackedRows, PackSplit, fill_rows, pack

Make = Callable[..., StageContext]

CONFIG = SftConfig(
    seq_len=48,
    batch_tokens=192,
    micro_batch_tokens=96,
    epochs=1.5,
    precision="fp32",
    compile=False,
    checkpoint_every=10,
    eval_every=5,
    eval_tokens=48,
    optim=OptimConfig(learning_rate=5e-3),
)


def conversation(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Compte {number}"}, {"role": "assistant", "content": f"{number} {number + 1}"}]


def write_instructions(root: Path, train: list[Any], heldout: list[Any]) -> Folder:
    folder = Folder(str(root))
    for name, examples in (("train", train), ("heldout", heldout)):
        places = range(len(examples))
        rows = {"id": [str(place) for place in places], "source": [f"s{place % 3}" for place in places]}
        rows["messages"] = [json.dumps(messages) for messages in examples]
        folder.write_table(f"{name}.parquet", pa.table(rows, schema=pa.schema([(column, pa.string()) for column in rows])))
    return folder


lengths = st.lists(st.integers(1, 50), max_size=80)


@hypothesis_settings(deadline=None)
@given(lengths)
def test_packing_puts_each_example_in_one_row_that_holds_it(sizes: list[int]) -> None:
    rows = pack(sizes, 50)
    assert sorted(example for row in rows for example in row) == list(range(len(sizes)))
    loads = [sum(sizes[example] for example in row) for row in rows]
    assert all(load <= 50 for load in loads)
    assert sum(load <= 25 for load in loads) <= 1
    assert rows == pack(sizes, 50)


def test_packing_chooses_the_tightest_row() -> None:
    assert pack([6, 5, 3, 4, 2], 10) == [[0, 3], [1, 2, 4]]


@hypothesis_settings(deadline=None)
@given(lengths)
def test_rows_hold_examples_whole_with_their_own_segment(sizes: list[int]) -> None:
    random = np.random.default_rng(len(sizes))
    examples = [(random.integers(1, 99, size), np.where(random.random(size) < 0.5, 7, IGNORE)) for size in sizes]
    rows = pack(sizes, 50)
    tokens, targets, segments = fill_rows(examples, rows, 50)
    for row, members in enumerate(rows):
        for number, example in enumerate(members, start=1):
            there = segments[row] == number
            assert tokens[row, there].tolist() == examples[example][0].tolist()
            assert targets[row, there].tolist() == examples[example][1].tolist()
    assert (targets[segments == 0] == IGNORE).all()


def test_only_the_assistant_is_learnt_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    tokenizer = write_chat_tokenizer(Folder(str(tmp_path / "tokenizer")))
    long = [{"role": "user", "content": "a b c d " * 60}, {"role": "assistant", "content": "oui"}]
    silent = [{"role": "user", "content": "Bonjour"}]
    folder = write_instructions(tmp_path / "in", [conversation(1), long, silent, conversation(2)], [])
    out = Folder(str(tmp_path / "out"))
    receipt = PackSplit(folder, tokenizer, out, 48)({"name": "train"})
    assert (receipt["examples"], receipt["too_long"], receipt["without_answer"]) == (2, 1, 1)
    batch = PackedRows(out.local_path(PACKED), "train", 48).read(np.arange(receipt["rows"]))
    loaded = load_tokenizer(tokenizer)
    learnt = []
    for number in (1, 2):
        ids, mask = encode_messages(loaded, conversation(number))
        learnt += [token for token, wanted in zip(ids, mask, strict=True) if wanted]
    assert sorted(batch.targets[batch.targets != IGNORE].tolist()) == sorted(learnt)
    assert receipt["target_tokens"] == len(learnt)


def test_packed_examples_do_not_see_each_other(tmp_path: Path) -> None:
    """The loss of a packed batch is the sum of the losses of its examples one by one."""
    tokenizer = write_chat_tokenizer(Folder(str(tmp_path / "tokenizer")))
    conversations = [conversation(number) for number in range(12)]
    out = Folder(str(tmp_path / "out"))
    receipt = PackSplit(write_instructions(tmp_path / "in", conversations, []), tokenizer, out, 64)({"name": "train"})
    assert receipt["rows"] < 12
    model = Llama(MODEL, VOCAB)
    init_weights(model, 1)
    batch = PackedRows(out.local_path(PACKED), "train", 64).read(np.arange(receipt["rows"]))
    assert batch.segments is not None
    tokens, targets, segments = (torch.from_numpy(array) for array in (batch.tokens, batch.targets, batch.segments))
    alone = 0.0
    with torch.no_grad():
        for messages in conversations:
            ids, mask = encode_messages(load_tokenizer(tokenizer), messages)
            wanted = torch.tensor([token if flag else IGNORE for token, flag in zip(ids, mask, strict=True)])
            alone += model(torch.tensor([ids[:-1]]), wanted[None, 1:]).item()
        assert model(tokens, targets, segments).item() == pytest.approx(alone, rel=1e-5)


def test_a_weighted_source_counts_in_loss_and_divisor(tmp_path: Path) -> None:
    """The loss of a step is the weighted sum of the examples' losses over the weights of their targets, however they are packed."""
    tokenizer = write_chat_tokenizer(Folder(str(tmp_path / "tokenizer")))
    conversations, weights = [conversation(number) for number in range(11)], {"s1": 2.5, "s2": 0.25}
    out = Folder(str(tmp_path / "out"))
    packer = PackSplit(write_instructions(tmp_path / "in", conversations, []), tokenizer, out, 64)
    receipt = packer({"name": "train", "weights": weights})
    rows = PackedRows(out.local_path(PACKED), "train", 64, weighted=True)
    assert 1 < receipt["rows"] == len(rows) < 11
    model = Llama(MODEL, VOCAB)
    init_weights(model, 1)
    loss, divisor, plain = 0.0, 0.0, 0
    with torch.no_grad():
        for place, messages in enumerate(conversations):
            ids, mask = encode_messages(load_tokenizer(tokenizer), messages)
            wanted = torch.tensor([token if flag else IGNORE for token, flag in zip(ids, mask, strict=True)])
            weight = weights.get(f"s{place % 3}", 1.0)
            loss += weight * model(torch.tensor([ids[:-1]]), wanted[None, 1:]).item()
            divisor, plain = divisor + weight * sum(mask), plain + sum(mask)
        batch = on_device(rows.read(np.array([*range(len(rows)), EMPTY_ROW])), torch.device("cpu"))
        found = next_token(model, batch)
        unweighted = next_token(
            model, on_device(PackedRows(out.local_path(PACKED), "train", 64).read(np.arange(len(rows))), torch.device("cpu"))
        )
    assert found[0].item() == pytest.approx(loss, rel=1e-5)
    assert found[1].item() == pytest.approx(divisor)
    assert (unweighted[1].item(), receipt["target_tokens"]) == (plain, plain)


@pytest.mark.usefixtures("ray_session")
def test_two_workers_fine_tune_the_base_model(stage_context: Make, tmp_path: Path) -> None:
    base_config = settings(tokens=128 * 10)
    train(job(tmp_path, "base", base_config))
    inputs = {
        "pretrain": Artifact("pretrain", "p", Folder(str(tmp_path / "base")), {}),
        "tokenizer": Artifact("tokenizer", "k", Folder(str(tmp_path / "tokenizer")), {}),
        "instructions": Artifact(
            "instructions",
            "i",
            write_instructions(tmp_path / "in", [conversation(n) for n in range(150)], [conversation(n) for n in range(150, 160)]),
            {},
        ),
    }
    context = stage_context("sft", CONFIG, resources=Resources(workers=2, cpus_per_worker=1), **inputs)
    summary = sft.run(context)
    lines = [line for line in read_metrics(context.out.local_path(METRICS)) if line["kind"] == "eval"]
    assert summary["heldout"]["chat"]["nats_per_token"] < lines[0]["heldout"]["chat"]
    assert summary["heldout"]["chat"]["bits_per_byte"] is None
    assert summary["examples"]["train"]["examples"] == 150
    assert summary["workers"] == 2
    assert context.out.read_json("export/generation_config.json")["eos_token_id"] != 0
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= {
        name.removeprefix("export/") for name in context.out.names(under="export")
    }
    assert sft.run(context) == summary

    nothing = write_instructions(tmp_path / "none", [], [])
    empty = stage_context("sft", CONFIG, key="empty", **{**inputs, "instructions": Artifact("instructions", "n", nothing, {})})
    with pytest.raises(RequestError, match="no chat example to train on"):
        sft.run(empty)
