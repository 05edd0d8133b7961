"""AdamW and Muon on plain or sharded (FSDP2) parameters, each update scaled or skipped as the device says.

The gradients that an optimizer finds are those of summed losses. `update` hands it two scalars on the device, which are never
read on the host: what all gradients are divided by (the step's targets, and clipping), and whether the step is skipped.
They are the attributes `grad_scale` and `found_inf` with which torch's fused AdamW serves mixed precision (`torch.amp`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz

from training.config import OptimConfig

NEWTON_SCHULZ = {"ns_coefficients": (3.4445, -4.7750, 2.0315), "ns_steps": 5, "eps": 1e-7}
"""Jordan's quintic iteration, torch.optim.Muon's defaults."""


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with weight decay on matrices only, never on norms.

    With `optimizer: muon` the matrices of the blocks have Muon instead. The fused kernel does the whole of AdamW in one pass
    over memory; torch has it for CPU and CUDA.
    """
    parameters = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = {name: parameter for name, parameter in parameters if parameter.ndim >= 2}
    inner = {name: matrices.pop(name) for name in list(matrices) if config.optimizer == "muon" and ".layers." in f".{name}"}
    groups: list[dict[str, Any]] = [
        {"params": list(matrices.values()), "weight_decay": config.weight_decay},
        {"params": [parameter for _, parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    options: dict[str, Any] = {"lr": config.learning_rate, "betas": (config.beta1, config.beta2), "fused": True}
    if inner:
        groups.append({"params": list(inner.values()), "weight_decay": config.weight_decay, "momentum": config.momentum})
    return (Muon if inner else torch.optim.AdamW)([group for group in groups if group["params"]], **options)


def gradients(model: nn.Module) -> list[Tensor]:
    """This worker's shards of all gradients."""
    return [_local(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]


def update(optimizer: torch.optim.Optimizer, rate: float, divisor: Tensor, skip: Tensor) -> None:
    """One step at learning rate `rate` with all gradients divided by `divisor`, or nothing at all where `skip` is 1.

    Both are fp32 scalars on the parameters' device. A skipped step leaves weights, moments and step counts bit for bit.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.grad_scale, optimizer.found_inf = divisor, skip  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad()


class Muon(torch.optim.AdamW):
    """Muon (Jordan 2024) for the groups that have a `momentum`, AdamW for the others.

    B <- mu B + (1 - mu) G;  W <- (1 - lr * decay) W - lr * 0.2 sqrt(max(m, n)) NS((1 - mu) G + mu B)

    NS sets all singular values near 1. The factor (Liu et al. 2025, arXiv 2502.16982) gives updates the size of AdamW's, so
    that one learning rate serves both. Equal to `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`, which wants whole matrices.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        groups = self.param_groups
        self.param_groups = [group for group in groups if "momentum" not in group]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if "momentum" in group:
                self._muon_step(group)
        return loss

    def _muon_step(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        rate, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
        skip, divisor = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        taken = None if skip is None else skip == 0
        mixed = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["momentum_buffer"] = torch.zeros_like(parameter)
            gradient, buffer = _local(parameter.grad), _local(state["momentum_buffer"])
            gradient = gradient if divisor is None else gradient / divisor
            new = buffer.lerp(gradient, 1 - momentum)
            mixed.append(gradient.lerp(new, momentum))
            buffer.copy_(new if taken is None else torch.where(taken, new, buffer))
            state["step"] += 1 if taken is None else taken
        for parameter, direction in zip(parameters, orthogonal(mixed, parameters), strict=True):
            weight = _local(parameter)
            new = (weight * (1 - rate * decay)).add_(direction, alpha=-_adjust_lr(rate, "match_rms_adamw", parameter.shape))
            weight.copy_(new if taken is None else torch.where(taken, new, weight))


def orthogonal(updates: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
    """Newton-Schulz of each parameter's update, which this worker holds a shard of; returns its shards, in bf16.

    With W workers, W matrices at a time change hands: each worker gets the shards of one of them, orthogonalises it and sends
    the shards of the result back. So each matrix is computed once and crosses the network twice, in bf16.
    """
    first = parameters[0]
    if not isinstance(first, DTensor) or first.device_mesh.size() == 1:
        return [_newton_schulz(update.view_as(_local(parameter))) for update, parameter in zip(updates, parameters, strict=True)]
    group = first.device_mesh.get_group()
    rank, workers = dist.get_rank(group), dist.get_world_size(group)
    sizes = [_shard_sizes(parameter.shape, workers) for parameter in parameters]
    by_size = sorted(range(len(parameters)), key=lambda number: (parameters[number].numel(), number))
    on_their_way = []
    for turn in (by_size[start : start + workers] for start in range(0, len(by_size), workers)):
        there = [sizes[number][rank] for number in turn] + [0] * (workers - len(turn))
        here = sizes[turn[rank]] if rank < len(turn) else [0] * workers
        sent = torch.cat([updates[number].flatten().bfloat16() for number in turn])
        whole = sent.new_empty(sum(here))
        on_their_way.append((turn, there, here, sent, whole, dist.all_to_all_single(whole, sent, here, there, group, async_op=True)))
    returning = []
    for turn, there, here, _, whole, arrival in on_their_way:
        arrival.wait()
        if rank < len(turn):
            whole = _newton_schulz(whole.view(parameters[turn[rank]].shape)).flatten()
        back = whole.new_empty(sum(there))
        returning.append((turn, there, whole, back, dist.all_to_all_single(back, whole, there, here, group, async_op=True)))
    results: dict[int, Tensor] = {}
    for turn, there, _, back, arrival in returning:
        arrival.wait()
        results.update(zip(turn, back.split(there)[: len(turn)], strict=True))
    return [results[number].view_as(update) for number, update in enumerate(updates)]


def _newton_schulz(matrix: Tensor) -> Tensor:
    return _zeropower_via_newtonschulz(matrix, **NEWTON_SCHULZ)


def _shard_sizes(shape: torch.Size, workers: int) -> list[int]:
    """Elements of a matrix on each worker: `Shard(0)` deals out rows in equal parts, rounded up."""
    rows, columns = shape
    each = -(-rows // workers)
    return [max(0, min(each, rows - worker * each)) * columns for worker in range(workers)]


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
