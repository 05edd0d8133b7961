"""The model against transformers' LlamaForCausalLM: logits, loss, gradients; packing; initialisation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from training.config import LOSS_CHUNK_ELEMENTS, ModelConfig
from training.export import huggingface_config
from training.model import (
    IGNORE,
    Llama,
    attend_by_products,
    attend_fused,
    compile_model,
    init_weights,
    linear_cross_entropy,
    rotary_tables,
    segment_mask,
)

VOCAB = 331


def config(**changes: Any) -> ModelConfig:
    small = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
    }
    return ModelConfig(**(small | changes))


def model_of(settings: ModelConfig, seed: int = 7) -> Llama:
    model = Llama(settings, VOCAB)
    init_weights(model, seed)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def oracle_of(model: Llama) -> Any:
    """transformers' model with the same weights, loaded by name with nothing missing or left over."""
    from transformers import LlamaConfig, LlamaForCausalLM

    oracle: Any = LlamaForCausalLM(LlamaConfig(**huggingface_config(model.config, VOCAB, "float32")))
    oracle.to(next(model.parameters()).dtype)
    missing, unexpected = oracle.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if model.config.tie_word_embeddings else set())
    return oracle


def batch(rows: int = 3, length: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, VOCAB, (rows, length + 1), generator=generator)
    targets = tokens[:, 1:].clone()
    targets[0, :5] = IGNORE
    return tokens[:, :-1], targets


def oracle_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum")


SHAPES = [
    pytest.param({}, id="tied-gqa"),
    pytest.param({"num_key_value_heads": 4}, id="tied-mha"),
    pytest.param({"tie_word_embeddings": False}, id="untied-gqa"),
    pytest.param({"tie_word_embeddings": False, "num_key_value_heads": 1, "rope_theta": 500_000.0}, id="untied-mqa-theta"),
]


@pytest.mark.parametrize("changes", SHAPES)
def test_logits_loss_and_gradients_equal_transformers(changes: dict[str, Any]) -> None:
    model = model_of(config(**changes))
    oracle = oracle_of(model)
    tokens, targets = batch()
    logits = oracle(input_ids=tokens).logits
    torch.testing.assert_close(model(tokens), logits, rtol=1e-4, atol=1e-5)
    loss, expected = model(tokens, targets), oracle_loss(logits, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    (loss / 7).backward()
    (expected / 7).backward()
    wanted = dict(oracle.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_bf16_stays_near_transformers_bf16_and_fp32() -> None:
    model = model_of(config())
    tokens, targets = batch()
    exact = model(tokens, targets).item()
    model.to(torch.bfloat16)
    oracle = oracle_of(model)
    loss = model(tokens, targets)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=0.01)
    logits = oracle(input_ids=tokens).logits
    assert loss.item() == pytest.approx(oracle_loss(logits, targets).item(), rel=2e-3)
    oracle_loss(logits, targets).backward()
    wanted = dict(oracle.named_parameters())
    for name, parameter in model.named_parameters():
        ours, theirs = parameter.grad, wanted[name].grad
        assert ours is not None
        assert ours.dtype == torch.bfloat16
        assert float((ours.float() - theirs.float()).norm() / theirs.float().norm()) < 0.05, name


def test_segments_equal_rows_of_their_own() -> None:
    """A packed row reads like its documents apart, although rotary positions do not restart."""
    model = model_of(config())
    generator = torch.Generator().manual_seed(3)
    documents = [torch.randint(0, VOCAB, (1, length + 1), generator=generator) for length in (9, 1, 22)]
    packed = torch.cat([document[:, :-1] for document in documents], dim=1)
    targets = torch.cat([document[:, 1:] for document in documents], dim=1)
    segments = torch.cat([torch.full((1, d.shape[1] - 1), number) for number, d in enumerate(documents)], dim=1)
    apart = torch.cat([model(document[:, :-1]) for document in documents], dim=1)
    torch.testing.assert_close(model(packed, segment_ids=segments), apart, rtol=1e-4, atol=1e-5)
    together = model(packed, targets, segments)
    alone = sum(model(document[:, :-1], document[:, 1:]) for document in documents)
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)
    assert not torch.allclose(model(packed), apart, atol=1e-3)


