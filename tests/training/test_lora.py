"""Adapters: the same model, gradients and files as peft's, alone in the checkpoints, merged in the export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.distributed.checkpoint.filesystem import FileSystemReader

from cluster.storage import Folder
from tests.training.tiny import MODEL, VOCAB, SlowInput, job, settings, write_chat_tokenizer
from training.checkpoint import checkpoint_folder, checkpoint_path, newest_state
from training.config import LoraConfig, SftConfig
from training.export import export_model
from training.loop import train
from training.lora import add_adapters, export_adapter, init_adapters, merged
from training.model import Llama, init_weights

LORA = LoraConfig(rank=4, alpha=12.0, targets=("q_proj", "v_proj", "down_proj"))
TOKENS = torch.arange(16, 46).view(2, 15)


def adapted(config: LoraConfig = LORA, seed: int = 3) -> Llama:
    """A model whose adapters do something: B is not 0."""
    model = Llama(MODEL, VOCAB)
    init_weights(model, 1)
    add_adapters(model, config)
    init_adapters(model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B.weight"):
                parameter.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(seed))
    return model


def test_peft_loads_the_files_and_has_the_same_logits_and_gradients(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model, out = adapted(), Folder(str(tmp_path))
    weights = {name: tensor for name, tensor in model.state_dict().items() if ".lora_" not in name}
    export_model(weights, MODEL, VOCAB, write_chat_tokenizer(out / "tokenizer"), out, "base", dtype="float32")
    export_adapter(dict(model.state_dict()), LORA, str(tmp_path / "base"), out)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs: Any = PeftModel.from_pretrained(base, str(tmp_path / "adapter"), is_trainable=True)
    torch.testing.assert_close(model(TOKENS), theirs(input_ids=TOKENS).logits, rtol=1e-4, atol=1e-5)
    model(TOKENS[:, :-1], TOKENS[:, 1:]).backward()
    (theirs(input_ids=TOKENS, labels=TOKENS).loss * TOKENS[:, 1:].numel()).backward()
    wanted = {name.replace(".default", ""): parameter for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    found = {f"base_model.model.{name}": parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert found.keys() == wanted.keys()
    for name, parameter in found.items():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-4, atol=1e-4)


def test_peft_begins_with_the_same_adapters_in_distribution() -> None:
    """A is as wide as peft's (uniform within 1 / sqrt(in)), B is 0, and the model is what it was."""
    model = Llama(MODEL, VOCAB)
    init_weights(model, 1)
    before = model(TOKENS)
    add_adapters(model, LORA)
    init_adapters(model, 1)
    assert torch.equal(model(TOKENS), before)
    first = model.get_parameter("model.layers.0.mlp.down_proj.lora_A.weight")
    assert first.abs().max() <= 1 / 8
    assert first.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.1)


def test_merged_weights_compute_the_same() -> None:
    model = adapted()
    plain = Llama(MODEL, VOCAB)
    plain.load_state_dict(merged(dict(model.state_dict()), LORA))
    torch.testing.assert_close(plain(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)


def test_dropout_is_for_training_alone() -> None:
    model = adapted(LORA.model_copy(update={"dropout": 0.5}))
    assert not torch.equal(model.train()(TOKENS), model(TOKENS))
    assert torch.equal(model.eval()(TOKENS), model(TOKENS))
    with pytest.raises(ValidationError, match="activation_checkpointing"):
        SftConfig(lora=LoraConfig(dropout=0.1), activation_checkpointing="full")


def test_a_run_trains_saves_and_exports_adapters(tmp_path: Path) -> None:
    """Interrupted and resumed it ends with the same bytes; its checkpoints have adapters alone; peft on the base is its export."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    train(job(tmp_path, "base", settings(tokens=128 * 3)))
    base = Folder(str(tmp_path / "base"))
    config = settings(tokens=128 * 6, checkpoint_every=2, average_last=2)
    train(job(tmp_path, "whole", config, initial=base, lora=LORA))
    with pytest.raises(OSError, match="disk is gone"):
        train(job(tmp_path, "cut", config, initial=base, lora=LORA, data=SlowInput(job(tmp_path, "cut", config).data, fail_at=10)))
    train(job(tmp_path, "cut", config, initial=base, lora=LORA))
    for name in ("export/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()

    checkpoint = checkpoint_path(checkpoint_folder(Folder(str(tmp_path / "whole"))), 6)
    saved = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    tensors = {name.removeprefix("model.") for name in saved if name.startswith("model.")}
    assert tensors == {name for name in adapted().state_dict() if ".lora_" in name}
    facts = newest_state(Folder(str(tmp_path / "whole")))
    assert (facts["base"], facts["lora"]["rank"]) == (base.url, 4)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base/export", dtype=torch.float32)
    theirs: Any = PeftModel.from_pretrained(model, str(tmp_path / "whole/adapter"))
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "whole/export", dtype=torch.float32)
    with torch.no_grad():
        found, wanted, before = (each(input_ids=TOKENS).logits for each in (ours, theirs, theirs.get_base_model()))
    assert (found - wanted).abs().max() < 0.02
    before = load_file(tmp_path / "base/export/model.safetensors")
    after = load_file(tmp_path / "whole/export/model.safetensors")
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if any(f".{target}." in name for target in LORA.targets)}


def test_a_run_goes_on_from_the_merged_export_of_an_adapter_run(tmp_path: Path) -> None:
    train(job(tmp_path, "base", settings(tokens=128)))
    train(job(tmp_path, "tuned", settings(tokens=128 * 2), initial=Folder(str(tmp_path / "base")), lora=LORA))
    train(job(tmp_path, "next", settings(tokens=128, optim={"learning_rate": 1e-12}), initial=Folder(str(tmp_path / "tuned"))))
    tuned, after = (load_file(tmp_path / name / "export/model.safetensors") for name in ("tuned", "next"))
    assert all(torch.equal(tuned[name], after[name]) for name in tuned)
