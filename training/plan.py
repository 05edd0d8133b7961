"""What a training run costs, worked out before it starts: parameters, tokens, FLOPs, memory of one worker, and on named GPUs
time, energy and CO2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from training.config import LoopConfig, LoraConfig, ModelConfig
from training.flops import adapter_parameters, flops_per_token, parameter_count
from training.hardware import Gpu
from training.plan_memory import WorkerMemory, adapters_of, rows_each, worker_memory

CHINCHILLA_TOKENS_PER_PARAMETER = 20.0
"""Compute-optimal by Hoffmann et al. 2022 (arXiv 2203.15556); small models that will be used much are trained longer."""

CROISSANT_TOKENS_PER_PARAMETER = 2_307.0
"""CroissantLLM (Faysse et al. 2024, arXiv 2402.00786): 3 T tokens on 1.3 B parameters."""

MFU = 0.40
"""Share of the GPUs' peak that a run is assumed to use: what published runs of 1 to 8 B parameters reach on H100."""

PUE, GRAMS_PER_KWH = 1.2, 57.0
"""Power of a centre per power of its machines, and CO2-equivalent of its electricity: the figures of Luccioni et al. 2022 (arXiv
2211.02001) for Jean Zay in France. RTE's for French production in 2024 is 21.7 g."""

CHECKPOINT_COPY = "of fp32 weights and moments, while they are written (async_checkpoints)"
SCALES = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class TrainingPlan:
    """A run in numbers. FLOPs are those of the whole run, forward and backward."""

    parameters: int
    """The model's; adapters come on top."""
    trained: int
    tokens: int
    """Positions in the rows that are trained on, padding among them; 0 where it is not known yet."""
    steps: int
    workers: int
    flops_6nd: float
    """6 x all parameters x tokens, the usual approximation."""
    flops_palm: float
    """Matrix products and full attention, PaLM appendix B: of all weights the count behind the log's share of peak."""
    flops_causal: float
    """The same with the half of attention that a causal mask leaves."""
    memory: WorkerMemory
    optimizer: str
    checkpointing: str
    lora: LoraConfig | None
    only_read: int
    """Tokens that a forward pass reads before training."""
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


class RunCost(NamedTuple):
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


def total_cost(costs: Iterable[RunCost]) -> RunCost:
    """Runs one after the other."""
    seconds, gpu_hours, kwh, co2_kg = (sum(values) for values in zip(*costs, strict=True))
    return RunCost(seconds, gpu_hours, kwh, co2_kg)


def plan_training(
    model: ModelConfig,
    vocab_size: int,
    loop: LoopConfig,
    tokens: int,
    *,
    only_read: int = 0,
    workers: int = 1,
    precision: Literal["bf16", "fp32"] = "bf16",
    device: Literal["cpu", "cuda"] = "cpu",
) -> TrainingPlan:
    """The plan of training `tokens` tokens (`loop.tokens`, or what the mix will give) on `workers` workers, which read
    `only_read` others in a forward pass before it (DPO's pass of its starting model)."""
    parameters, lora = parameter_count(model, vocab_size), adapters_of(loop)
    rows = loop.batch_tokens // loop.seq_len

    def flops(causal: bool) -> float:
        forward = flops_per_token(model, vocab_size, loop.seq_len, causal) / 3
        return tokens * flops_per_token(model, vocab_size, loop.seq_len, causal, lora=lora) + only_read * forward

    return TrainingPlan(
        parameters=parameters,
        trained=adapter_parameters(model, lora) if lora else parameters,
        tokens=tokens,
        steps=-(-tokens // loop.batch_tokens),
        workers=workers,
        flops_6nd=6.0 * parameters * tokens,
        flops_palm=flops(causal=False),
        flops_causal=flops(causal=True),
        memory=worker_memory(model, vocab_size, loop, workers=workers, precision=precision, device=device),
        optimizer=loop.optim.optimizer,
        checkpointing=loop.activation_checkpointing,
        lora=lora,
        only_read=only_read,
        busy=rows / (workers * rows_each(loop, workers)),
    )


class PlanRow(NamedTuple):
    """One line of the printed plan: a figure in `unit` (None: it is not known yet), and what to hold it against."""

    name: str
    value: float | None
    unit: str
    note: str


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
        *([] if memory.on_gpu or not memory.checkpoint else [PlanRow("checkpoint copy", memory.checkpoint, "B", CHECKPOINT_COPY)]),
        PlanRow("memory of a worker", memory.total, "B", "libraries and data come on top"),
        *_host_rows(memory),
        *(_cost_rows(plan, site) if site else ()),
    ]


