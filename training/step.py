"""One optimizer step of all workers: what it decides is decided on the device, and the host reads its figures later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from training.model import Llama
from training.objectives import DeviceBatch, Objective
from training.optim import gradients, update
from training.spikes import SpikeGuard


class Figures(NamedTuple):
    """What a step measured, over all workers: loss and gradient norm (before clipping) by the objective's divisor."""

    loss: float
    grad_norm: float
    targets: int
    skipped: bool


class Reading:
    """Figures on their way from the device."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.to("cpu", non_blocking=True)
        self._copied = torch.cuda.current_stream().record_event() if values.is_cuda else None

    def wait(self) -> Figures:
        """The figures, once the device has done the step."""
        if self._copied is not None:
            self._copied.synchronize()
        loss, norm, targets, skipped = self._values.tolist()
        return Figures(loss, norm, int(targets), bool(skipped))


def train_step(
    model: Llama,
    optimizer: Optimizer,
    guard: SpikeGuard,
    objective: Objective,
    batches: Sequence[DeviceBatch],
    targets: int,
    rate: float,
    max_norm: float,
) -> Reading:
    """Gradients of this worker's micro-batches, and the update unless `guard` is against it.

    All is exact for any number of micro-batches and workers: gradients are those of sums, and one reduction brings together
    loss, divisor, targets and squared gradient norm. FSDP averages gradients over workers, so they are divided by the divisor's
    mean over workers. They are clipped to a global L2 norm of `max_norm`.
    """
    sums = torch.zeros(4, dtype=torch.float64, device=batches[0].tokens.device)
    model.train()
    for batch in batches:
        loss, divisor = objective(model, batch)
        loss.backward()
        sums[:2] += torch.stack((loss.detach().double(), divisor.detach().double()))
    sums[2] = targets
    sums[3] = torch.nn.utils.get_total_norm(gradients(model)).double().square()
    dist.all_reduce(sums)
    loss, divisor = sums[0] / sums[1], sums[1] / dist.get_world_size()
    norm = sums[3].sqrt() / divisor
    skip = guard.judge(loss, norm)
    update(optimizer, rate, (divisor * ((norm + 1e-6) / max_norm).clamp_min(1.0)).float(), skip)
    return Reading(torch.stack((loss, norm, sums[2], skip.double())))
