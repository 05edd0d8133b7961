"""AdamW over a model's parameters, weight decay on matrices only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def clip_gradients(model: nn.Module, max_norm: float) -> float:
    """Scale all gradients so that their global norm is at most `max_norm`; returns the norm before."""
    from torch.distributed.tensor import DTensor

    norm: Tensor = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    return float(norm)
