"""LoRA (Hu et al. 2021, arXiv 2106.09685): the weights are frozen, and beside chosen ones a low-rank update is trained.

A layer gives W x + (alpha / rank) B A x, with A [rank, in] and B [out, rank]; B starts at 0, so training starts from the model
as it is. The names are peft's: `adapter/` (adapter_config.json, adapter_model.safetensors) is what peft and vLLM load.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.model import Llama, fill

if TYPE_CHECKING:
    from cluster.storage import Folder
    from training.config import LoraConfig

ADAPTER = "adapter"
A, B = ".lora_A.weight", ".lora_B.weight"
PEFT_PREFIX = "base_model.model."


class LoraLinear(nn.Linear):
    """A linear layer (its weight under the old name) with an adapter. Input [..., in] to [..., out]."""

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__(base.in_features, base.out_features, bias=False)
        self.weight = base.weight
        self.lora_A = nn.Linear(base.in_features, config.rank, bias=False)
        self.lora_B = nn.Linear(config.rank, base.out_features, bias=False)
        self.scale, self.dropout = config.alpha / config.rank, config.dropout

    def forward(self, input: Tensor) -> Tensor:
        seen = F.dropout(input, self.dropout, self.training) if self.dropout else input
        return super().forward(input) + self.lora_B(self.lora_A(seen)) * self.scale


def add_adapters(model: Llama, config: LoraConfig) -> None:
    """Freeze the model and give the target layers adapters, wherever it is (also on meta); `init_adapters` fills them.

    Call it before compiling and `fully_shard`.
    """
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        parent, _, leaf = name.rpartition(".")
        if leaf in config.targets and isinstance(module, nn.Linear):
            with torch.device(module.weight.device):
                setattr(model.get_submodule(parent), leaf, LoraLinear(module, config))


@torch.no_grad()
def init_adapters(model: nn.Module, seed: int) -> None:
    """A uniform within 1 / sqrt(in), as peft has it (Kaiming's with a = sqrt 5), B zero; equal for a seed on any number of workers."""
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith(A):
            bound = 1 / math.sqrt(parameter.shape[1])
            fill(parameter, torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
        elif name.endswith(B):
            parameter.zero_()


def merged(weights: dict[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Weights of a plain model that computes the same: W + (alpha / rank) B A, in fp32."""
    plain = {name: tensor for name, tensor in weights.items() if not name.endswith((A, B))}
    for name, first in weights.items():
        if name.endswith(A):
            stem = name.removesuffix(A)
            update = weights[f"{stem}{B}"].float() @ first.float()
            plain[f"{stem}.weight"] = plain[f"{stem}.weight"].float() + update * (config.alpha / config.rank)
    return plain


def export_adapter(weights: dict[str, Tensor], config: LoraConfig, base: str, out: Folder) -> None:
    """Write `out/adapter/`, fp32, in peft's format. `weights` are those of a model with adapters, `base` the export they belong to."""
    from safetensors.torch import save

    adapters = {PEFT_PREFIX + name: tensor.contiguous() for name, tensor in sorted(weights.items()) if name.endswith((A, B))}
    folder = out / ADAPTER
    folder.write_bytes("adapter_model.safetensors", save(adapters, metadata={"format": "pt"}))
    folder.write_json(
        "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "target_modules": sorted(config.targets),
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
        },
    )
