"""Optimizers and whole steps on plain and sharded parameters, beside torch's own AdamW, Muon and clipping."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from training.checkpoint import Checkpoints, load_step
from training.config import ModelConfig, OptimConfig, SpikesConfig
from training.distributed import World, build_model, full_state_dict, open_world
from training.model import Llama, init_weights
from training.objectives import DeviceBatch, next_token
from training.optim import Muon, build_optimizer, update
from training.spikes import SpikeGuard
from training.step import Figures, train_step

CONFIG = ModelConfig(
    hidden_size=32, intermediate_size=50, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16
)
SETTINGS = {name: OptimConfig(learning_rate=1e-2, grad_clip=0.5, optimizer=name) for name in ("adamw", "muon")}
VOCAB = 67
ROWS = 4
STEPS = 3
SHARE = {"adamw": 1e-3, "muon": 0.05}


@pytest.fixture
def world() -> Iterator[World]:
    with open_world("fp32") as alone:
        yield alone


def batch(rows: slice = slice(None)) -> DeviceBatch:
    tokens = torch.randint(0, VOCAB, (ROWS, 17), generator=torch.Generator().manual_seed(2))[rows]
    return DeviceBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), None, None, {})


def plain() -> Llama:
    model = Llama(CONFIG, VOCAB)
    init_weights(model, 3)
    return model


def steps(
    model: Llama, optimizer: torch.optim.Optimizer, settings: OptimConfig, rows: slice = slice(None), count: int = STEPS
) -> list[Figures]:
    guard, part = SpikeGuard(SpikesConfig(), torch.device("cpu"), 0.5), batch(rows)
    return [
        train_step(model, optimizer, guard, next_token, [part], part.targets.numel(), settings.learning_rate, settings.grad_clip).wait()
        for _ in range(count)
    ]


def torchs_own(name: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Gradient norms and weights of the same steps with torch's optimizers on a mean loss."""
    model, settings = plain(), SETTINGS[name]
    inner = [parameter for key, parameter in model.named_parameters() if name == "muon" and "layers" in key and parameter.ndim == 2]
    outer = [parameter for parameter in model.parameters() if all(parameter is not other for other in inner)]
    groups = [
        {"params": [parameter for parameter in outer if parameter.ndim == 2], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in outer if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))]
    if inner:
        optimizers.append(torch.optim.Muon(inner, lr=1e-2, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"))
    norms = []
    for _ in range(STEPS):
        loss, targets = next_token(model, batch())
        (loss / targets).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return norms, {key: tensor.detach() for key, tensor in model.state_dict().items()}


def close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], share: float) -> None:
    """Each tensor has moved as it should, up to a share of the way (L2). Muon lifts small singular values, rounding and all."""
    start = plain().state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        way, error = (tensor - start[name]).norm(), (found[name] - tensor).norm()
        assert error <= share * way, f"{name}: {error} off a way of {way}"


def test_groups() -> None:
    model = plain()
    decayed, kept = build_optimizer(model, SETTINGS["adamw"]).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert {id(parameter) for parameter in kept["params"]} == {id(p) for name, p in model.named_parameters() if "norm" in name}
    outer, norms, inner = build_optimizer(model, SETTINGS["muon"]).param_groups
    assert [id(parameter) for parameter in outer["params"]] == [id(model.model.embed_tokens.weight)]
    assert {id(p) for p in inner["params"]} == {id(p) for name, p in model.named_parameters() if "layers" in name and "norm" not in name}
    assert norms["params"] == kept["params"]
    assert sum(len(group["params"]) for group in (outer, norms, inner)) == len(list(model.parameters()))


def test_frozen_parameters_are_left_out() -> None:
    model = plain()
    model.requires_grad_(False)
    model.model.norm.weight.requires_grad_(True)
    (group,) = build_optimizer(model, SETTINGS["muon"]).param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(model.model.norm.weight)]


