"""A Llama-shaped decoder with Hugging Face parameter names.

RMSNorm before each half of a block, rotary positions in the half-split layout, grouped-query attention, SwiGLU
(Touvron et al. 2023, arXiv 2302.13971). The state dict is that of `transformers.LlamaForCausalLM`, so an export is the
state dict beside a `config.json`, with no permutation.

Shapes in comments and docstrings: B rows, T positions, D hidden width, H query heads, K key/value heads, E head width,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.config import LOSS_CHUNK_ELEMENTS, PRODUCTS_MAX_LENGTH, ModelConfig

IGNORE = -100
"""Target of a position that has no loss."""

Attend = Callable[[Tensor, Tensor, Tensor, Any], Tensor]
SoftmaxStep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Llama(nn.Module):
    """Causal language model: token ids in, loss or logits out."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.model = Decoder(config, vocab_size)
        self.lm_head = None if config.tie_word_embeddings else nn.Linear(config.hidden_size, vocab_size, bias=False)
        self.softmax_step: SoftmaxStep = softmax_step

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        segment_ids: Tensor | None = None,
        reduction: Literal["sum", "none"] = "sum",
    ) -> Tensor:
        """Logits [B, T, V] without `targets`; with them cross-entropy in nats, fp32, 0 where the target is -100.

        `tokens`, `targets` and `segment_ids` are int64 [B, T]; `targets[b, t]` is what should follow `tokens[b, t]`.
        `reduction="sum"` gives the sum over all positions (divide by the number of valid targets of the whole step for
        a mean that packing and accumulation cannot bend), `"none"` the losses [B, T].

        Positions attend only to earlier ones of their row with the same segment id. Rotary positions go on counting over
        the row: only differences of positions enter attention, so a document reads as it would in a row of its own.
        """
        hidden = self.model(tokens, segment_ids)
        weight = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        if targets is None:
            return F.linear(hidden, weight)
        losses = linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten(), reduction, self.softmax_step)
        return losses if reduction == "sum" else losses.view_as(targets)


class Decoder(nn.Module):
    """Embedding, blocks and the last norm: tokens [B, T] to hidden states [B, T, D]."""

    rotary_cos: Tensor
    rotary_sin: Tensor

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
        if length > self.config.max_position_embeddings:
            raise ValueError(f"rows of {length} tokens do not fit max_position_embeddings {self.config.max_position_embeddings}")
        hidden = self.embed_tokens(tokens)
        cos, sin = self.rotary_cos[:length].to(hidden.dtype), self.rotary_sin[:length].to(hidden.dtype)
        mask = None if segment_ids is None else segment_mask(segment_ids)
        attend = attend_fused
        if hidden.device.type == "cpu" and hidden.dtype == torch.bfloat16 and length <= PRODUCTS_MAX_LENGTH:
            allowed = causal_mask(length, hidden.device) if mask is None else mask
            mask = torch.zeros_like(allowed, dtype=hidden.dtype).masked_fill_(~allowed, float("-inf"))
            attend = attend_by_products
        for layer in self.layers:
            hidden = layer(hidden, cos, sin, mask, attend)
        return self.norm(hidden)


class Block(nn.Module):
    """Attention, then the MLP, each after a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, attend: Attend) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin, mask, attend)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Attention(nn.Module):
    """Causal self-attention; K key/value heads serve H query heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.hidden_size // config.num_attention_heads
        width, kv_width = config.hidden_size, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, attend: Attend) -> Tensor:
        batch, length, _ = hidden.shape
        shape = (batch, length, -1, self.head_dim)
        query = rotate(self.q_proj(hidden).view(shape).transpose(1, 2), cos, sin)
        key = rotate(self.k_proj(hidden).view(shape).transpose(1, 2), cos, sin)
        value = self.v_proj(hidden).view(shape).transpose(1, 2)
        mixed = attend(query, key, value, mask)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


def attend_fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """torch's attention of `query` [B, H, T, E] over `key` and `value` [B, K, T, E]: causal, or where the bool `mask` allows."""
    grouped = key.shape[1] != query.shape[1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)


