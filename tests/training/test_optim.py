"""The optimizer's groups, its update, and clipping, on plain and on sharded parameters."""

from __future__ import annotations

import multiprocessing
import socket
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from training.config import ModelConfig, OptimConfig
from training.model import Llama, init_weights
from training.optim import build_optimizer, clip_gradients

CONFIG = ModelConfig(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16
)
SETTINGS = OptimConfig(learning_rate=1e-2, grad_clip=0.5)
VOCAB = 67
ROWS = 4


def batch() -> torch.Tensor:
    return torch.randint(0, VOCAB, (ROWS, 17), generator=torch.Generator().manual_seed(2))


def train(model: Llama, rows: torch.Tensor, scale: float, steps: int = 3) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Gradient norms and final weights of a few steps on the same rows."""
    optimizer = build_optimizer(model, SETTINGS)
    norms = []
    for _ in range(steps):
        (model(rows[:, :-1], rows[:, 1:]) * scale).backward()
        norms.append(clip_gradients(model, SETTINGS.grad_clip))
        optimizer.step()
        optimizer.zero_grad()
    return norms, {name: getattr(tensor, "full_tensor", lambda tensor=tensor: tensor)() for name, tensor in model.state_dict().items()}


def plain() -> Llama:
    model = Llama(CONFIG, VOCAB)
    init_weights(model, 3)
    return model


def test_only_matrices_decay() -> None:
    model = plain()
    decayed, kept = build_optimizer(model, SETTINGS).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (SETTINGS.weight_decay, 0.0)
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert {id(parameter) for parameter in kept["params"]} == {id(p) for name, p in model.named_parameters() if "norm" in name}
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_frozen_parameters_are_left_out() -> None:
    model = plain()
    model.model.embed_tokens.weight.requires_grad_(False)
    groups = build_optimizer(model, SETTINGS).param_groups
    assert all(parameter is not model.model.embed_tokens.weight for group in groups for parameter in group["params"])


def test_one_step_is_adamw_by_hand() -> None:
    model = torch.nn.Linear(3, 2)
    before = [model.weight.detach().clone(), model.bias.detach().clone()]
    optimizer = build_optimizer(model, SETTINGS)
    model.weight.grad, model.bias.grad = torch.full((2, 3), 2.0), torch.full((2,), -3.0)
    optimizer.step()
    rate, decay = SETTINGS.learning_rate, SETTINGS.weight_decay
    torch.testing.assert_close(model.weight.detach(), before[0] * (1 - rate * decay) - rate)
    torch.testing.assert_close(model.bias.detach(), before[1] + rate)


def test_clipping_scales_to_the_limit_and_returns_the_norm_before() -> None:
    model = torch.nn.Linear(1, 2, bias=False)
    model.weight.grad = torch.tensor([[3.0], [4.0]])
    assert clip_gradients(model, 1.0) == pytest.approx(5.0)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6], [0.8]]), rtol=1e-4, atol=0)
    assert clip_gradients(model, 10.0) == pytest.approx(1.0, rel=1e-4)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6], [0.8]]), rtol=1e-4, atol=0)


def sharded_worker(rank: int, port: int, queue: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    with torch.device("meta"):
        model = Llama(CONFIG, VOCAB)
    mesh = init_device_mesh("cpu", (2,))
    policy = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    model.to_empty(device="cpu")
    init_weights(model, 3)
    norms, weights = train(model, batch()[rank::2], 2 / (ROWS * 16))
    if rank == 0:
        queue.put((norms, {name: tensor.numpy() for name, tensor in weights.items()}))
    dist.barrier()
    dist.destroy_process_group()


def test_two_fsdp_workers_start_clip_and_step_like_one_process() -> None:
    """Same initial weights, same norms, same weights after three clipped steps, up to the order of sums."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=sharded_worker, args=(rank, port, queue), daemon=True) for rank in range(2)]
    for worker in workers:
        worker.start()
    norms, weights = queue.get(timeout=300)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    wanted_norms, wanted = train(plain(), batch(), 1 / (ROWS * 16))
    assert wanted_norms[0] > SETTINGS.grad_clip
    assert norms == pytest.approx(wanted_norms, rel=1e-4)
    for name, tensor in wanted.items():
        torch.testing.assert_close(
            torch.from_numpy(weights[name]), tensor, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
