"""Memory of one worker of a training run, worked out before it starts; what cannot fit is told from what would."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cluster.errors import RequestError
from training.config import (
    LOSS_CHUNK_ELEMENTS,
    PRODUCTS_MAX_LENGTH,
    RESHARD_BYTES,
    FineTuneConfig,
    LoopConfig,
    LoraConfig,
    ModelConfig,
)
from training.flops import adapter_parameters, block_matrices, parameter_count, projections
from training.hardware import GPUS, Gpu

CHECKPOINTING = ("none", "selective", "full")


@dataclass(frozen=True)
class WorkerMemory:
    """Bytes of one worker under FSDP2, at the height of a step. Weights, gradients and the optimizer's moments are fp32 shards;
    of a model with adapters, these alone have gradients and moments."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    """Whole copies in the compute format: tables and two blocks at a time (all of a small model), and the gradients of the tables
    and one block."""
    activations: int
    """What the backward pass keeps of one micro-batch (eager), and one chunk of logits."""
    checkpoint: int
    """The copy of what is trained, and of its moments, that checkpoints are written from while training goes on."""
    on_gpu: bool

    @property
    def total(self) -> int:
        """All on the worker's device: a GPU's checkpoints are copied to its host."""
        parts = self.weights + self.gradients + self.optimizer + self.gathered + self.activations
        return parts if self.on_gpu else parts + self.checkpoint


def check_fit(model: ModelConfig, vocab_size: int, loop: LoopConfig, gpu: Gpu, count: int, stage: str = "pretrain") -> None:
    """A `RequestError` when a worker's memory is more than the GPU has; it names what would fit."""
    section = "pretrain" if stage == "anneal" else stage  # which has annealing's settings too
    adapters = adapters_of(loop)
    levels = CHECKPOINTING[:1] if adapters and adapters.dropout else CHECKPOINTING  # the recipe refuses others beside dropout

    def need(loop: LoopConfig, count: int) -> int:
        return worker_memory(model, vocab_size, loop, workers=count, precision="bf16", device="cuda").total

    def fits(loop: LoopConfig, count: int, gpu: Gpu = gpu) -> bool:
        return need(loop, count) <= gpu.memory

    if fits(loop, count):
        return

    def fewest(loop: LoopConfig) -> int | None:
        counts = range(count, max(count, loop.batch_tokens // loop.seq_len) + 1)
        place = bisect.bisect_left(counts, True, key=lambda workers: fits(loop, workers))
        return counts[place] if place < len(counts) else None

    def remedies() -> Iterator[str]:
        if more := fewest(loop):
            yield f"{more} GPUs"
        micro = range(loop.seq_len, loop.micro_batch_tokens, loop.seq_len)
        if place := bisect.bisect_left(micro, True, key=lambda tokens: not fits(_changed(loop, micro_batch_tokens=tokens), count)):
            yield f"{section}.micro_batch_tokens={micro[place - 1]}"
        for level in levels[levels.index(loop.activation_checkpointing) + 1 :]:
            if fits(_changed(loop, activation_checkpointing=level), count):
                yield f"{section}.activation_checkpointing={level}"
                return

    found = list(remedies())
    if not found:
        least = _changed(loop, activation_checkpointing=levels[-1], micro_batch_tokens=loop.seq_len)
        settings = f"{section}.activation_checkpointing={levels[-1]} with {section}.micro_batch_tokens={loop.seq_len}"
        if more := fewest(least):
            found = [f"{settings} on {more} GPUs"]
        else:
            larger = [other.name for other in GPUS.values() if other.memory > gpu.memory and fits(least, count, other)]
            found = [f"{settings} on {count} {' or '.join(larger)}"] if larger else ["a smaller model"]
    raise RequestError(
        f"{stage} does not fit: each of {count} {gpu.name} needs about {need(loop, count) / 1e9:,.0f} GB and has "
        f"{gpu.memory / 1e9:,.0f}; it would with {', or with '.join(found)}"
    )


def _changed(loop: LoopConfig, **changes: object) -> LoopConfig:
    return loop.model_copy(update=changes)


def adapters_of(loop: LoopConfig) -> LoraConfig | None:
    """The adapters that a run trains in place of the weights."""
    return loop.lora if isinstance(loop, FineTuneConfig) else None


def worker_memory(
    model: ModelConfig,
    vocab_size: int,
    loop: LoopConfig,
    *,
    workers: int,
    precision: Literal["bf16", "fp32"],
    device: Literal["cpu", "cuda"],
) -> WorkerMemory:
    """Memory of one of `workers` equal workers."""
    lora = adapters_of(loop)
    adapters = adapter_parameters(model, lora) if lora else 0
    parameters = parameter_count(model, vocab_size) + adapters
    trained = adapters if lora else parameters
    outside = parameter_count(model.model_copy(update={"num_hidden_layers": 0}), vocab_size)
    block = (parameters - outside) // model.num_hidden_layers
    # The loss makes the gradient of a frozen head too (`training/loss.py`).
    learnt = vocab_size * model.hidden_size + adapters // model.num_hidden_layers if lora else outside + block
    single = (adapters if lora else block_matrices(model)) if loop.optim.optimizer == "muon" else 0
    width = 2 if precision == "bf16" else 4
    used = parameters if width * parameters <= RESHARD_BYTES else outside + 2 * block
    rows = min(rows_each(loop, workers) * loop.seq_len, loop.micro_batch_tokens)
    shard = -(-trained // workers)
    moments = 8 * shard - 4 * (single // workers)
    return WorkerMemory(
        weights=4 * -(-parameters // workers),
        gradients=4 * shard,
        optimizer=moments,
        gathered=width * (used + learnt),
        activations=activation_bytes(model, vocab_size, _changed(loop, micro_batch_tokens=rows), precision=precision, device=device),
        checkpoint=4 * shard + moments if loop.async_checkpoints else 0,
        on_gpu=device == "cuda",
    )


def rows_each(loop: LoopConfig, workers: int) -> int:
    """Rows of a batch that the busiest of `workers` has."""
    return -(-loop.batch_tokens // loop.seq_len // workers)


def activation_bytes(
    model: ModelConfig, vocab_size: int, loop: LoopConfig, *, precision: Literal["bf16", "fp32"], device: Literal["cpu", "cuda"]
) -> int:
    """Bytes that the backward pass of a micro-batch needs (eager), and the loss's chunk of logits.

    By token and block: each norm keeps its input in fp32, its normalised input and its output; attention q, k, v, its
    output, and a log-sum (fp32) by head or, from plain products, all weights; SwiGLU the gate before and after SiLU, the
    other half, and their product. A frozen norm needs no normalised input; an adapter keeps what its first matrix gives, and
    with dropout its own input and a mask. Full checkpointing keeps the blocks' inputs and one block whole; selective
    checkpointing also what `model.KEPT` names, the results of the products with weights and of fused attention.
    """
    width = 2 if precision == "bf16" else 4
    hidden, ffn, heads, tokens = model.hidden_size, model.intermediate_size, model.num_attention_heads, loop.micro_batch_tokens
    kv = hidden // heads * model.num_key_value_heads
    lora = adapters_of(loop)
    targets = [projections(model)[name] for name in set(lora.targets)] if lora else []
    rank, own_input = (lora.rank, width + 1 if lora.dropout else 0) if lora else (0, 0)
    norm = (4 + (1 if lora else 2) * width) * hidden
    products = device == "cpu" and precision == "bf16" and loop.seq_len <= PRODUCTS_MAX_LENGTH
    weights = width * heads * loop.seq_len if products else 4 * heads
    block = 2 * norm + width * (2 * hidden + 2 * kv) + weights + 4 * width * ffn
    block += sum(width * rank + own_input * read for read, _ in targets)
    attended = 0 if products else width * hidden + 4 * heads
    multiplied = 4 * hidden + 2 * kv + 2 * ffn + sum(rank + written for _, written in targets)
    kept = {
        "none": model.num_hidden_layers * block,
        "selective": model.num_hidden_layers * (width * multiplied + attended) + block,
        "full": model.num_hidden_layers * width * hidden + block,
    }[loop.activation_checkpointing]
    head = norm + width * hidden
    chunk = min(LOSS_CHUNK_ELEMENTS[device], tokens * vocab_size)
    return tokens * (kept + head) + chunk * (4 + 2 * width)
