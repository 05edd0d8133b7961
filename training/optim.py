"""AdamW and gradient clipping, on plain or sharded (FSDP2) parameters."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from training.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with weight decay on matrices only, never on norms.

    The fused kernel does the whole update in one pass over memory; torch has it for CPU and CUDA.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def clip_gradients(model: nn.Module, max_norm: float) -> float:
    """Scale all gradients so that their global L2 norm is at most `max_norm`; returns the norm before.

    With sharded parameters the norm is that over all workers (a collective call), the same on each.
    """
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
