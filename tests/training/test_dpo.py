"""Preference optimisation: trl's loss and gradients, exact packing of pairs, the reference computed once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from cluster.artifacts import Artifact
from cluster.stage import Resources, StageContext
from cluster.storage import Folder
from pipelines.tokens import load_tokenizer
from tests.training.tiny import MODEL, VOCAB, SlowInput, job, settings, write_chat_tokenizer
from training import dpo
from training.chat import encode_messages
from training.config import DpoConfig, LoraConfig, OptimConfig
from training.data import IGNORE
from training.distributed import open_world
from training.dpo import PackPairs, PairInput, PairRows, ReferencePass, _answer
from training.export import export_model
from training.heldout import evaluate
from training.loop import train
from training.model import Llama, init_weights
from training.objectives import Preference, Preferred, on_device, pair_loss
from training.packing import PACKED, PackedRows

SCHEMA = pa.schema([(name, pa.string()) for name in ("messages", "chosen", "rejected")])
SHAPE = MODEL.model_copy(update={"max_position_embeddings": 128})
CONFIG = DpoConfig(
    seq_len=128,
    batch_tokens=384,
    micro_batch_tokens=128,
    epochs=4,
    precision="fp32",
    compile=False,
    checkpoint_every=4,
    eval_tokens=128,
    optim=OptimConfig(learning_rate=3e-3),
)


def pair(number: int) -> dict[str, str]:
    """After two turns the right number is the better answer; some answers are longer than others."""
    turns = [("user", f"{number}"), ("assistant", f"{number}"), ("user", "?")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    return {"messages": json.dumps(prompt), "chosen": f"{number + 1}" * (1 + number % 3), "rejected": f"non, {number}"}


def write_preferences(folder: Folder, pairs: int = 24) -> Folder:
    for name, numbers in (("train", range(pairs)), ("heldout", range(pairs, pairs + 5))):
        folder.write_table(f"{name}.parquet", pa.Table.from_pylist([pair(number) for number in numbers], schema=SCHEMA))
    return folder


def write_packed(root: Path, out: Folder | None = None) -> dict[str, dict[str, Any]]:
    """Tokenizer and preferences below `root`, packed pairs in `out` (`root/pairs`); the receipts of both splits."""
    tokenizer = Folder(str(root / "tokenizer"))
    if not tokenizer.exists():
        write_chat_tokenizer(tokenizer)
    preferences = write_preferences(Folder(str(root / "preferences")))
    packer = PackPairs(preferences, tokenizer, out or Folder(str(root / "pairs")), CONFIG.seq_len)
    return {name: packer({"name": name}) for name in ("train", "heldout")}


def model_of(seed: int) -> Llama:
    model = Llama(SHAPE.model_copy(update={"initializer_range": 0.1}), VOCAB)
    init_weights(model, seed)
    return model


def test_a_row_has_both_answers_of_its_pairs_and_only_the_last_turn_is_learnt(tmp_path: Path) -> None:
    receipts = write_packed(tmp_path)
    assert (receipts["train"]["pairs"], receipts["heldout"]["pairs"], receipts["train"]["too_long"]) == (24, 5, 0)
    tokenizer = load_tokenizer(Folder(str(tmp_path / "tokenizer")))
    rows = PackedRows(tmp_path / "pairs" / PACKED, "train", CONFIG.seq_len)
    batch = rows.read(np.arange(len(rows)))
    assert batch.segments is not None
    found = []
    for row in range(len(rows)):
        answers = [batch.targets[row][(batch.segments[row] == number) & (batch.targets[row] != IGNORE)] for number in range(1, 9)]
        texts = [tokenizer.decode(answer.tolist(), skip_special_tokens=False) for answer in answers if len(answer)]
        assert len(texts) == batch.segments[row].max()
        found += zip(texts[0::2], texts[1::2], strict=True)
    assert sorted(found) == sorted((f"{pair(n)['chosen']}<|im_end|>", f"{pair(n)['rejected']}<|im_end|>") for n in range(24))
    ids, _ = encode_messages(tokenizer, json.loads(pair(0)["messages"]))
    first = batch.segments[0] == 1
    assert batch.tokens[0][first][: len(ids)].tolist()[:2] == ids[:2]

    packer = PackPairs(Folder(str(tmp_path / "preferences")), Folder(str(tmp_path / "tokenizer")), Folder(str(tmp_path / "short")), 8)
    assert packer({"name": "train"})["too_long"] == 24


def references(root: Path, model: Llama) -> tuple[PairRows, Any]:
    """Rows of the training pairs with what `model` says of them as the reference, and the batch of all."""
    with open_world("fp32") as world:
        ReferencePass(Folder(str(root / "pairs")), CONFIG.seq_len)(model, world, 2)
    rows = PairRows(root / "pairs" / PACKED, "train", CONFIG.seq_len)
    return rows, on_device(rows.read(np.arange(len(rows))), torch.device("cpu"))


@pytest.mark.parametrize(("loss", "name"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_loss_and_gradients_are_those_of_trl(tmp_path: Path, loss: Any, name: str) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    write_packed(tmp_path)
    start, model = model_of(1), model_of(2)
    _, batch = references(tmp_path, start)
    mine, counted = Preference(loss, 0.3)(model, batch)
    (mine / counted).backward()

    tokenizer = Folder(str(tmp_path / "tokenizer"))
    for seed, each in ((1, start), (2, model)):
        export_model(dict(each.state_dict()), each.config, VOCAB, tokenizer, Folder(str(tmp_path)), f"hf-{seed}", dtype="float32")
    arguments = DPOConfig(
        str(tmp_path / "trl"), loss_type=name, beta=0.3, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False
    )
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(tmp_path / "hf-2"),
        AutoModelForCausalLM.from_pretrained(tmp_path / "hf-1"),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "hf-1"),
    )
    theirs = trainer._compute_loss(trainer.model, trl_batch(load_tokenizer(tokenizer)), False)
    theirs.backward()
    assert counted == 24
    assert (mine / counted).item() == pytest.approx(theirs.item(), rel=1e-4)
    gradients = {key: parameter.grad for key, parameter in trainer.model.named_parameters()}
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[key], rtol=2e-3, atol=1e-5, msg=key)


def trl_batch(tokenizer: Any) -> dict[str, torch.Tensor]:
    """The training pairs as trl's collator gives them: the chosen answers, then the rejected ones, padded."""
    encoded = []
    for side in ("chosen", "rejected"):
        for number in range(24):
            tokens, targets = _answer(tokenizer, json.loads(pair(number)["messages"]), pair(number)[side])
            # What follows the answer is no part of it: any token will do.
            encoded.append(([*tokens.tolist(), 1], [0, *(targets != IGNORE).astype(int).tolist()]))
    width = max(len(ids) for ids, _ in encoded)
    return {
        "input_ids": torch.tensor([[*ids, *[1] * (width - len(ids))] for ids, _ in encoded]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in encoded]),
        "completion_mask": torch.tensor([[*mask, *[0] * (width - len(mask))] for _, mask in encoded]),
    }


