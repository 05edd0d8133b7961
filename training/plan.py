"""What a training run costs, worked out before it starts: parameters, tokens, FLOPs, memory of one worker, and on named GPUs
time, energy and CO2. What cannot fit is told from what would."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cluster.errors import RequestError
from training.config import LOSS_CHUNK_ELEMENTS, PRODUCTS_MAX_LENGTH, RESHARD_BYTES, LoopConfig, ModelConfig
from training.flops import block_matrices, flops_per_token, parameter_count
from training.hardware import GPUS, Gpu

CHINCHILLA_TOKENS_PER_PARAMETER = 20.0
"""Compute-optimal by Hoffmann et al. 2022 (arXiv 2203.15556); small models that will be used much are trained longer."""

CROISSANT_TOKENS_PER_PARAMETER = 2_307.0
"""CroissantLLM (Faysse et al. 2024, arXiv 2402.00786): 3 T tokens on 1.3 B parameters."""

MFU = 0.40
"""Share of the GPUs' peak that a run is assumed to use: what published runs of 1 to 8 B parameters reach on H100."""

PUE, GRAMS_PER_KWH = 1.2, 57.0
"""Power of a centre per power of its machines, and CO2-equivalent of its electricity: the figures of Luccioni et al. 2022 (arXiv
2211.02001) for Jean Zay in France. RTE's for French production in 2024 is 21.7 g."""

CHECKPOINTING = ("none", "selective", "full")


@dataclass(frozen=True)
class WorkerMemory:
    """Bytes on one worker under FSDP2, at the height of a step. Weights, gradients and the optimizer's moments are fp32 shards."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    """Whole copies in the compute format: tables and two blocks at a time (all of a small model), and the gradients of the tables
    and one block."""
    activations: int
    """What the backward pass keeps of one micro-batch (eager), and one chunk of logits."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


@dataclass(frozen=True)
class TrainingPlan:
    """A run in numbers. FLOPs are those of the whole run, forward and backward."""

    parameters: int
    tokens: int
    steps: int
    workers: int
    flops_6nd: float
    """6 x all parameters x tokens, the usual approximation."""
    flops_palm: float
    """Matrix products and full attention, PaLM appendix B: the count behind the log's share of peak."""
    flops_causal: float
    """The same with the half of attention that a causal mask leaves."""
    memory: WorkerMemory
    optimizer: str
    checkpointing: str
    busy: float
    """Share of the workers' rows that are not empty: below 1 where the rows of a batch do not divide by the workers."""

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.parameters

    def seconds(self, worker_flops: float) -> float:
        """Time of the run when each busy worker does `worker_flops` useful FLOP/s (peak times share of peak)."""
        return self.flops_palm / (worker_flops * self.workers * self.busy)


@dataclass(frozen=True)
class Site:
    """Where a run is to be: `count` GPUs, the share of their peak that it will use, and what their power brings with it."""

    gpu: Gpu
    count: int
    mfu: float = MFU
    pue: float = PUE
    grams_per_kwh: float = GRAMS_PER_KWH


@dataclass(frozen=True)
class RunCost:
    """Energy counts the GPUs at their full board power and the centre's overhead, not the hosts."""

    seconds: float
    gpu_hours: float
    kwh: float
    co2_kg: float


def run_cost(plan: TrainingPlan, site: Site) -> RunCost:
    """Time and energy of a plan that was made for `site.count` workers. Evaluation, checkpoints and restarts are in the MFU."""
    seconds = plan.seconds(site.mfu * site.gpu.flops)
    hours = seconds / 3_600 * site.count
    kwh = hours * site.gpu.watts / 1_000 * site.pue
    return RunCost(seconds, hours, kwh, kwh * site.grams_per_kwh / 1_000)


class PlanRow(NamedTuple):
    """One line of the printed plan: a figure in `unit`, and what to hold it against."""

    name: str
    value: float
    unit: str
    note: str


