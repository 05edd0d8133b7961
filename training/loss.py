"""Cross-entropy of a language model's head without its whole logits: N positions, D hidden width, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from training.config import LOSS_CHUNK_ELEMENTS
from training.data import IGNORE

SoftmaxStep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def softmax_step(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of `logits` [N, V] (fp32 scalar) and its gradient by them, in their dtype."""
    log_probs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    valid = (targets != IGNORE).unsqueeze(1)
    index = targets.clamp_min(0).unsqueeze(1)
    loss = -(log_probs.gather(1, index) * valid).sum()
    grad = log_probs.exp_().scatter_add_(1, index, torch.full_like(index, -1, dtype=torch.float32)).mul_(valid)
    return loss, grad.to(logits.dtype)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, reduction: Literal["sum", "none"], step: SoftmaxStep = softmax_step
) -> Tensor:
    """Cross-entropy of `hidden @ weight.T` ([N, D], [V, D]) against `targets` [N], fp32, never holding all logits.

    Rows are done in chunks. For the sum, both gradients are made on the way forward, while the logits of a chunk are there,
    so nothing is computed twice; single losses recompute their logits on the way back.
    """
    rows = max(1, LOSS_CHUNK_ELEMENTS[hidden.device.type] // weight.shape[0])
    wants_grad = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    if reduction == "sum" and wants_grad:
        return _SummedCrossEntropy.apply(hidden, weight, targets, rows, step)
    losses = []
    for part, wanted in zip(hidden.split(rows), targets.split(rows), strict=True):
        losses.append(checkpoint(_losses, part, weight, wanted, use_reentrant=False) if wants_grad else _losses(part, weight, wanted))
    joined = torch.cat(losses)
    return joined.sum() if reduction == "sum" else joined


def _losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, ignore_index=IGNORE, reduction="none")


class _SummedCrossEntropy(torch.autograd.Function):
    """The sum, with both gradients computed in `forward` and scaled in `backward`; the weight's is summed in fp32."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int, step: SoftmaxStep) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden)
        weight_grad = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, hidden.shape[0], rows):
            part = hidden[start : start + rows]
            loss, logits_grad = step(part @ weight.t(), targets[start : start + rows])
            total += loss
            hidden_grad[start : start + rows] = logits_grad @ weight
            weight_grad += logits_grad.t() @ part
        ctx.save_for_backward(hidden_grad, weight_grad.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad, weight_grad = ctx.saved_tensors
        scale = grads[0]
        return hidden_grad * scale.to(hidden_grad.dtype), weight_grad * scale.to(weight_grad.dtype), None, None, None