def test_the_starting_model_has_no_margin(tmp_path: Path) -> None:
    write_packed(tmp_path)
    rows, batch = references(tmp_path, model_of(1))
    for loss, wanted in (("dpo", math.log(2)), ("ipo", 25.0)):
        total, counted = Preference(loss, 0.1)(model_of(1), batch)  # type: ignore[arg-type]
        assert total.item() / counted.item() == pytest.approx(wanted, rel=1e-6)
    with open_world("fp32") as world:
        assert evaluate(model_of(1), rows, world, 3, Preferred(Preference("dpo", 0.1))) == (0.0, 24)


def test_formulas_on_paper() -> None:
    margins = torch.tensor([0.0, 2.0, -3.0])
    torch.testing.assert_close(pair_loss(margins, "dpo", 0.5), -torch.log(1 / (1 + torch.exp(-0.5 * margins))))
    torch.testing.assert_close(pair_loss(margins, "ipo", 0.5), torch.tensor([1.0, 1.0, 16.0]))
    assert F.softplus(torch.tensor(0.0)).item() == pytest.approx(pair_loss(margins, "dpo", 9.0)[0].item())


def test_training_orders_held_out_pairs_and_the_reference_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is cut and resumed ends as one that is not, and its second attempt computes no reference."""
    train(job(tmp_path, "base", settings(tokens=128 * 4), model=SHAPE))
    passes = []
    compute = ReferencePass._log_probs
    monkeypatch.setattr(ReferencePass, "_log_probs", lambda *given: passes.append(1) or compute(*given))

    def run(name: str, fail_at: int | None = None) -> dict[str, Any]:
        out = Folder(str(tmp_path / name))
        if not out.exists(PACKED):
            write_packed(tmp_path, out)
        how = {"objective": Preference("dpo", CONFIG.beta), "prepare": ReferencePass(out, CONFIG.seq_len), "chat": True}
        data = SlowInput(PairInput(out, CONFIG), fail_at=fail_at)
        return train(job(tmp_path, name, CONFIG, model=SHAPE, initial=Folder(str(tmp_path / "base")), data=data, **how))

    summary = run("whole")
    assert summary["heldout"]["preferred"]["share_of_pairs"] == 1.0
    assert summary["heldout"]["pairs"]["loss_per_pair"] < 0.6
    assert len(passes) == 2
    with pytest.raises(OSError, match="disk is gone"):
        run("cut", fail_at=3 * 6)
    run("cut")
    assert len(passes) == 4
    whole, cut = (tmp_path / name / "export/model.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


@pytest.mark.usefixtures("ray_session")
def test_two_workers_train_adapters_on_pairs_as_one_does(stage_context: Callable[..., StageContext], tmp_path: Path) -> None:
    """The stage under FSDP with the base frozen and adapters sharded, against the same run in one process."""
    train(job(tmp_path, "base", settings(tokens=128 * 4), model=SHAPE))
    base, lora = Folder(str(tmp_path / "base")), LoraConfig(rank=2)
    config = CONFIG.model_copy(update={"lora": lora})
    alone = Folder(str(tmp_path / "alone"))
    write_packed(tmp_path, alone)
    how = {"objective": Preference("dpo", config.beta), "prepare": ReferencePass(alone, config.seq_len), "lora": lora}
    wanted = train(job(tmp_path, "alone", config, model=SHAPE, initial=base, data=PairInput(alone, config), chat=True, **how))

    folders = {"sft": base, **{name: Folder(str(tmp_path / name)) for name in ("preferences", "tokenizer")}}
    inputs = {name: Artifact(name, name, folder, {}) for name, folder in folders.items()}
    context = stage_context("dpo", config, resources=Resources(workers=2, cpus_per_worker=1), **inputs)
    summary = dpo.run(context)
    assert (summary["workers"], summary["pairs"]["train"]["pairs"]) == (2, 24)
    found = summary["heldout"]["pairs"]["loss_per_pair"]
    assert found == pytest.approx(wanted["heldout"]["pairs"]["loss_per_pair"], rel=1e-3)
    assert found < 0.69
    one, two = (load_file(folder.local_path("adapter/adapter_model.safetensors")) for folder in (alone, context.out))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-2, atol=1e-3)
    first, second = (np.load(folder.local_path("packed/train.reference.npy")) for folder in (alone, context.out))
    np.testing.assert_allclose(second, first, rtol=1e-5)
