"""The model against transformers' LlamaForCausalLM: logits, loss, gradients; initialisation, recomputation, compilation."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.tensor import DTensor

from training.config import ModelConfig
from training.data import IGNORE
from training.distributed import build_model, full_state_dict, open_world
from training.export import huggingface_config
from training.model import Llama, Recompute, checkpoint_activations, compile_model, init_weights
from training.rope import rotary_tables

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
    pytest.param({"rope_scaling": {"method": "linear", "factor": 4}}, id="linear"),
    pytest.param({"rope_scaling": {"method": "ntk", "factor": 4}, "tie_word_embeddings": False}, id="ntk"),
    pytest.param({"rope_scaling": {"method": "yarn", "factor": 4}}, id="yarn"),
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


def test_later_tokens_do_not_change_earlier_logits() -> None:
    model = model_of(config())
    tokens, _ = batch()
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % VOCAB
    torch.testing.assert_close(model(changed)[:, :12], model(tokens)[:, :12])


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


def gradients(model: Llama) -> dict[str, Tensor]:
    """A step's gradients by parameter, after one forward and backward pass of packed rows."""
    tokens, targets = batch()
    segments = (torch.arange(tokens.shape[1]) // 10).expand_as(tokens)
    loss = model(tokens, targets, segments)
    loss.backward()
    return {"loss": loss.detach(), **{name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}}


def assert_same_step(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def kept_bytes(model: Llama, length: int) -> int:
    """Height of a step's memory above weights and gradients, as torch's tracker sees every tensor come and go."""
    tokens = torch.zeros(4, length, dtype=torch.long)
    model(tokens, tokens).backward()
    tracker = MemTracker()
    tracker.track_external(model)
    with tracker:
        model(tokens, tokens).backward()
    peak, after = (tracker.get_tracker_snapshot(when)[torch.device("cpu")]["Total"] for when in ("peak", "current"))
    return peak - after


def test_recomputation_changes_memory_and_nothing_else() -> None:
    plain = model_of(config(num_hidden_layers=6))
    wanted = gradients(plain)
    names = list(plain.state_dict())
    kept = {}
    for recompute in get_args(Recompute):
        model = model_of(config(num_hidden_layers=6))
        checkpoint_activations(model, recompute)
        assert_same_step(gradients(model), wanted)
        assert list(model.state_dict()) == names
        kept[recompute] = kept_bytes(model, 64)
    assert kept["selective"] < 0.8 * kept["none"]
    assert kept["full"] < 0.4 * kept["none"]


@pytest.mark.parametrize("recompute", get_args(Recompute))
def test_blocks_compile_once_whatever_is_recomputed(recompute: Recompute) -> None:
    """Sharded as in a run: meta device, compile by block, `fully_shard`; two graphs in all, a block's and the softmax's."""
    settings = config(num_hidden_layers=3)
    plain = Llama(settings, VOCAB)
    init_weights(plain, 7)
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    with open_world("fp32") as world, pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.distributed.compile_model", partial(compile_model, backend=counter))
        model = build_model(settings, VOCAB, 7, world, compile_blocks=True, recompute=recompute)
        found = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in gradients(model).items()}
        assert_same_step(found, gradients(plain))
        gradients(model)
        assert full_state_dict(model).keys() == plain.state_dict().keys()
    assert counter.frame_count == 2


def test_compiled_model_keeps_names_loss_and_gradients() -> None:
    model = model_of(config())
    compiled = copy.deepcopy(model)
    checkpoint_activations(compiled, "selective")
    compile_model(compiled)
    assert_same_step(gradients(compiled), gradients(model))
    assert compiled.state_dict().keys() == model.state_dict().keys()