def test_one_step_is_adamw_by_hand() -> None:
    model = nn.Linear(3, 2)
    before = [model.weight.detach().clone(), model.bias.detach().clone()]
    optimizer = build_optimizer(model, SETTINGS["adamw"])
    model.weight.grad, model.bias.grad = torch.full((2, 3), 2.0), torch.full((2,), -3.0)
    update(optimizer, 1e-2, torch.tensor(4.0), torch.tensor(0.0))
    torch.testing.assert_close(model.weight.detach(), before[0] * (1 - 1e-2 * 0.1) - 1e-2)
    torch.testing.assert_close(model.bias.detach(), before[1] + 1e-2)
    torch.testing.assert_close(optimizer.state[model.weight]["exp_avg"], torch.full((2, 3), 0.05))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_steps_are_torchs_own_and_a_skipped_one_leaves_no_trace(world: World, name: str) -> None:
    """Three steps as torch does them; then a step with NaN gradients changes no bit of weights or state."""
    model, settings = build_model(CONFIG, VOCAB, 3, world, compile_blocks=False), SETTINGS[name]
    optimizer = build_optimizer(model, settings)
    assert isinstance(optimizer, Muon) == (name == "muon")
    norms, weights = torchs_own(name)
    figures = steps(model, optimizer, settings)
    assert [step.grad_norm for step in figures] == pytest.approx(norms, rel=1e-4)
    assert norms[0] > settings.grad_clip
    assert [(step.targets, step.skipped) for step in figures] == [(64, False)] * STEPS
    close(full_state_dict(model), weights, SHARE[name])

    before = {key: tensor.clone() for key, tensor in state(model, optimizer).items()}
    guard = SpikeGuard(SpikesConfig(), world.device, 0.5)
    poisoned = train_step(model, optimizer, guard, poison, [batch()], 64, 1e-2, 0.5).wait()
    assert poisoned.skipped
    after = state(model, optimizer)
    assert before.keys() == after.keys()
    assert all(torch.equal(bits(before[key]), bits(after[key])) for key in before)
    assert not steps(model, optimizer, settings, count=1)[0].skipped


class NothingRead(TorchDispatchMode):
    """Fails where the host asks for a value (`item`, `float`, `bool`), which on a GPU waits for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_host_reads_nothing_while_a_step_runs(world: World, name: str) -> None:
    model, guard = build_model(CONFIG, VOCAB, 3, world, compile_blocks=False), SpikeGuard(SpikesConfig(window=2), world.device)
    optimizer = build_optimizer(model, SETTINGS[name])
    with NothingRead():
        readings = [train_step(model, optimizer, guard, next_token, [batch()], 64, 1e-2, 0.5) for _ in range(3)]
    assert all(math.isfinite(reading.wait().loss) for reading in readings)


def poison(model: Llama, part: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
    loss, targets = next_token(model, part)
    return loss * float("nan"), targets


def state(model: Llama, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Weights, moments and step counts."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moments = {f"{names[id(p)]}/{key}": value for p, values in optimizer.state.items() for key, value in values.items()}
    return {key: value.to_local() if hasattr(value, "to_local") else value for key, value in {**model.state_dict(), **moments}.items()}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _two_workers(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 2), rank=rank, world_size=2)
    with open_world("fp32", threads=1) as world:
        results: dict[str, Any] = {}
        for name, settings in SETTINGS.items():
            model = build_model(CONFIG, VOCAB, 3, world, compile_blocks=False)
            optimizer = build_optimizer(model, settings)
            mine = slice(rank, None, 2)
            figures = steps(model, optimizer, settings, mine, STEPS - 1)
            with Checkpoints(Path(folder) / name, world, 9, "a") as checkpoints:
                checkpoints.save(model, optimizer, {"step": STEPS - 1})
            figures += steps(model, optimizer, settings, mine, 1)
            results[name] = ([step.grad_norm for step in figures], full_state_dict(model))
            before = {key: tensor.clone() for key, tensor in state(model, optimizer).items()}
            guard = SpikeGuard(SpikesConfig(), world.device, 0.5)
            objective = poison if rank else next_token  # one worker's fault is everybody's
            assert train_step(model, optimizer, guard, objective, [batch(mine)], 32, 1e-2, 0.5).wait().skipped
            assert all(torch.equal(bits(before[key]), bits(tensor)) for key, tensor in state(model, optimizer).items())
        if world.is_main:
            torch.save(results, f"{folder}/results.pt")
    dist.destroy_process_group()


def test_two_workers_step_like_one_and_one_goes_on_from_their_checkpoint(tmp_path: Path, world: World) -> None:
    """Same norms and weights after clipped steps on two FSDP workers, up to the order of sums and Muon's bf16; a checkpoint of
    two workers before the last step, loaded by one, gives that step."""
    mp.start_processes(_two_workers, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    results = torch.load(tmp_path / "results.pt")
    for name, settings in SETTINGS.items():
        norms, weights = torchs_own(name)
        assert results[name][0] == pytest.approx(norms, rel=1e-3)
        close(results[name][1], weights, SHARE[name])
        model = build_model(CONFIG, VOCAB, 1, world, compile_blocks=False)
        optimizer = build_optimizer(model, settings)
        assert load_step(model, optimizer, tmp_path / name, None)["workers"] == 2
        steps(model, optimizer, settings, count=1)
        close(full_state_dict(model), results[name][1], SHARE[name])
