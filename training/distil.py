"""Distillation by logits: a model learns a larger one's distribution beside the text (Hinton et al. 2015, arXiv 1503.02531).

A target costs (1 - alpha) H(text, q) + alpha T^2 KL(p_T || q_T) nats, with p_T and q_T the teacher's and the student's softmax
of logits / T; T^2 keeps the size of the gradient. Only targets of the text count. The logits of both are there a chunk at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.errors import RequestError
from cluster.storage import Folder
from training.attention import OFFSETS
from training.config import DistilConfig, LoopConfig, ModelConfig
from training.data import content_hash
from training.distributed import compute_precision
from training.export import model_config
from training.loss import IGNORE, softmax_step
from training.model import Llama
from training.objectives import DeviceBatch
from training.rope import rotary_tables

WEIGHTS = "model.safetensors"


def teacher_hash(config: DistilConfig) -> str:
    """What names the teacher in the student's artifact; a `RequestError` where there is no export."""
    folder = Folder(config.teacher)
    missing = [name for name in ("config.json", "tokenizer.json", WEIGHTS) if not (folder.is_local and folder.exists(name))]
    if missing:
        raise RequestError(f"distil.teacher: {folder} has no {missing[0]}; give the local or mounted folder of a Hugging Face export")
    return content_hash(folder.read_json("config.json"), [folder.local_path(name) for name in ("tokenizer.json", WEIGHTS)])


def distillation(settings: LoopConfig, config: DistilConfig, tokenizer: Folder) -> Distillation:
    """The objective, checked: the teacher reads the same tokens and rows as long."""
    folder = Folder(config.teacher)
    if folder.read_json("tokenizer.json") != tokenizer.read_json("tokenizer.json"):
        raise RequestError(f"distil.teacher: {folder} has another tokenizer than this run, so its logits mean other tokens")
    model, vocab_size = model_config(folder.read_json("config.json"))
    if model.max_position_embeddings < settings.seq_len:
        raise RequestError(f"distil.teacher: {folder} reads {model.max_position_embeddings} tokens, fewer than seq_len {settings.seq_len}")
    return Distillation(folder, model, vocab_size, config.alpha, config.temperature, settings.precision)


@dataclass
class Distillation:
    """The objective. Each worker holds the whole teacher in the precision of its products, loaded at the first batch."""

    folder: Folder
    model: ModelConfig
    vocab_size: int
    alpha: float
    temperature: float
    precision: Literal["auto", "bf16", "fp32"]
    _teacher: Llama | None = field(default=None, init=False, repr=False, compare=False)

    def __call__(self, model: Llama, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
        assert batch.weights is None
        teacher, targets, offsets = self._loaded(batch.tokens.device), batch.targets.flatten(), batch.extra.get(OFFSETS)
        with torch.no_grad():
            hidden = teacher.model(batch.tokens, batch.segments, offsets).flatten(0, 1)

        def step(logits: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
            return distil_step(logits, F.linear(hidden[places], teacher.head_weight), targets[places], self.alpha, self.temperature)

        places = torch.arange(len(targets), device=targets.device).view_as(batch.targets)
        return model(batch.tokens, places, batch.segments, document_offsets=offsets, step=step), (targets != IGNORE).sum()

    def _loaded(self, device: torch.device) -> Llama:
        if self._teacher is None:
            dtype = torch.bfloat16 if compute_precision(self.precision, device) == "bf16" else torch.float32
            self._teacher = load_export(self.folder, self.model, self.vocab_size, device, dtype)
        return self._teacher


def distil_step(logits: Tensor, teacher: Tensor, targets: Tensor, alpha: float, temperature: float) -> tuple[Tensor, Tensor]:
    """Summed loss (fp32 scalar) of `logits` [N, V] beside those of the `teacher`, and its gradient by them, in their dtype."""
    text, text_grad = softmax_step(logits, targets)
    valid = (targets != IGNORE).unsqueeze(1)
    found = torch.log_softmax(logits / temperature, dim=-1, dtype=torch.float32)
    wanted = torch.log_softmax(teacher / temperature, dim=-1, dtype=torch.float32)
    share = wanted.exp() * valid
    divergence = (share * (wanted - found)).sum() * temperature**2
    grad = (found.exp() * valid - share) * temperature
    return torch.lerp(text, divergence, alpha), torch.lerp(text_grad.float(), grad, alpha).to(logits.dtype)


def load_export(folder: Folder, config: ModelConfig, vocab_size: int, device: torch.device, dtype: torch.dtype) -> Llama:
    """The frozen model of a local Hugging Face export, whole on `device`."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = Llama(config, vocab_size)
    weights = load_file(folder.local_path(WEIGHTS), device=str(device))
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in weights.items()}, assign=True)
    model.model.rotary_cos, model.model.rotary_sin = (table.to(device) for table in rotary_tables(config))
    return model.requires_grad_(False).eval()
