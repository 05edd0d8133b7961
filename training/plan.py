"""What a training run costs, worked out before it starts: parameters, tokens, FLOPs, and memory of one worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from training.config import LOSS_CHUNK_ELEMENTS, PRODUCTS_MAX_LENGTH, LoopConfig, ModelConfig
from training.flops import flops_per_token, parameter_count

CHINCHILLA_TOKENS_PER_PARAMETER = 20.0
"""Compute-optimal by Hoffmann et al. 2022 (arXiv 2203.15556); small models that will be used much are trained longer."""

CROISSANT_TOKENS_PER_PARAMETER = 2_307.0
"""CroissantLLM (Faysse et al. 2024, arXiv 2402.00786): 3 T tokens on 1.3 B parameters."""


@dataclass(frozen=True)
class WorkerMemory:
    """Bytes on one worker under FSDP2, at the height of a step. Weights, gradients and AdamW's two moments are fp32 shards."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    """Whole copies in the compute format: tables and two blocks at a time, and the gradients of the tables and one block."""
    activations: int
    """What the backward pass needs of one micro-batch, eager and without recomputation, and one chunk of logits."""

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

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.parameters

    def seconds(self, worker_flops: float) -> float:
        """Time of the run when each worker does `worker_flops` useful FLOP/s (peak times share of peak)."""
        return self.flops_palm / (worker_flops * self.workers)


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
    return TrainingPlan(
        parameters=parameters,
        tokens=tokens,
        steps=-(-tokens // loop.batch_tokens),
        workers=workers,
        flops_6nd=6.0 * parameters * tokens,
        flops_palm=tokens * flops_per_token(model, vocab_size, loop.seq_len),
        flops_causal=tokens * flops_per_token(model, vocab_size, loop.seq_len, causal=True),
        memory=worker_memory(model, vocab_size, loop, workers=workers, precision=precision, device=device),
    )


def plan_rows(plan: TrainingPlan) -> list[PlanRow]:
    """The plan as lines to print."""
    memory = plan.memory
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
        PlanRow("optimizer", memory.optimizer, "B", "AdamW moments, fp32 shard"),
        PlanRow("gathered", memory.gathered, "B", "whole copies in the compute format while in use"),
        PlanRow("activations", memory.activations, "B", "one micro-batch, eager; torch.compile needs less"),
        PlanRow("memory of a worker", memory.total, "B", "libraries and data come on top"),
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
    shard = -(-parameters // workers)
    width = 2 if precision == "bf16" else 4
    gathered = width * (outside + 2 * block) + width * (outside + block)
    activations = activation_bytes(model, vocab_size, loop, precision=precision, device=device)
    return WorkerMemory(weights=4 * shard, gradients=4 * shard, optimizer=8 * shard, gathered=gathered, activations=activations)


def activation_bytes(
    model: ModelConfig, vocab_size: int, loop: LoopConfig, *, precision: Literal["bf16", "fp32"], device: Literal["cpu", "cuda"]
) -> int:
    """Bytes that the backward pass of a micro-batch needs (eager, no recomputation), and the loss's chunk of logits.

    By token and block: each norm keeps its input in fp32, its normalised input and its output; attention q, k, v, its
    output, and a log-sum (fp32) by head or, from plain products, all weights; SwiGLU the gate before and after SiLU, the
    other half, and their product.
    """
    width = 2 if precision == "bf16" else 4
    hidden, ffn, heads, tokens = model.hidden_size, model.intermediate_size, model.num_attention_heads, loop.micro_batch_tokens
    kv = hidden // heads * model.num_key_value_heads
    norm = (4 + 2 * width) * hidden
    products = device == "cpu" and precision == "bf16" and loop.seq_len <= PRODUCTS_MAX_LENGTH
    weights = width * heads * loop.seq_len if products else 4 * heads
    block = 2 * norm + width * (2 * hidden + 2 * kv) + weights + 4 * width * ffn
    head = norm + width * hidden
    chunk = min(LOSS_CHUNK_ELEMENTS[device], tokens * vocab_size)
    return tokens * (model.num_hidden_layers * block + head) + chunk * (4 + 2 * width)