def plan_training(
    model: ModelConfig,
    vocab_size: int,
    loop: LoopConfig,
    tokens: int,
    *,
    workers: int = 1,
    precision: Literal["bf16", "fp32"] = "bf16",
    device: Literal["cpu", "cuda"] = "cpu",
) -> TrainingPlan:
    """The plan of training `tokens` tokens (`loop.tokens`, or what the mix will give) on `workers` workers."""
    parameters = parameter_count(model, vocab_size)
    rows = loop.batch_tokens // loop.seq_len
    return TrainingPlan(
        parameters=parameters,
        tokens=tokens,
        steps=-(-tokens // loop.batch_tokens),
        workers=workers,
        flops_6nd=6.0 * parameters * tokens,
        flops_palm=tokens * flops_per_token(model, vocab_size, loop.seq_len),
        flops_causal=tokens * flops_per_token(model, vocab_size, loop.seq_len, causal=True),
        memory=worker_memory(model, vocab_size, loop, workers=workers, precision=precision, device=device),
        optimizer=loop.optim.optimizer,
        checkpointing=loop.activation_checkpointing,
        busy=rows / (workers * _rows_each(loop, workers)),
    )


def check_fit(model: ModelConfig, vocab_size: int, loop: LoopConfig, gpu: Gpu, count: int, section: str = "pretrain") -> None:
    """A `RequestError` when a worker's memory is more than the GPU has; it names what would fit."""

    def fits(loop: LoopConfig, count: int, gpu: Gpu = gpu) -> bool:
        return worker_memory(model, vocab_size, loop, workers=count, precision="bf16", device="cuda").total <= gpu.memory

    if fits(loop, count):
        return
    need = worker_memory(model, vocab_size, loop, workers=count, precision="bf16", device="cuda").total

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
        for level in CHECKPOINTING[CHECKPOINTING.index(loop.activation_checkpointing) + 1 :]:
            if fits(_changed(loop, activation_checkpointing=level), count):
                yield f"{section}.activation_checkpointing={level}"
                return

    found = list(remedies())
    if not found:
        least = _changed(loop, activation_checkpointing="full", micro_batch_tokens=loop.seq_len)
        settings = f"{section}.activation_checkpointing=full with {section}.micro_batch_tokens={loop.seq_len}"
        if more := fewest(least):
            found = [f"{settings} on {more} GPUs"]
        else:
            larger = [other.name for other in GPUS.values() if other.memory > gpu.memory and fits(least, count, other)]
            found = [f"{settings} on {count} {' or '.join(larger)}"] if larger else ["a smaller model"]
    raise RequestError(
        f"the run does not fit: each of {count} {gpu.name} needs about {need / 1e9:,.0f} GB and has {gpu.memory / 1e9:,.0f}; "
        f"it would with {', or with '.join(found)}"
    )


def _changed(loop: LoopConfig, **changes: object) -> LoopConfig:
    return loop.model_copy(update=changes)


def plan_rows(plan: TrainingPlan, site: Site | None = None) -> list[PlanRow]:
    """The plan as lines to print, with the cost at `site`."""
    memory = plan.memory
    moments = "AdamW's two moments" if plan.optimizer == "adamw" else "Muon's one moment for the blocks' matrices, AdamW's two for the rest"
    kept = {"none": "", "selective": ", selective checkpointing", "full": ", full checkpointing"}[plan.checkpointing]
    beside = f"Chinchilla {CHINCHILLA_TOKENS_PER_PARAMETER:.0f}, CroissantLLM {CROISSANT_TOKENS_PER_PARAMETER:,.0f}"
    return [
        PlanRow("parameters", plan.parameters, "", "tied embeddings count once"),
        PlanRow("tokens", plan.tokens, "", f"{plan.steps:,} optimizer steps"),
        PlanRow("tokens per parameter", plan.tokens_per_parameter, "", beside),
        PlanRow("training, 6ND", plan.flops_6nd, "FLOP", "6 x parameters x tokens"),
        PlanRow("training, exact", plan.flops_palm, "FLOP", "matrix products and full attention (PaLM appendix B)"),
        PlanRow("training, causal", plan.flops_causal, "FLOP", "with the half of attention that is needed"),
        PlanRow("weights", memory.weights, "B", f"fp32, one of {plan.workers} shards"),
        PlanRow("gradients", memory.gradients, "B", "fp32 shard"),
        PlanRow("optimizer", memory.optimizer, "B", f"{moments}, fp32 shard"),
        PlanRow("gathered", memory.gathered, "B", "whole copies in the compute format while in use"),
        PlanRow("activations", memory.activations, "B", f"one micro-batch{kept}, eager; torch.compile needs less"),
        PlanRow("memory of a worker", memory.total, "B", "libraries and data come on top"),
        *(_cost_rows(plan, site) if site else ()),
    ]


def _cost_rows(plan: TrainingPlan, site: Site) -> list[PlanRow]:
    cost, gpu = run_cost(plan, site), site.gpu
    idle = "" if plan.busy == 1 else f", {1 - plan.busy:.1%} of it idle: {plan.workers} GPUs do not divide the batch's rows"
    return [
        PlanRow("GPU", site.count, gpu.name, f"{gpu.flops / 1e12:,.4g} TFLOP/s dense bf16, {gpu.memory / 1e9:,.0f} GB ({gpu.source})"),
        PlanRow("MFU", site.mfu, "", "assumed (--mfu), of the exact count above"),
        PlanRow("time", cost.seconds, "s", f"exact FLOP / (GPUs x peak x MFU){idle}"),
        PlanRow("GPU-hours", cost.gpu_hours, "h", ""),
        PlanRow("energy", cost.kwh, "kWh", f"GPUs at {gpu.watts:,.0f} W, PUE {site.pue:g} (--pue); hosts come on top"),
        PlanRow("CO2", cost.co2_kg, "kg", f"{site.grams_per_kwh:g} g CO2e/kWh (--grams-per-kwh)"),
    ]


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
    parameters = parameter_count(model, vocab_size)
    outside = parameter_count(model.model_copy(update={"num_hidden_layers": 0}), vocab_size)
    block = (parameters - outside) // model.num_hidden_layers
    single = block_matrices(model) if loop.optim.optimizer == "muon" else 0
    shard = -(-parameters // workers)
    width = 2 if precision == "bf16" else 4
    used = parameters if width * parameters <= RESHARD_BYTES else outside + 2 * block
    gathered = width * used + width * (outside + block)
    rows = min(_rows_each(loop, workers) * loop.seq_len, loop.micro_batch_tokens)
    activations = activation_bytes(model, vocab_size, _changed(loop, micro_batch_tokens=rows), precision=precision, device=device)
    moments = 8 * shard - 4 * (single // workers)
    return WorkerMemory(weights=4 * shard, gradients=4 * shard, optimizer=moments, gathered=gathered, activations=activations)


def _rows_each(loop: LoopConfig, workers: int) -> int:
    return -(-loop.batch_tokens // loop.seq_len // workers)


def activation_bytes(
    model: ModelConfig, vocab_size: int, loop: LoopConfig, *, precision: Literal["bf16", "fp32"], device: Literal["cpu", "cuda"]
) -> int:
    """Bytes that the backward pass of a micro-batch needs (eager), and the loss's chunk of logits.

    By token and block: each norm keeps its input in fp32, its normalised input and its output; attention q, k, v, its
    output, and a log-sum (fp32) by head or, from plain products, all weights; SwiGLU the gate before and after SiLU, the
    other half, and their product. Full checkpointing keeps the blocks' inputs and one block whole; selective
    checkpointing also what `model.KEPT` names, the results of the products with weights and of fused attention.
    """
    width = 2 if precision == "bf16" else 4
    hidden, ffn, heads, tokens = model.hidden_size, model.intermediate_size, model.num_attention_heads, loop.micro_batch_tokens
    kv = hidden // heads * model.num_key_value_heads
    norm = (4 + 2 * width) * hidden
    products = device == "cpu" and precision == "bf16" and loop.seq_len <= PRODUCTS_MAX_LENGTH
    weights = width * heads * loop.seq_len if products else 4 * heads
    block = 2 * norm + width * (2 * hidden + 2 * kv) + weights + 4 * width * ffn
    attended = 0 if products else width * hidden + 4 * heads
    kept = {
        "none": model.num_hidden_layers * block,
        "selective": model.num_hidden_layers * (width * (4 * hidden + 2 * kv + 2 * ffn) + attended) + block,
        "full": model.num_hidden_layers * width * hidden + block,
    }[loop.activation_checkpointing]
    head = norm + width * hidden
    chunk = min(LOSS_CHUNK_ELEMENTS[device], tokens * vocab_size)
    return tokens * (kept + head) + chunk * (4 + 2 * width)
