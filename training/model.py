"""A Llama-shaped decoder with Hugging Face parameter names.

RMSNorm before each half of a block, rotary positions in the half-split layout, grouped-query attention, SwiGLU
(Touvron et al. 2023, arXiv 2302.13971). The state dict is that of `transformers.LlamaForCausalLM`, so an export is the
state dict beside a `config.json`, with no permutation.

Shapes in comments and docstrings: B rows, T positions, D hidden width, H query heads, K key/value heads, E head width,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from training.attention import Attend, choose_attention
from training.config import ModelConfig
from training.loss import SoftmaxStep, linear_cross_entropy, softmax_step
from training.rope import rotary_tables, rotate

Recompute = Literal["none", "selective", "full"]

KEPT = [
    torch.ops.aten.mm.default,
    torch.ops.aten._scaled_mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.torch_attn._varlen_attn.default,
]
"""What selective checkpointing keeps of a block, as in torchtitan: the products with weights, and attention. The plain products
of `attend_by_products` are not among them: they hold all weights of attention."""


class Llama(nn.Module):
    """Causal language model: token ids in, loss or logits out."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.model = Decoder(config, vocab_size)
        self.lm_head = None if config.tie_word_embeddings else nn.Linear(config.hidden_size, vocab_size, bias=False)
        self.softmax_step: SoftmaxStep = softmax_step

    @property
    def head_weight(self) -> Tensor:
        """What hidden states are multiplied by for logits [V, D]."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        segment_ids: Tensor | None = None,
        reduction: Literal["sum", "none"] = "sum",
        document_offsets: Tensor | None = None,
        step: SoftmaxStep | None = None,
    ) -> Tensor:
        """Logits [B, T, V] without `targets`; with them cross-entropy in nats, fp32, 0 where the target is -100.

        `tokens`, `targets` and `segment_ids` are int64 [B, T]; `targets[b, t]` is what should follow `tokens[b, t]`.
        `reduction="sum"` gives the sum over all positions (divide by the number of valid targets of the whole step for
        a mean that packing and accumulation cannot bend), `"none"` the losses [B, T].

        Positions attend only to earlier ones of their row with the same segment id. Rotary positions go on counting over
        the row: only differences of positions enter attention, so a document reads as it would in a row of its own.
        `document_offsets` (`training/attention.py`) say again where segments begin, for the kernels that want to know.

        While gradients are wanted, `step` makes another summed loss of logits and targets (`loss.softmax_step`), whatever
        `targets` then mean to it.
        """
        hidden = self.model(tokens, segment_ids, document_offsets)
        if targets is None:
            return F.linear(hidden, self.head_weight)
        losses = linear_cross_entropy(hidden.flatten(0, 1), self.head_weight, targets.flatten(), reduction, step or self.softmax_step)
        # A copy: FSDP warns of forward passes that return views.
        return losses if reduction == "sum" else losses.view_as(targets).clone()


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

    def forward(self, tokens: Tensor, segment_ids: Tensor | None = None, document_offsets: Tensor | None = None) -> Tensor:
        length = tokens.shape[1]
        if length > self.config.max_position_embeddings:
            raise ValueError(f"rows of {length} tokens do not fit max_position_embeddings {self.config.max_position_embeddings}")
        hidden = self.embed_tokens(tokens)
        cos, sin = self.rotary_cos[:length].to(hidden.dtype), self.rotary_sin[:length].to(hidden.dtype)
        attend, documents = choose_attention(hidden, self.config.head_dim, segment_ids, document_offsets)
        for layer in self.layers:
            hidden = layer(hidden, cos, sin, documents, attend)
        return self.norm(hidden)


class Block(nn.Module):
    """Attention, then the MLP, each after a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.recompute: Recompute = "none"

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, documents: Tensor | None, attend: Attend) -> Tensor:
        def run(hidden: Tensor) -> Tensor:
            hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin, documents, attend)
            return hidden + self.mlp(self.post_attention_layernorm(hidden))

        if self.recompute == "none":
            return run(hidden)
        if self.recompute == "full":
            return checkpoint(run, hidden, use_reentrant=False, preserve_rng_state=False)
        kept = partial(create_selective_checkpoint_contexts, KEPT)
        return checkpoint(run, hidden, use_reentrant=False, preserve_rng_state=False, context_fn=kept)


class Attention(nn.Module):
    """Causal self-attention; K key/value heads serve H query heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        width, kv_width = config.hidden_size, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, documents: Tensor | None, attend: Attend) -> Tensor:
        batch, length, _ = hidden.shape
        shape = (batch, length, -1, self.head_dim)
        query = rotate(self.q_proj(hidden).view(shape).transpose(1, 2), cos, sin)
        key = rotate(self.k_proj(hidden).view(shape).transpose(1, 2), cos, sin)
        value = self.v_proj(hidden).view(shape).transpose(1, 2)
        mixed = attend(query, key, value, documents)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


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


def checkpoint_activations(model: Llama, recompute: Recompute) -> None:
    """What the backward pass computes again instead of keeping (Chen et al. 2016, arXiv 1604.06174): "none", "selective" (all but
    what `KEPT` names) or "full" (each block from its input). Call it before `compile_model`."""
    for layer in model.model.layers:
        assert isinstance(layer, Block)
        layer.recompute = recompute


def compile_model(model: Llama, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile each block (one compilation, since all are alike) and the softmax of the loss. Call it before `fully_shard`."""
    for layer in model.model.layers:
        layer.compile(dynamic=False, backend=backend)
    model.softmax_step = torch.compile(softmax_step, dynamic=False, backend=backend)


@torch.no_grad()
def init_weights(model: Llama, seed: int) -> None:
    """Fill all parameters and the rotary tables in place, wherever they are: also sharded, or just out of `to_empty`.

    Matrices are normal with `initializer_range`, those that write to the residual stream divided by sqrt(2 layers)
    (Radford et al. 2019); norms are 1. Every worker draws the same whole matrices on its CPU and keeps its own shard, so
    the values depend on the seed and the shapes alone. Adapters are left to `training/lora.py`.
    """
    config = model.config
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        if parameter.ndim == 1:
            parameter.fill_(1.0)
            continue
        residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        std = config.initializer_range / ((2 * config.num_hidden_layers) ** 0.5 if residual else 1.0)
        fill(parameter, torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, std, generator=generator))
    cos, sin = rotary_tables(config)
    model.model.rotary_cos.copy_(cos)
    model.model.rotary_sin.copy_(sin)


@torch.no_grad()
def fill(parameter: Tensor, full: Tensor) -> None:
    """Copy `full`, which every worker has, into a parameter or into this worker's shard of it."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(parameter, DTensor):
        full = distribute_tensor(full.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.copy_(full)