def test_one_segment_equals_plain_causal_attention() -> None:
    model = model_of(config())
    tokens, targets = batch()
    torch.testing.assert_close(model(tokens, targets, torch.zeros_like(tokens)), model(tokens, targets))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_both_ways_of_attention_agree(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(4)
    shapes = ((2, 4, 10, 8), (2, kv_heads, 10, 8), (2, kv_heads, 10, 8))
    query, key, value = (torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes)
    allowed = segment_mask(torch.tensor([[0] * 4 + [1] * 6, [5] * 10]))
    added = torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))
    fused, products = attend_fused(query, key, value, allowed), attend_by_products(query, key, value, added)
    torch.testing.assert_close(products, fused)
    wanted = torch.autograd.grad(fused.square().sum(), (query, key, value))
    torch.testing.assert_close(torch.autograd.grad(products.square().sum(), (query, key, value)), wanted)


def test_later_tokens_do_not_change_earlier_logits() -> None:
    model = model_of(config())
    tokens, _ = batch()
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % VOCAB
    torch.testing.assert_close(model(changed)[:, :12], model(tokens)[:, :12])


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_chunked_loss_equals_plain_cross_entropy(reduction: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks with a short last one, ignored targets, and weighted single losses on the way back."""
    monkeypatch.setitem(LOSS_CHUNK_ELEMENTS, "cpu", 7 * VOCAB)
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(24, 16, generator=generator, requires_grad=True)
    weight = torch.randn(VOCAB, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, VOCAB, (24,), generator=generator)
    targets[:8] = IGNORE
    scale = torch.rand(24, generator=generator) if reduction == "none" else torch.tensor(0.3)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORE, reduction=reduction)
    wanted = torch.autograd.grad((expected * scale).sum(), (hidden, weight))
    loss = linear_cross_entropy(hidden, weight, targets, reduction)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad((loss * scale).sum(), (hidden, weight)), wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets, reduction), expected, rtol=1e-5, atol=1e-5)


def test_losses_by_position_sum_to_the_loss() -> None:
    model = model_of(config())
    tokens, targets = batch()
    with torch.no_grad():
        losses = model(tokens, targets, reduction="none")
        assert losses.shape == tokens.shape
        assert losses.dtype == torch.float32
        assert bool((losses[targets == IGNORE] == 0).all())
        torch.testing.assert_close(losses.sum(), model(tokens, targets))


def test_row_without_targets_has_no_loss_and_no_gradient() -> None:
    model = model_of(config())
    tokens, targets = batch()
    loss = model(tokens, torch.full_like(targets, IGNORE))
    loss.backward()
    assert loss.item() == 0.0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_weights_out_of_meta_are_those_of_a_plain_model() -> None:
    settings = config(tie_word_embeddings=False)
    plain = Llama(settings, VOCAB)
    init_weights(plain, 11)
    with torch.device("meta"):
        model = Llama(settings, VOCAB)
    model.to_empty(device="cpu")
    init_weights(model, 11)
    assert model.state_dict().keys() == plain.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    cos, sin = rotary_tables(settings)
    assert torch.equal(model.model.rotary_cos, cos)
    assert torch.equal(model.model.rotary_sin, sin)
    other = Llama(settings, VOCAB)
    init_weights(other, 12)
    assert not torch.equal(other.model.embed_tokens.weight, plain.model.embed_tokens.weight)


def test_matrices_that_write_to_the_residual_stream_start_smaller() -> None:
    model = Llama(config(hidden_size=128, intermediate_size=256, num_hidden_layers=8, initializer_range=0.02), VOCAB)
    init_weights(model, 0)
    first: Any = model.model.layers[0]
    assert first.self_attn.q_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for matrix in (first.self_attn.o_proj, first.mlp.down_proj):
        assert matrix.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert bool((model.model.norm.weight == 1).all())


def test_rows_longer_than_the_context_are_refused() -> None:
    model = model_of(config())
    with pytest.raises(ValueError, match="max_position_embeddings 64"):
        model(torch.zeros(1, 65, dtype=torch.long))


def test_compiled_model_keeps_names_loss_and_gradients() -> None:
    model = model_of(config())
    compiled = copy.deepcopy(model)
    compile_model(compiled)
    tokens, targets = batch()
    segments = (torch.arange(tokens.shape[1]) // 10).expand_as(tokens)
    model(tokens, targets, segments).backward()
    loss = compiled(tokens, targets, segments)
    loss.backward()
    torch.testing.assert_close(loss, model(tokens, targets, segments), rtol=1e-6, atol=0)
    assert compiled.state_dict().keys() == model.state_dict().keys()
    wanted = dict(model.named_parameters())
    for name, parameter in compiled.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-3, atol=1e-5)
