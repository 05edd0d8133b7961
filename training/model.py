"""A Llama-shaped decoder with Hugging Face parameter names.

RMSNorm before each half of a block, rotary positions in the half-split layout, grouped-query attention, SwiGLU. The state
dict is `transformers.LlamaForCausalLM`'s own, so an export is the state dict plus `config.json`, with no permutation.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import ModelConfig

IGNORE = -100
LOSS_CHUNK_ELEMENTS = 1 << 23


class Llama(nn.Module):
    """Causal language model: token ids in, loss or logits out."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.model = Decoder(config, vocab_size)
        self.lm_head = None if config.tie_word_embeddings else nn.Linear(config.hidden_size, vocab_size, bias=False)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        segment_ids: Tensor | None = None,
        reduction: Literal["sum", "none"] = "sum",
    ) -> Tensor:
        hidden = self.model(tokens, segment_ids)
        weight = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        if targets is None:
            return F.linear(hidden, weight)
        losses = linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten(), reduction)
        return losses if reduction == "sum" else losses.view_as(targets)


class Decoder(nn.Module):
    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        cos, sin = rotary_tables(config)
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", sin, persistent=False)

    def forward(self, tokens: Tensor, segment_ids: Tensor | None = None) -> Tensor:
        length = tokens.shape[1]
        hidden = self.embed_tokens(tokens)
        cos, sin = self.rotary_cos[:length], self.rotary_sin[:length]
        mask = None if segment_ids is None else segment_mask(segment_ids)
        for layer in self.layers:
            hidden = layer(hidden, cos, sin, mask)
        return self.norm(hidden)


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin, mask)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.hidden_size // config.num_attention_heads
        width, kv_width = config.hidden_size, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, _ = hidden.shape
        shape = (batch, length, -1, self.head_dim)
        query = rotate(self.q_proj(hidden).view(shape).transpose(1, 2), cos, sin)
        key = rotate(self.k_proj(hidden).view(shape).transpose(1, 2), cos, sin)
        value = self.v_proj(hidden).view(shape).transpose(1, 2)
        grouped = key.shape[1] != query.shape[1]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale).to(hidden.dtype) * self.weight


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    head_dim = config.hidden_size // config.num_attention_heads
    frequencies = config.rope_theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(config.max_position_embeddings, dtype=torch.float32), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (heads * cos + turned * sin).to(heads.dtype)


def segment_mask(segment_ids: Tensor) -> Tensor:
    length = segment_ids.shape[1]
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return same & torch.ones(length, length, dtype=torch.bool, device=segment_ids.device).tril()


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, reduction: Literal["sum", "none"]) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, ignore_index=IGNORE, reduction=reduction)


@torch.no_grad()
def init_weights(model: nn.Module, seed: int) -> None:
    """Fill every parameter and the rotary tables in place; the same values for a seed on any number of workers."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(model, Llama)
    config = model.config
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)
            continue
        deep = name.endswith(("o_proj.weight", "down_proj.weight"))
        std = config.initializer_range / ((2 * config.num_hidden_layers) ** 0.5 if deep else 1.0)
        full = torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
        if isinstance(parameter, DTensor):
            full = distribute_tensor(full.to(parameter.device), parameter.device_mesh, parameter.placements)
        parameter.copy_(full)
    cos, sin = rotary_tables(config)
    model.model.rotary_cos.copy_(cos)
    model.model.rotary_sin.copy_(sin)