def later_rows(plan: TrainingPlan, site: Site | None = None) -> list[PlanRow]:
    """Of a stage after pretraining: what differs from there."""
    memory, rows = plan.memory, []
    if plan.lora:
        note = f"LoRA of rank {plan.lora.rank}; the model's {plan.parameters:,} are frozen"
        rows.append(PlanRow("trained parameters", plan.trained, "", note))
    if plan.tokens:
        said = (("frozen weights have no gradients", plan.lora), ("the starting model reads all once first", plan.only_read))
        notes = [text for text, there in said if there]
        rows.append(PlanRow("training, exact", plan.flops_palm, "FLOP", "; ".join(notes)))
    parts = ["weights", "gradients", "optimizer", "gathered", "activations", *([] if memory.on_gpu else ["checkpoint"])]
    named = ", ".join(f"{part} {scaled(getattr(memory, part))}B" for part in parts)
    rows += [PlanRow("memory of a worker", memory.total, "B", named), *_host_rows(memory)]
    if site and plan.tokens:
        idle = {"time": _idle(plan)}
        rows += [row._replace(note=idle.get(row.name, "")) for row in _cost_rows(plan, site) if row.name != "MFU"]
    return rows


def scaled(value: float) -> str:
    """A number with three digits or more and the letter of its unit's multiple: `6.52 M`."""
    scale, letter = next(((scale, letter) for scale, letter in SCALES if value >= scale), (1.0, ""))
    return f"{value / scale:.2f} {letter}"


def _host_rows(memory: WorkerMemory) -> Iterator[PlanRow]:
    """What a GPU's worker needs beside the GPU."""
    if memory.on_gpu and memory.checkpoint:
        yield PlanRow("host memory for a checkpoint", memory.checkpoint, "B", f"a copy {CHECKPOINT_COPY}, for each GPU")


def _cost_rows(plan: TrainingPlan, site: Site) -> list[PlanRow]:
    gpu, idle = site.gpu, _idle(plan)
    notes = (
        f"exact FLOP / (GPUs x peak x MFU){f', {idle}' if idle else ''}",
        "",
        f"GPUs at {gpu.watts:,.0f} W, PUE {site.pue:g} (--pue); hosts come on top",
        f"{site.grams_per_kwh:g} g CO2e/kWh (--grams-per-kwh)",
    )
    return [
        PlanRow("GPU", site.count, gpu.name, f"{gpu.flops / 1e12:,.4g} TFLOP/s dense bf16, {gpu.memory / 1e9:,.0f} GB ({gpu.source})"),
        PlanRow("MFU", site.mfu, "", "assumed (--mfu), of the exact count above"),
        *(row._replace(note=note) for row, note in zip(cost_rows(run_cost(plan, site)), notes, strict=True)),
    ]


def cost_rows(cost: RunCost, note: str = "") -> list[PlanRow]:
    """Time and what comes of it."""
    return [
        PlanRow("time", cost.seconds, "s", note),
        PlanRow("GPU-hours", cost.gpu_hours, "h", ""),
        PlanRow("energy", cost.kwh, "kWh", ""),
        PlanRow("CO2", cost.co2_kg, "kg", ""),
    ]


def _idle(plan: TrainingPlan) -> str:
    return "" if plan.busy == 1 else f"{1 - plan.busy:.1%} of it idle: {plan.workers} GPUs do not divide the batch's rows"
