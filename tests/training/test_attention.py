"""Every kernel of attention against torch's masked one, and packed documents against the same documents alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import varlen

from tests.training.test_model import VOCAB, config, model_of, oracle_loss, oracle_of
from training import attention
from training.attention import (
    attend_by_products,
    attend_fused,
    attend_varlen,
    choose_attention,
    document_offsets,
    has_varlen,
    segment_mask,
)
from training.config import PRODUCTS_MAX_LENGTH
from training.export import END_OF_TEXT, PAD
from training.model import compile_model


def documents_apart(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor) -> Tensor:
    """Causal attention of each document in a call of its own; query [T, H, E], key and value [T, K, E]."""
    bounds = offsets.tolist()
    parts = []
    for start, stop in pairwise(bounds):
        part = [tensor[start:stop].transpose(0, 1).unsqueeze(0) for tensor in (query, key, value)]
        parts.append(F.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(parts)


def documents_apart_backward(grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, offsets: Tensor) -> list[Tensor]:
    """Its gradients by hand: an operator's kernel runs below autograd."""
    group, scale, grads = query.shape[1] // key.shape[1], query.shape[2] ** -0.5, []
    for start, stop in pairwise(offsets.tolist()):
        outward, q, k, v = (tensor[start:stop].transpose(0, 1) for tensor in (grad_out, query, key, value))
        wide_k, wide_v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        weights = (q @ wide_k.mT * scale + torch.full((stop - start, stop - start), -torch.inf).triu(1)).softmax(-1)
        inward = outward @ wide_v.mT
        scores = weights * (inward - (inward * weights).sum(-1, keepdim=True)) * scale
        by_head = scores @ wide_k, scores.mT @ q, weights.mT @ outward
        grads.append([by_head[0], *(part.unflatten(0, (-1, group)).sum(1) for part in by_head[1:])])
    return [torch.cat(parts, dim=1).transpose(0, 1).contiguous() for parts in zip(*grads, strict=True)]


@pytest.fixture(scope="module")
def varlen_on_cpu() -> None:
    """torch has this operator for GPUs alone: give it a kernel for CPU, so that what we hand it and take from it is tried."""

    @varlen._varlen_attn.register_kernel("cpu")
    def forward(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        assert torch.equal(cu_seq_q, cu_seq_k)
        assert cu_seq_q.dtype == torch.int32
        assert rest[2] is True, "causal"
        nothing = torch.empty(query.shape[1], query.shape[0]), torch.empty(2, dtype=torch.uint64)
        return documents_apart(query, key, value, cu_seq_q), *nothing

    @varlen._varlen_attn_backward.register_kernel("cpu")
    def backward(grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Any:
        _, _, offsets, *_ = rest
        return documents_apart_backward(grad_out, query, key, value, offsets)


@pytest.mark.usefixtures("varlen_on_cpu")
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_all_kernels_are_one_function(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(4)
    shapes = ((2, 4, 10, 8), (2, kv_heads, 10, 8), (2, kv_heads, 10, 8))
    query, key, value = (torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes)
    segments = torch.tensor([[0] * 4 + [1] * 6, [5] * 10])
    allowed = segment_mask(segments)
    added = torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))
    fused = attend_fused(query, key, value, allowed)
    wanted = torch.autograd.grad(fused.square().sum(), (query, key, value))
    for kernel, documents in ((attend_by_products, added), (attend_varlen, document_offsets(segments))):
        mixed = kernel(query, key, value, documents)
        torch.testing.assert_close(mixed, fused)
        torch.testing.assert_close(torch.autograd.grad(mixed.square().sum(), (query, key, value)), wanted)


def test_kernel_by_device_type_and_length() -> None:
    segments = torch.zeros(1, 8, dtype=torch.long)
    short, long = torch.zeros(1, 8, 4), torch.zeros(1, PRODUCTS_MAX_LENGTH + 1, 4)
    assert choose_attention(short, 4, None) == (attend_fused, None)
    assert choose_attention(short, 4, segments)[0] is attend_fused
    assert choose_attention(short.bfloat16(), 4, segments)[0] is attend_by_products
    assert choose_attention(long.bfloat16(), 4, None) == (attend_fused, None)
    assert not has_varlen(torch.device("cpu"), torch.bfloat16, 64)


def test_offsets_are_where_segments_begin_and_the_last_ends() -> None:
    assert document_offsets(torch.tensor([[1, 1, 1, 2, 2, 2], [0, 0, 1, 2, 3, 3]])).tolist() == [0, 3, 6, 8, 9, 10, 12]
    assert document_offsets(torch.tensor([[4, 4], [4, 4]])).tolist() == [0, 2, 4]


def packed_row(lengths: tuple[int, ...]) -> tuple[list[Tensor], Tensor, Tensor]:
    """Documents without their end-of-text, and the row they make as `training/data.py` lays it out: tokens and targets [1, T]."""
    generator = torch.Generator().manual_seed(3)
    documents = [torch.randint(PAD + 1, VOCAB, (length,), generator=generator) for length in lengths]
    end = torch.tensor([END_OF_TEXT])
    row = torch.cat([end, *(part for document in documents for part in (document, end))]).unsqueeze(0)
    return documents, row[:, :-1], row[:, 1:]


@pytest.mark.usefixtures("varlen_on_cpu")
@pytest.mark.parametrize("kernel", ["fused", "varlen"])
def test_a_packed_row_reads_like_its_documents_apart(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits, loss and gradients are transformers' on each document by itself, although rotary positions do not restart."""
    monkeypatch.setattr(attention, "has_varlen", lambda *_: kernel == "varlen")
    model = model_of(config(rope_scaling={"method": "yarn", "factor": 2}))
    oracle = oracle_of(model)
    documents, tokens, targets = packed_row((9, 1, 22))
    segments = (tokens == END_OF_TEXT).cumsum(1)
    apart = torch.cat([oracle(input_ids=F.pad(text, (1, 0), value=END_OF_TEXT).unsqueeze(0)).logits for text in documents], dim=1)
    torch.testing.assert_close(model(tokens, segment_ids=segments), apart, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(tokens), apart, atol=1e-3)

    expected = oracle_loss(apart, targets)
    together = model(tokens, targets, segments, document_offsets=document_offsets(segments))
    torch.testing.assert_close(together, expected, rtol=1e-6, atol=0)
    expected.backward()
    together.backward()
    wanted = dict(oracle.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_one_segment_equals_plain_causal_attention() -> None:
    model = model_of(config())
    _, tokens, targets = packed_row((20, 8))
    torch.testing.assert_close(model(tokens, targets, torch.zeros_like(tokens)), model(tokens, targets))


@pytest.mark.usefixtures("varlen_on_cpu")
def test_any_number_of_documents_is_one_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "has_varlen", lambda *_: True)
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model, compiled = model_of(config()), model_of(config())
    compile_model(compiled, counter)
    for lengths in ((31,), (9, 1, 19), (2, 2, 2, 2, 2, 2, 2, 10), (15, 15)):
        _, tokens, targets = packed_row(lengths)
        assert tokens.shape[1] == 32
        segments = (tokens == END_OF_TEXT).cumsum(1)
        torch.testing.assert_close(compiled(tokens, targets, segments), model(tokens, targets, segments), rtol=1e-5, atol=0)
    assert counter.frame_count == 2, "a block and the softmax"
