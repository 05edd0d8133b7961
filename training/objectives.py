"""What a training step minimises: a function of the model and one micro-batch.

The loop sums an objective over all micro-batches and workers and divides by the step's `Rows.valid`, so an objective returns
a sum and never a mean, and what it counts is what `valid` counts (targets, weighted targets, pairs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from training.model import Llama


class DeviceBatch(NamedTuple):
    """A `data.Batch` on the worker's device: tokens, targets, segments int64 [B, T], weights fp32 [B, T]."""

    tokens: Tensor
    targets: Tensor
    segments: Tensor | None
    weights: Tensor | None
    extra: Mapping[str, Tensor]


class Objective(Protocol):
    """Summed loss of a micro-batch, a fp32 scalar in nats (or the objective's own unit), 0 where nothing is to be learnt."""

    def __call__(self, model: Llama, batch: DeviceBatch) -> Tensor: ...


def next_token(model: Llama, batch: DeviceBatch) -> Tensor:
    """Cross-entropy of each target, times its weight where the batch has weights."""
    if batch.weights is None:
        return model(batch.tokens, batch.targets, batch.segments)
    losses = model(batch.tokens, batch.targets, batch.segments, reduction="none")
    return (losses * batch.weights).sum()
