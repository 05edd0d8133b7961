"""Memory of a worker against arithmetic by hand and against what autograd and the optimizer really keep."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cluster.errors import RequestError
from training.config import LOSS_CHUNK_ELEMENTS, PRESETS, DpoConfig, LoopConfig, LoraConfig, ModelConfig, OptimConfig, SftConfig
from training.hardware import GPUS
from training.lora import add_adapters
from training.model import Llama, checkpoint_activations
from training.optim import build_optimizer
from training.plan_memory import WorkerMemory, activation_bytes, check_fit, worker_memory

CROISSANT = LoopConfig(seq_len=2_048, batch_tokens=15_728_640, micro_batch_tokens=16_384)
LORA = LoraConfig(rank=8, targets=("q_proj", "v_proj", "down_proj"))


def memory_of(preset: str, loop: LoopConfig, *, workers: int = 1, device: Literal["cpu", "cuda"] = "cpu") -> WorkerMemory:
    config, vocab_size = PRESETS[preset]
    return worker_memory(config, vocab_size, loop, workers=workers, precision="bf16", device=device)


def test_adapters_alone_have_gradients_and_moments() -> None:
    """The demo's shape: width 256, feed-forward 704, key/value width 128, 6 blocks, 6,524,160 parameters, tables of 8,192 x 256."""
    adapters = 6 * 8 * ((256 + 256) + (256 + 128) + (704 + 256))
    memory = memory_of("demo", SftConfig(seq_len=256, lora=LORA))
    assert memory.weights == 4 * (6_524_160 + adapters)
    assert (memory.gradients, memory.optimizer, memory.checkpoint) == (4 * adapters, 8 * adapters, 12 * adapters)
    assert memory.gathered == 2 * (6_524_160 + adapters + 8_192 * 256 + adapters // 6)
    assert memory_of("demo", SftConfig(seq_len=256, lora=LORA), workers=4).gradients == adapters


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("lora", [LORA, None])
def test_a_checkpoint_is_copied_on_the_host(optimizer: Literal["adamw", "muon"], lora: LoraConfig | None) -> None:
    """As many bytes as the real weights and moments have; on CPU they are the worker's own, on a GPU they are not."""
    loop = SftConfig(seq_len=256, lora=lora, optim=OptimConfig(optimizer=optimizer))
    model = Llama(*PRESETS["demo"])
    if lora:
        add_adapters(model, lora)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    build = build_optimizer(model, loop.optim)
    build.step()
    kept = [*trained, *(tensor for state in build.state.values() for tensor in state.values() if tensor.ndim)]
    on_cpu, on_gpu = memory_of("demo", loop), memory_of("demo", loop, device="cuda")
    assert on_cpu.checkpoint == on_gpu.checkpoint == sum(tensor.nbytes for tensor in kept)
    for memory, own in ((on_cpu, on_cpu.checkpoint), (on_gpu, 0)):
        rest = memory.weights + memory.gradients + memory.optimizer + memory.gathered + memory.activations
        assert memory.total == rest + own
    assert memory_of("demo", loop.model_copy(update={"async_checkpoints": False})).checkpoint == 0


def test_muon_keeps_one_moment_for_the_matrices_of_blocks() -> None:
    config, vocab_size = PRESETS["demo"]
    adamw, muon = (
        worker_memory(
            config, vocab_size, LoopConfig(optim=OptimConfig(optimizer=optimizer)), workers=1, precision="bf16", device="cpu"
        ).optimizer
        for optimizer in ("adamw", "muon")
    )
    matrices = sum(p.numel() for name, p in Llama(config, vocab_size).named_parameters() if ".layers." in name and p.ndim == 2)
    assert adamw - muon == 4 * matrices


@pytest.mark.parametrize(("gpu", "count", "preset"), [("l40s", 1, "croissant-1b"), ("a100-40gb", 2, "7b"), ("a100-40gb", 8, "7b")])
def test_what_cannot_fit_is_refused_and_each_remedy_fits(gpu: str, count: int, preset: str) -> None:
    config, vocab_size = PRESETS[preset]
    with pytest.raises(RequestError, match="pretrain does not fit") as caught:
        check_fit(config, vocab_size, CROISSANT, GPUS[gpu], count)
    message = str(caught.value)
    assert "\n" not in message
    for remedy in message.split("it would with ")[1].split(", or with "):
        settings, _, place = remedy.rpartition(" on ") if " on " in remedy else ("", "", remedy)
        changes: dict[str, Any] = dict(
            part.removeprefix("pretrain.").split("=") for part in (settings or remedy).split(" with ") if "=" in part
        )
        changes = {name: int(value) if value.isdigit() else value for name, value in changes.items()}
        gpus = int(place.split()[0]) if place.endswith("GPUs") else count
        check_fit(config, vocab_size, CROISSANT.model_copy(update=changes), GPUS[gpu], gpus)
        if place.endswith("GPUs") and not settings:
            with pytest.raises(RequestError):
                check_fit(config, vocab_size, CROISSANT, GPUS[gpu], gpus - 1)


def test_a_model_too_large_for_any_gpu_is_told_so() -> None:
    huge = ModelConfig(hidden_size=65_536, intermediate_size=262_144, num_hidden_layers=4, num_attention_heads=512, num_key_value_heads=512)
    with pytest.raises(RequestError, match="it would with a smaller model"):
        check_fit(huge, 32_000, LoopConfig(seq_len=2_048, batch_tokens=2_048, micro_batch_tokens=2_048), GPUS["h100"], 1)


@pytest.mark.parametrize(("stage", "section"), [("anneal", "pretrain"), ("sft", "sft"), ("dpo", "dpo")])
def test_other_stages_name_their_own_settings(stage: str, section: str) -> None:
    """Annealing has pretraining's settings, so these are the ones to change."""
    config, vocab_size = PRESETS["croissant-1b"]
    loop = DpoConfig(seq_len=2_048, batch_tokens=65_536, micro_batch_tokens=32_768)
    with pytest.raises(RequestError, match=rf"^{stage} does not fit: each of 2 h100 .* or with {section}.micro_batch_tokens=\d+, or"):
        check_fit(config, vocab_size, loop, GPUS["h100"], 2, stage)


def test_adapters_fit_where_all_weights_do_not_and_dropout_forbids_recomputation() -> None:
    config, vocab_size = PRESETS["7b"]
    loop = SftConfig(seq_len=2_048, batch_tokens=2_048, micro_batch_tokens=2_048)
    with pytest.raises(RequestError, match="sft does not fit"):
        check_fit(config, vocab_size, loop, GPUS["h100"], 1, "sft")
    check_fit(config, vocab_size, loop.model_copy(update={"lora": LORA}), GPUS["h100"], 1, "sft")
    dropping = SftConfig(seq_len=2_048, batch_tokens=65_536, micro_batch_tokens=32_768, lora=LoraConfig(dropout=0.1))
    with pytest.raises(RequestError) as caught:
        check_fit(config, vocab_size, dropping, GPUS["h100"], 1, "sft")
    assert "activation_checkpointing" not in str(caught.value)


def test_more_workers_share_weights_but_not_activations() -> None:
    config, vocab_size = PRESETS["croissant-1b"]
    loop = LoopConfig(seq_len=2_048, batch_tokens=65_536, micro_batch_tokens=8_192)
    one, eight = (worker_memory(config, vocab_size, loop, workers=workers, precision="bf16", device="cuda") for workers in (1, 8))
    assert eight.weights == pytest.approx(one.weights / 8, rel=1e-6)
    assert (eight.activations, eight.gathered) == (one.activations, one.gathered)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize(("kv_heads", "lora"), [(4, None), (2, None), (2, LoraConfig(rank=4))])
def test_activations_are_what_autograd_keeps(precision: Literal["bf16", "fp32"], kv_heads: int, lora: LoraConfig | None) -> None:
    """Distinct storages that the backward pass saves, parameters and tables aside, within a twentieth of the formula."""
    config = ModelConfig(hidden_size=128, intermediate_size=352, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=kv_heads)
    model = Llama(config, 512)
    if lora:
        add_adapters(model, lora)
    if precision == "bf16":
        model.to(torch.bfloat16)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    loop = SftConfig(seq_len=128, batch_tokens=512, micro_batch_tokens=512, lora=lora)
    tokens = torch.zeros(4, 128, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(tokens, tokens)
    assert loss.requires_grad
    width = 2 if precision == "bf16" else 4
    rest = 512 * 128 * width + 2 * 128 * 32 * width + tokens.numel() * 8
    found = sum(storage.nbytes() for storage in kept.values()) - rest
    chunk = min(LOSS_CHUNK_ELEMENTS["cpu"], tokens.numel() * 512) * (4 + 2 * width)
    wanted = activation_bytes(config, 512, loop, precision=precision, device="cpu") - chunk
    assert found == pytest.approx(wanted, rel=0.05)


class LiveStorages(TorchDispatchMode):
    """Counts what is alive of all that operators made, also what the backward pass keeps out of Python's sight."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.seen[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return made

    def bytes(self) -> int:
        return sum(size for reference, size in self.seen.values() if not reference.expired())


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_recomputation_keeps_what_the_formula_says(precision: Literal["bf16", "fp32"]) -> None:
    """What is alive after a forward pass, between the levels: the block that the backward pass then makes again is not yet there."""
    config = ModelConfig(hidden_size=128, intermediate_size=352, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
    model = Llama(config, 512).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    tokens = torch.zeros(4, 128, dtype=torch.long)
    found, wanted = {}, {}
    for level in ("none", "selective", "full"):
        loop = LoopConfig(seq_len=128, batch_tokens=512, micro_batch_tokens=512, activation_checkpointing=level)
        checkpoint_activations(model, level)
        with LiveStorages() as live:
            loss = model(tokens, tokens)
            found[level] = live.bytes()
        del loss
        wanted[level] = activation_bytes(config, 512, loop, precision=precision, device="cpu")
    deeper = config.model_copy(update={"num_hidden_layers": 4})
    block = activation_bytes(
        deeper, 512, LoopConfig(seq_len=128, batch_tokens=512, micro_batch_tokens=512), precision=precision, device="cpu"
    )
    block -= wanted["none"]
    for level in ("selective", "full"):
        assert found["none"] - found[level] == pytest.approx(wanted["none"] - (wanted[level] - block), rel=0.01)