def attend_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The same from plain products with all weights [B, H, T, T] in memory; `mask` (0 or -inf) is added to the scores.

    For short rows in bf16 on CPU, where torch's fused kernel takes 2.5 times as long: its backward pass does not use the
    processor's bf16 products.
    """
    batch, heads, length, width = query.shape
    groups = key.shape[1]
    stacked = (query * width**-0.5).reshape(batch * groups, heads // groups * length, width)
    scores = torch.bmm(stacked, key.reshape(batch * groups, length, width).transpose(1, 2)).view(batch, heads, length, length)
    weights = torch.softmax(scores + mask, dim=-1)
    mixed = torch.bmm(weights.view(batch * groups, -1, length), value.reshape(batch * groups, length, width))
    return mixed.view(batch, heads, length, width)


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467), computed in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(hidden.dtype)


def rotary_tables(config: ModelConfig, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines [max_position_embeddings, E] of the rotary angles, fp32 (Su et al. 2021, arXiv 2104.09864)."""
    head_dim = config.hidden_size // config.num_attention_heads
    frequencies = config.rope_theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
    angles = torch.outer(torch.arange(config.max_position_embeddings, dtype=torch.float32, device=device), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + E/2) of `heads` [B, H, T, E] by the angle of its position."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-second, first), dim=-1) * sin


def segment_mask(segment_ids: Tensor) -> Tensor:
    """Which positions may be attended to, bool [B, 1, T, T]: no later ones, and only of the same segment."""
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return same & causal_mask(segment_ids.shape[1], segment_ids.device)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Which positions may be attended to in a row that is one document, bool [T, T]."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def softmax_step(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of `logits` [N, V] (fp32 scalar) and its gradient by them, in their dtype."""
    log_probs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    valid = (targets != IGNORE).unsqueeze(1)
    index = targets.clamp_min(0).unsqueeze(1)
    loss = -(log_probs.gather(1, index) * valid).sum()
    grad = log_probs.exp_().scatter_add_(1, index, torch.full_like(index, -1, dtype=torch.float32)).mul_(valid)
    return loss, grad.to(logits.dtype)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, reduction: Literal["sum", "none"], step: SoftmaxStep = softmax_step
) -> Tensor:
    """Cross-entropy of `hidden @ weight.T` ([N, D], [V, D]) against `targets` [N], fp32, never holding all logits.

    Rows are done in chunks. For the sum, both gradients are made on the way forward, while the logits of a chunk are there,
    so nothing is computed twice; single losses recompute their logits on the way back.
    """
    rows = max(1, LOSS_CHUNK_ELEMENTS[hidden.device.type] // weight.shape[0])
    wants_grad = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    if reduction == "sum" and wants_grad:
        return _SummedCrossEntropy.apply(hidden, weight, targets, rows, step)
    losses = []
    for part, wanted in zip(hidden.split(rows), targets.split(rows), strict=True):
        losses.append(checkpoint(_losses, part, weight, wanted, use_reentrant=False) if wants_grad else _losses(part, weight, wanted))
    joined = torch.cat(losses)
    return joined.sum() if reduction == "sum" else joined


def _losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, ignore_index=IGNORE, reduction="none")


class _SummedCrossEntropy(torch.autograd.Function):
    """The sum, with both gradients computed in `forward` and scaled in `backward`; the weight's is summed in fp32."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int, step: SoftmaxStep) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden)
        weight_grad = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, hidden.shape[0], rows):
            part = hidden[start : start + rows]
            loss, logits_grad = step(part @ weight.t(), targets[start : start + rows])
            total += loss
            hidden_grad[start : start + rows] = logits_grad @ weight
            weight_grad += logits_grad.t() @ part
        ctx.save_for_backward(hidden_grad, weight_grad.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad, weight_grad = ctx.saved_tensors
        scale = grads[0]
        return hidden_grad * scale.to(hidden_grad.dtype), weight_grad * scale.to(weight_grad.dtype), None, None, None


def compile_model(model: Llama) -> None:
    """Compile each block (one compilation, since all are alike) and the softmax of the loss. Call it before `fully_shard`."""
    for layer in model.model.layers:
        layer.compile(dynamic=False)
    model.softmax_step = torch.compile(softmax_step, dynamic=False)


@torch.no_grad()
def init_weights(model: Llama, seed: int) -> None:
    """Fill all parameters and the rotary tables in place, wherever they are: also sharded, or just out of `to_empty`.

    Matrices are normal with `initializer_range`, those that write to the residual stream divided by sqrt(2 layers)
    (Radford et al. 2019); norms are 1. Every worker draws the same whole matrices on its CPU and keeps its own shard, so
    the values depend on the seed and the shapes alone.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    config = model.config
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)
            continue
        residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        std = config.initializer_range / ((2 * config.num_hidden_layers) ** 0.5 if residual else 1.0)
        full = torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
        if isinstance(parameter, DTensor):
            full = distribute_tensor(full.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.copy_(full)
    cos, sin = rotary_tables(config)
    model.model.rotary_cos.copy_(cos)
    model.model.rotary_sin.copy_(sin)
