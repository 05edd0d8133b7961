"""Learning rate as a pure function of the step."""

from __future__ import annotations

import math

from training.config import OptimConfig


def learning_rate(step: int, total_steps: int, config: OptimConfig) -> float:
    """The rate of optimizer step `step` (counted from 0) of `total_steps`."""
    peak, floor = config.learning_rate, config.learning_rate * config.min_lr_ratio
    warmup = math.ceil(config.warmup_ratio * total_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.schedule == "cosine":
        progress = (step - warmup) / max(1, total_steps - 1 - warmup)
        return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    decay = math.ceil(config.decay_ratio * total_steps)
    left = total_steps - 1 - step
    return peak if left >= decay else floor + (peak - floor) * max(0, left) / max(1, decay)
