"""The blocks' matrix products in fp8, through torchao: an option for GPUs that have such products.

Weights, inputs and gradients are scaled to fp8 tensor by tensor at each product (Micikevicius et al. 2022, arXiv 2209.05433);
all else stays in bf16, and so do the embedding and the head, whose gradients are the most easily lost.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch
from torch import nn

from cluster.errors import RequestError

if TYPE_CHECKING:
    from training.model import Llama

FP8_CAPABILITY = (8, 9)
TILE = 16
"""Sides of fp8 products are multiples of it."""


def use_fp8(model: Llama, device: torch.device) -> None:
    """Make the blocks of a model for `device` compute in fp8; a `RequestError` where that cannot be. Parameters keep their
    names. Call it before `compile_model`."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
        raise RequestError(f"fp8 needs an NVIDIA GPU of compute capability 8.9 or later and this is {name}; set fp8 to false in the recipe")
    convert_blocks(model)


def convert_blocks(model: Llama, emulate: bool = False) -> None:
    """Put torchao's layers in the place of the blocks' linear ones; `emulate` computes their rounding on any device."""
    for name, layer in model.model.layers.named_modules():
        if isinstance(layer, nn.Linear) and (layer.in_features % TILE or layer.out_features % TILE):
            sides = f"{layer.in_features} x {layer.out_features}"
            raise RequestError(f"fp8 needs widths that are multiples of {TILE} and layers.{name} is {sides}; change the model's sizes")
    if importlib.util.find_spec("torchao") is None:
        raise RequestError("fp8 needs torchao, which is not installed; run: pip install 'fournil[fp8]'")
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training  # type: ignore[import-not-found]

    convert_to_float8_training(model.model.layers, config=Float8LinearConfig(pad_inner_dim=True, emulate=emulate))
