"""Causal attention inside the documents of a row: which kernel runs, and what it must know of the documents.

| device | rows | kernel |
|---|---|---|
| CUDA from 8.0, bf16 | packed documents | `attend_varlen`: flash attention over each document by itself |
| CPU, bf16 | up to 1,024 positions | `attend_by_products`: plain products, all weights in memory |
| any other case | any | `attend_fused`: torch's scaled_dot_product_attention, causal or with a mask |

All are the same function. A document is a run of positions with the same segment id: ids may be any numbers, but one that
comes back later in the row is taken for the same document by the masks and for another by `attend_varlen`.

Shapes: B rows, T positions, H query heads, K key/value heads, E head width, N documents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from training.config import PRODUCTS_MAX_LENGTH

Attend = Callable[[Tensor, Tensor, Tensor, Any], Tensor]
"""From query [B, H, T, E], key and value [B, K, T, E] and what the kernel knows of the documents to [B, H, T, E]."""

OFFSETS = "document_offsets"
"""Name of `document_offsets` in a batch's `extra`: counted before the batch goes to the device, it spares the GPU a wait."""

VARLEN_CAPABILITY = (8, 0)
VARLEN_MAX_HEAD_DIM = 256


def choose_attention(
    hidden: Tensor, head_dim: int, segment_ids: Tensor | None, offsets: Tensor | None = None
) -> tuple[Attend, Tensor | None]:
    """The kernel for rows like `hidden` [B, T, D], and its fourth argument.

    `offsets` are the `document_offsets` of `segment_ids` where they are already known; else a GPU waits once to count them.
    """
    length, device, dtype = hidden.shape[1], hidden.device, hidden.dtype
    if segment_ids is not None and has_varlen(device, dtype, head_dim):
        offsets = document_offsets(segment_ids) if offsets is None else offsets
        # The number of documents differs from batch to batch; a block compiled once takes any.
        torch._dynamo.maybe_mark_dynamic(offsets, 0)
        return attend_varlen, offsets
    mask = None if segment_ids is None else segment_mask(segment_ids)
    if device.type == "cpu" and dtype == torch.bfloat16 and length <= PRODUCTS_MAX_LENGTH:
        allowed = causal_mask(length, device) if mask is None else mask
        return attend_by_products, torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, float("-inf"))
    return attend_fused, mask


def has_varlen(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether torch's flash kernel for documents of unequal length runs here."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16) or head_dim % 8 or head_dim > VARLEN_MAX_HEAD_DIM:
        return False
    return torch.cuda.get_device_capability(device) >= VARLEN_CAPABILITY


def attend_varlen(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor) -> Tensor:
    """Flash attention over the documents that `offsets` (`document_offsets`) cuts out of the rows laid end to end."""
    batch, heads, length, width = query.shape
    grouped = key.shape[1] != heads
    query, key, value = (tensor.transpose(1, 2).reshape(batch * length, -1, width) for tensor in (query, key, value))
    mixed = varlen_attn(query, key, value, offsets, offsets, length, length, window_size=(-1, 0), enable_gqa=grouped)
    assert isinstance(mixed, Tensor)
    return mixed.view(batch, length, heads, width).transpose(1, 2)


def attend_fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """torch's own choice of kernel: causal, or where the bool `mask` allows."""
    grouped = key.shape[1] != query.shape[1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)


def attend_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The same with all weights [B, H, T, T] in memory; `mask` (0 or -inf) is added to the scores.

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


def document_offsets(segment_ids: Tensor) -> Tensor:
    """Where documents begin in the rows of `segment_ids` [B, T] laid end to end, and where the last ends: int32 [N + 1]."""
    begins = torch.ones_like(segment_ids, dtype=torch.bool)
    torch.ne(segment_ids[:, 1:], segment_ids[:, :-1], out=begins[:, 1:])
    return F.pad(begins.flatten().nonzero().flatten(), (0, 1), value=segment_ids.numel()).to(torch.int32)


def segment_mask(segment_ids: Tensor) -> Tensor:
    """Which positions may be attended to, bool [B, 1, T, T]: no later ones, and only of the same segment."""
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return same & causal_mask(segment_ids.shape[1], segment_ids.device)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Which positions may be attended to in a row that is one document, bool [T, T]."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
