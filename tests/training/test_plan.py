"""The planner's figures against arithmetic by hand and against what autograd really keeps."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from training.config import LOSS_CHUNK_ELEMENTS, PRESETS, LoopConfig, ModelConfig
from training.model import Llama
from training.plan import activation_bytes, plan_rows, plan_training, worker_memory


def test_croissant_run_in_numbers() -> None:
    config, vocab_size = PRESETS["croissant-1b"]
    loop = LoopConfig(seq_len=2_048, batch_tokens=7_864_320, micro_batch_tokens=16_384)
    plan = plan_training(config, vocab_size, loop, 3_000_000_000_000, workers=240, device="cuda")
    assert plan.steps == 381_470
    assert plan.tokens_per_parameter == pytest.approx(2_230, rel=1e-3)
    assert plan.flops_6nd == pytest.approx(2.42e22, rel=0.01)
    assert plan.flops_causal < plan.flops_palm
    assert plan.memory.weights * 240 == pytest.approx(4 * plan.parameters, rel=1e-6)
    assert plan.memory.optimizer == 2 * plan.memory.weights
    days = plan.seconds(120e12) / 86_400
    assert days == pytest.approx(10.9, rel=0.02)


def test_rows_print_every_part_of_the_memory() -> None:
    plan = plan_training(*PRESETS["demo"], LoopConfig(), 20_000_000)
    rows = {row.name: row for row in plan_rows(plan)}
    parts = [rows[name].value for name in ("weights", "gradients", "optimizer", "gathered", "activations")]
    assert sum(parts) == rows["memory of a worker"].value == plan.memory.total
    assert rows["tokens per parameter"].value == pytest.approx(20_000_000 / plan.parameters)
    assert "CroissantLLM 2,307" in rows["tokens per parameter"].note


def test_more_workers_share_weights_but_not_activations() -> None:
    config, vocab_size = PRESETS["croissant-1b"]
    loop = LoopConfig(seq_len=2_048, batch_tokens=65_536, micro_batch_tokens=8_192)
    one, eight = (worker_memory(config, vocab_size, loop, workers=workers, precision="bf16", device="cuda") for workers in (1, 8))
    assert eight.weights == pytest.approx(one.weights / 8, rel=1e-6)
    assert (eight.activations, eight.gathered) == (one.activations, one.gathered)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_activations_are_what_autograd_keeps(precision: Literal["bf16", "fp32"], kv_heads: int) -> None:
    """Distinct storages that the backward pass saves, parameters and tables aside, within a twentieth of the formula."""
    config = ModelConfig(hidden_size=128, intermediate_size=352, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=kv_heads)
    model = Llama(config, 512)
    if precision == "bf16":
        model.to(torch.bfloat16)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    loop = LoopConfig(seq_len=128, batch_tokens=512, micro_batch_tokens=512)
    tokens = torch.zeros(4, 128, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(tokens, tokens)
    assert loss.requires_grad
    width = 2 if precision == "bf16" else 4
    rest = 512 * 128 * width + 2 * 128 * 32 * width + tokens.numel() * 8
    found = sum(storage.nbytes() for storage in kept.values()) - rest
    chunk = min(LOSS_CHUNK_ELEMENTS["cpu"], tokens.numel() * 512) * (4 + 2 * width)
    wanted = activation_bytes(config, 512, loop, precision=precision, device="cpu") - chunk
    assert found == pytest.approx(wanted, rel=0.05)
