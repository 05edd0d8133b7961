"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from training.config import OptimConfig


def learning_rate(step: int, total_steps: int, config: OptimConfig) -> float:
    """The rate of step `step` (from 0) of `total_steps`.

    Warm-up is linear and ends on the peak; its first step is not 0. Then `cosine` (Loshchilov and Hutter 2017, arXiv
    1608.03983) falls to `min_lr_ratio` of the peak on the last step; `wsd` (Hu et al. 2024, arXiv 2404.06395) stays at
    the peak and falls to it over the last `decay_ratio` of the steps, linearly or (`sqrt`) as 1 - sqrt of the share of the
    decay that is done (Haegele et al. 2024, arXiv 2405.18392). Where warm-up and decay meet, warm-up wins.
    """
    peak, floor = config.learning_rate, config.learning_rate * config.min_lr_ratio
    warmup = math.ceil(config.warmup_ratio * total_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    last = total_steps - 1
    if config.schedule == "cosine":
        progress = (step - warmup) / max(1, last - warmup)
        return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    decay = math.ceil(config.decay_ratio * total_steps)
    left = max(0, last - step)
    if left >= decay:
        return peak
    return floor + (peak - floor) * (left / decay if config.decay_shape == "linear" else 1 - math.sqrt(1 - left / decay))
