"""Rotary positions (Su et al. 2021, arXiv 2104.09864) in the half-split layout, and their scaling to longer rows.

| `rope_scaling.method` | what it does for rows `factor` times as long |
|---|---|
| linear | every position divided by `factor`: position interpolation (Chen et al. 2023, arXiv 2306.15595) |
| ntk | a larger base, so that slow pairs are stretched and fast ones hardly (`ModelConfig.rotary_base`) |
| yarn | slow pairs interpolated, fast ones left alone, a ramp between, and scores made sharper (Peng et al. 2023, arXiv 2309.00071) |

The arithmetic follows transformers step by step, so that tables are equal to the last bit. A pair is (i, i + E/2) of a head of
width E.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.config import YARN_BETA_FAST, YARN_BETA_SLOW, ModelConfig


def rotary_tables(config: ModelConfig, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines [max_position_embeddings, E] of the rotary angles, fp32, times YaRN's attention factor."""
    angles = torch.outer(torch.arange(config.max_position_embeddings, dtype=torch.float32, device=device), frequencies(config, device))
    angles = torch.cat((angles, angles), dim=-1)
    factor = attention_factor(config)
    return angles.cos() * factor, angles.sin() * factor


def frequencies(config: ModelConfig, device: torch.device | None = None) -> Tensor:
    """Radians by position of each pair, fp32 [E/2]."""
    width = config.head_dim
    wavelengths = config.rotary_base ** (torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    plain = 1.0 / wavelengths
    scaling = config.rope_scaling
    if scaling is None or scaling.method == "ntk":
        return plain
    if scaling.method == "linear":
        return plain / scaling.factor
    kept = 1 - _yarn_ramp(config, device)
    return 1.0 / (scaling.factor * wavelengths) * (1 - kept) + plain * kept


def _yarn_ramp(config: ModelConfig, device: torch.device | None) -> Tensor:
    """Share of interpolation of each pair, fp32 [E/2]: 0 for those that turn often over the unscaled positions, 1 for slow ones."""
    width, base = config.head_dim, config.rotary_base

    def pair_with(turns: float) -> float:
        """The (fractional) pair that turns so often over the unscaled positions."""
        return width * math.log(config.unscaled_positions / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(pair_with(YARN_BETA_FAST)), 0), min(math.ceil(pair_with(YARN_BETA_SLOW)), width - 1)
    steepness = high - low if high != low else 0.001
    return ((torch.arange(width // 2, dtype=torch.float32, device=device) - low) / steepness).clamp(0, 1)


def attention_factor(config: ModelConfig) -> float:
    """What cosines and sines are multiplied by: YaRN's 0.1 ln(factor) + 1 (scores grow by its square), else 1."""
    scaling = config.rope_scaling
    return 0.1 * math.log(scaling.factor) + 1.0 if scaling and scaling.method == "yarn" else 1.0


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + E/2) of `heads` [B, H, T, E] by the angle of its position."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-second, first), dim=-1) * sin
