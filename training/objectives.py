"""What a training step minimises: a function of the model and one micro-batch.

An objective returns two scalars, a summed loss and what that sum is to be divided by (targets, weights of targets, pairs). The
loop adds up both over all micro-batches and workers, on the device, and minimises the quotient; so no objective returns a mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.attention import OFFSETS, document_offsets
from training.data import IGNORE, Batch
from training.model import Llama


class DeviceBatch(NamedTuple):
    """A `data.Batch` on the worker's device: tokens, targets, segments int64 [B, T], weights fp32 [B, T]."""

    tokens: Tensor
    targets: Tensor
    segments: Tensor | None
    weights: Tensor | None
    extra: Mapping[str, Tensor]


class Objective(Protocol):
    """Summed loss of a micro-batch (fp32 scalar, in nats or the objective's own unit) and its divisor; both 0 without targets."""

    def __call__(self, model: Llama, batch: DeviceBatch) -> tuple[Tensor, Tensor]: ...


def next_token(model: Llama, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each target, times its weight where the batch has weights, and the number or the weight of the targets."""
    valid, offsets = batch.targets != IGNORE, batch.extra.get(OFFSETS)
    if batch.weights is None:
        return model(batch.tokens, batch.targets, batch.segments, document_offsets=offsets), valid.sum()
    weights = batch.weights * valid
    losses = model(batch.tokens, batch.targets, batch.segments, reduction="none", document_offsets=offsets)
    return (losses * weights).sum(), weights.sum()


def on_device(batch: Batch, device: torch.device) -> DeviceBatch:
    """The batch's arrays as tensors on `device`; to a GPU from pinned memory, so that nobody waits for the copy, and with
    `OFFSETS` among the extra ones, so that nobody waits for a count of the documents."""

    def moved(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    extra = dict(batch.extra)
    if device.type == "cuda" and batch.segments is not None:
        extra[OFFSETS] = document_offsets(torch.from_numpy(batch.segments)).numpy()
    segments, weights = (None if array is None else moved(array) for array in (batch.segments, batch.weights))
    return DeviceBatch(moved(batch.tokens), moved(batch.targets), segments, weights, {name: moved(array) for name, array in extra.items()})


# --- preference pairs ---


def answer_log_probs(model: Llama, batch: DeviceBatch, answers: int) -> tuple[Tensor, Tensor]:
    """Log-probability in nats of each segment's targets, and their number: both fp32 [B, answers], by segment number from 1."""
    assert batch.segments is not None
    nats = model(batch.tokens, batch.targets, batch.segments, reduction="none", document_offsets=batch.extra.get(OFFSETS))
    nothing = nats.new_zeros(len(nats), answers + 1)
    counts = nothing.scatter_add(1, batch.segments, (batch.targets != IGNORE).to(nats.dtype))
    return nothing.scatter_add(1, batch.segments, -nats)[:, 1:], counts[:, 1:]


def pair_loss(margins: Tensor, loss: Literal["dpo", "ipo"], beta: float) -> Tensor:
    """Loss of each pair by how much more the chosen answer has gained on the starting model than the rejected one, in nats.

    DPO: -log sigmoid(beta m) (Rafailov et al. 2023, arXiv 2305.18290, equation 7); IPO: (m - 1 / (2 beta))^2, beta being the
    paper's tau (Azar et al. 2023, arXiv 2310.12036, equation 17).
    """
    return -F.logsigmoid(beta * margins) if loss == "dpo" else (margins - 1 / (2 * beta)).square()


@dataclass(frozen=True)
class Preference:
    """Loss over pairs: segments 2p - 1 and 2p of a row are the chosen and the rejected answer of its pair p, and
    `extra["reference"]` [B, answers] has the answers' log-probabilities under the starting model.

    DPO takes the sums over an answer's tokens; IPO the means, as its authors did (trl's documentation), since a squared error
    of sums would grow with the length of answers.
    """

    loss: Literal["dpo", "ipo"]
    beta: float

    def __call__(self, model: Llama, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
        margins, there = self.margins(model, batch)
        return (pair_loss(margins, self.loss, self.beta) * there).sum(), there.sum()

    def margins(self, model: Llama, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
        """By how much each pair's chosen answer is ahead of the rejected one, and which pairs there are: [B, answers / 2]."""
        reference = batch.extra["reference"]
        log_probs, tokens = answer_log_probs(model, batch, reference.shape[1])
        gained = log_probs - reference
        if self.loss == "ipo":
            gained = gained / tokens.clamp_min(1)
        return gained[:, 0::2] - gained[:, 1::2], tokens[:, 0::2] > 0


@dataclass(frozen=True)
class Preferred:
    """For readings: pairs ordered rightly, the chosen answer having gained more on the starting model than the rejected one."""

    preference: Preference

    def __call__(self, model: Llama, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
        margins, there = self.preference.margins(model, batch)
        return ((margins > 0) & there).sum().float(), there.sum()
