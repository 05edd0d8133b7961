"""The mean of a run's last checkpoints, which does part of what a cool-down does (LAWA: Kaddour 2022, arXiv 2209.14981)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.checkpoint import checkpoint_path, checkpoint_steps
from training.dcp import read_checkpoint


def average_checkpoints(weights: Mapping[str, Any], folder: Path, count: int) -> list[int]:
    """Put the mean of the last `count` checkpoints' weights into `weights` (plain or sharded tensors); returns their steps.

    They are read one after another and summed in fp32. Plain tensors need no process group.
    """
    steps = checkpoint_steps(folder)[-count:]
    sums = {name: torch.zeros_like(tensor, dtype=torch.float32) for name, tensor in weights.items()}
    for step in steps:
        read_checkpoint({"model": weights}, checkpoint_path(folder, step))
        for name, total in sums.items():
            total += weights[name]
    for name, total in sums.items():
        weights[name].copy_(total / len(steps))
    return steps
