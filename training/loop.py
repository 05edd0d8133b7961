"""The one training loop, shared by pretraining and fine-tuning.

Plain PyTorch: it runs in whatever process group is there (Ray Train's, torchrun's) or alone. A step's rows come from
`data.Order`, so they depend on nothing but the seed and the step. The loss of a step is the sum over its valid targets
divided by their number over all workers and micro-batches, so the global batch means the same on any number of workers.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from cluster.errors import WorkError
from cluster.storage import Folder
from training.checkpoint import Checkpoints, checkpoint_folder, load_weights
from training.config import LoopConfig, ModelConfig
from training.data import EMPTY_ROW, Batch, HeldOut, Rows, TrainingData, share
from training.distributed import World, build_model, compiler_fault, full_state_dict, open_world
from training.export import export_model
from training.flops import flops_per_token, matmul_peak, parameter_count
from training.metrics import METRICS, MetricsLog
from training.model import Llama
from training.objectives import DeviceBatch, Objective, next_token
from training.optim import build_optimizer, clip_gradients
from training.schedule import learning_rate

EXPORT, SUMMARY = "export", "summary.json"
MAX_SKIPPED = 10
LOG_SECONDS = 1.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """One training run, in a form that travels to its workers.

    `data` opens the training data where it is called; `initial` is an artifact whose newest checkpoint gives the first
    weights (None: fresh ones); `identity` names the recipe and inputs and must be equal on resume; `attempt` is new for
    each start and names unfinished files.
    """

    model: ModelConfig
    vocab_size: int
    settings: LoopConfig
    data: Callable[[], TrainingData]
    tokenizer: Folder
    out: Folder
    identity: dict[str, Any]
    attempt: str
    initial: Folder | None = None
    chat: bool = False
    threads: int | None = None
    objective: Objective = next_token


def train(job: Job) -> dict[str, Any]:
    """Run a job to its end, from its newest checkpoint if it has one, and return (and write) its summary."""
    with open_world(job.settings.precision, job.threads) as world, ThreadPoolExecutor(1) as reader:
        # Checked first: everything else is written beside the checkpoints.
        folder = checkpoint_folder(job.out)
        with MetricsLog(job.out.local_path(METRICS), world.is_main) as log:
            run = _prepare(job, world, folder, log)
            while run.step < run.data.order.steps:
                _step(run, reader)
            return _finish(run)


@dataclass
class _Run:
    """The moving parts of one run on one worker."""

    job: Job
    world: World
    data: TrainingData
    model: Llama
    optimizer: torch.optim.Optimizer
    checkpoints: Checkpoints
    log: MetricsLog
    micro_rows: int
    compiled: bool
    peak: float
    step: int = 0
    tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    loss: float = math.nan
    reader: Future[list[DeviceBatch]] | None = None
    meter: _Meter = field(default_factory=lambda: _Meter())
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class _Meter:
    """Sums since the last written line, and over the run; without the first step, which compiles."""

    tokens: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    all_tokens: int = 0
    all_seconds: float = 0.0

    def add(self, tokens: int, seconds: float, waited: float) -> None:
        self.tokens += tokens
        self.seconds += seconds
        self.waited += waited
        self.all_tokens += tokens
        self.all_seconds += seconds

    def restart(self) -> None:
        self.tokens, self.seconds, self.waited = 0, 0.0, 0.0


def _prepare(job: Job, world: World, folder: Path, log: MetricsLog) -> _Run:
    """Model, optimizer and data, at the step that the newest checkpoint says."""
    began = time.perf_counter()
    settings = job.settings
    checkpoints = Checkpoints(folder, world, settings.keep_checkpoints, job.attempt)
    data = job.data()
    fault = compiler_fault(world.device) if settings.compile else None
    compiled = settings.compile and not any(world.gathered(fault is not None))
    model = build_model(job.model, job.vocab_size, settings.seed, world, compiled)
    optimizer = build_optimizer(model, settings.optim)

    def check(facts: dict[str, Any]) -> None:
        data.fingerprint.check(facts["fingerprint"])
        if facts["identity"] != job.identity:
            raise WorkError(f"the checkpoint belongs to another recipe ({facts['identity']}); delete the unfinished artifact to start over")

    facts, notes = checkpoints.load(model, optimizer, check)
    if facts is None and job.initial is not None:
        load_weights(model, checkpoint_folder(job.initial))
    micro_rows = share(data.order.rows(0), 0, world.size, settings.micro_batch_tokens // settings.seq_len).shape[1]
    peak = world.total(matmul_peak(world.precision, world.device.type))[0]
    run = _Run(job, world, data, model, optimizer, checkpoints, log, micro_rows, compiled, peak)
    if facts is not None:
        run.step, run.tokens, run.skipped = facts["step"], facts["tokens"], facts["skipped"]
    log.rewind(run.step)
    for note in notes:
        log.event(run.step, "damaged", note)
    if fault is not None:
        log.event(run.step, "eager", f"torch.compile does not work here ({fault}); training without it")
    _say_start(run, facts)
    run.seconds["prepare"] = time.perf_counter() - began
    return run


def _say_start(run: _Run, facts: dict[str, Any] | None) -> None:
    order, world = run.data.order, run.world
    facts_now = {
        "workers": world.size,
        "threads": torch.get_num_threads(),
        "device": str(world.device),
        "precision": world.precision,
        "compile": run.compiled,
        "micro_rows": run.micro_rows,
        "matmul_flops": run.peak,
        "parameters": parameter_count(run.job.model, run.job.vocab_size),
    }
    message = f"{order.steps:,} steps in {world.precision}" + (", compiling" if run.compiled else "")
    if facts is None:
        run.log.event(run.step, "start", message, **facts_now)
    else:
        run.log.event(run.step, "resumed", f"resumed from step {run.step:,}, {message}", saved_workers=facts["workers"], **facts_now)


def _step(run: _Run, reader: ThreadPoolExecutor) -> None:
    """One optimizer step with what follows it: a line of metrics, a reading of held-out text, a checkpoint."""
    began = time.perf_counter()
    pending = run.reader or reader.submit(_load, run, run.step)
    batches = pending.result()
    waited = time.perf_counter() - began
    if run.step + 1 < run.data.order.steps:
        run.reader = reader.submit(_load, run, run.step + 1)
    valid = run.data.rows.valid(run.data.order.rows(run.step))
    rate = learning_rate(run.step, run.data.order.steps, run.job.settings.optim)
    run.loss, norm = _update(run, batches, valid, rate)
    run.step, run.tokens = run.step + 1, run.tokens + valid
    if "first_step" in run.seconds:
        run.meter.add(valid, time.perf_counter() - began, waited)
    else:
        run.seconds["first_step"] = time.perf_counter() - began
    _write_line(run, rate, norm)
    last = run.step == run.data.order.steps
    if run.step % run.job.settings.eval_every == 0 and not last:
        _timed(run, "evaluate", lambda: _read_heldout(run, run.data.quick, whole=False))
    if run.step % run.job.settings.checkpoint_every == 0 or last:
        _timed(run, "checkpoint", lambda: _save(run))


def _load(run: _Run, step: int) -> list[DeviceBatch]:
    """This worker's micro-batches of a step, on its device."""
    world = run.world
    parts = share(run.data.order.rows(step), world.rank, world.size, run.job.settings.micro_batch_tokens // run.job.settings.seq_len)
    return [_on_device(run.data.rows.read(part), world) for part in parts]


def _on_device(batch: Batch, world: World) -> DeviceBatch:
    tokens, targets, segments, weights = (
        None if array is None else torch.from_numpy(array).to(world.device)
        for array in (batch.tokens, batch.targets, batch.segments, batch.weights)
    )
    assert tokens is not None
    assert targets is not None
    return DeviceBatch(tokens, targets, segments, weights, {name: torch.from_numpy(a).to(world.device) for name, a in batch.extra.items()})


def _update(run: _Run, batches: list[DeviceBatch], valid: float, rate: float) -> tuple[float, float]:
    """Loss and gradient norm of a step, and the update unless one of them is not finite.

    FSDP averages gradients over workers, so each worker's sum is scaled by their number.
    """
    summed = torch.zeros((), dtype=torch.float32, device=run.world.device)
    run.model.train()
    for batch in batches:
        loss = run.job.objective(run.model, batch)
        (loss * (run.world.size / valid)).backward()
        summed += loss.detach()
    loss = run.world.total(float(summed))[0] / valid
    norm = clip_gradients(run.model, run.job.settings.optim.grad_clip)
    if math.isfinite(loss) and math.isfinite(norm):
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        run.optimizer.step()
        run.skipped_in_a_row = 0
    else:
        run.skipped, run.skipped_in_a_row = run.skipped + 1, run.skipped_in_a_row + 1
        run.log.event(run.step + 1, "skipped", f"step {run.step + 1} skipped: loss {loss}, gradient norm {norm}")
        if run.skipped_in_a_row == MAX_SKIPPED:
            raise WorkError(f"{MAX_SKIPPED} steps in a row had no finite loss, the last being {run.step + 1}; lower optim.learning_rate")
    run.optimizer.zero_grad()
    return loss, norm


def _write_line(run: _Run, rate: float, norm: float) -> None:
    """A line of metrics once there is a second of work to speak of, and at the end."""
    meter, order, job = run.meter, run.data.order, run.job
    if (meter.seconds < LOG_SECONDS and run.step < order.steps) or not math.isfinite(run.loss + norm):
        return
    speed = meter.tokens / meter.seconds if meter.seconds else None
    run.log.write(
        "train",
        run.step,
        steps=order.steps,
        tokens=run.tokens,
        total_tokens=max(run.tokens, order.total_rows * job.settings.seq_len),
        loss=run.loss,
        lr=rate,
        grad_norm=norm,
        tokens_per_s=speed and round(speed, 1),
        flops_share=_flops_share(run, speed),
        data_wait=meter.seconds and round(meter.waited / meter.seconds, 4),
        memory_mb=_memory_mb(run.world),
    )
    meter.restart()


def _flops_share(run: _Run, speed: float | None) -> float | None:
    """Share of the matmul peak measured at the start (all workers together) at `speed` tokens a second."""
    needed = flops_per_token(run.job.model, run.job.vocab_size, run.job.settings.seq_len)
    return None if speed is None else round(speed * needed / run.peak, 4)


def _memory_mb(world: World) -> int:
    """Peak memory of this worker: of the device if it has its own, else resident."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(world.device) >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _save(run: _Run) -> None:
    facts = {
        "step": run.step,
        "tokens": run.tokens,
        "skipped": run.skipped,
        "fingerprint": asdict(run.data.fingerprint),
        "identity": run.job.identity,
        "model": run.job.model.model_dump(mode="json"),
        "vocab_size": run.job.vocab_size,
    }
    run.checkpoints.save(run.model, run.optimizer, facts)


def _read_heldout(run: _Run, heldout: dict[str, HeldOut], *, whole: bool) -> dict[str, dict[str, float | None]]:
    """Readings by stream: bits a byte where the bytes are known, and nats a token."""
    readings: dict[str, dict[str, float | None]] = {}
    shown: dict[str, float] = {}
    for stream, part in heldout.items():
        nats, tokens = evaluate(run.model, part.rows, run.world, run.micro_rows)
        bits = nats / math.log(2) / part.bytes if part.bytes else None
        readings[stream] = {"bits_per_byte": bits, "nats_per_token": nats / tokens, "tokens": tokens, "bytes": part.bytes}
        shown[stream] = nats / tokens if bits is None else bits
    if shown:
        run.log.write("eval", run.step, heldout=shown, whole=whole)
    return readings


@torch.no_grad()
def evaluate(model: Llama, rows: Rows, world: World, micro_rows: int) -> tuple[float, int]:
    """Summed negative log-likelihood in nats over all valid targets of all rows, and their number."""
    model.eval()
    nats, together = 0.0, micro_rows * world.size
    for start in range(0, len(rows), together):
        numbers = np.arange(start, start + together, dtype=np.int64)
        numbers[numbers >= len(rows)] = EMPTY_ROW
        batch = _on_device(rows.read(numbers[world.rank * micro_rows : (world.rank + 1) * micro_rows]), world)
        nats += float(model(batch.tokens, batch.targets, batch.segments))
    return world.total(nats)[0], int(rows.valid(np.arange(len(rows))))


def _finish(run: _Run) -> dict[str, Any]:
    """The whole held-out reading, the export, and the summary, which rank 0 writes last."""
    job, meter = run.job, run.meter
    run.log.event(run.step, "heldout", "reading all held-out text")
    heldout = _timed(run, "evaluate", lambda: _read_heldout(run, run.data.heldout, whole=True))
    run.log.event(run.step, "export", "exporting the model")
    _timed(run, "export", lambda: _export(run))
    speed = meter.all_tokens / meter.all_seconds if meter.all_seconds else None
    summary = {
        "steps": run.step,
        "tokens": run.tokens,
        "skipped_steps": run.skipped,
        "loss": run.loss if math.isfinite(run.loss) else None,
        "heldout": heldout,
        "parameters": parameter_count(job.model, job.vocab_size),
        "workers": run.world.size,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(run.world.device) if run.world.device.type == "cuda" else "cpu",
        "precision": run.world.precision,
        "compile": run.compiled,
        "tokens_per_s": speed and round(speed, 1),
        "flops_share": _flops_share(run, speed),
        "matmul_flops": run.peak,
        "memory_mb": _memory_mb(run.world),
        "seconds": {**{name: round(value, 2) for name, value in run.seconds.items()}, "train": round(meter.all_seconds, 2)},
    }
    if run.world.is_main:
        job.out.write_json(SUMMARY, summary)
    run.world.wait()
    return summary


def _export(run: _Run) -> None:
    weights = full_state_dict(run.model)
    if run.world.is_main:
        export_model(weights, run.job.model, run.job.vocab_size, run.job.tokenizer, run.job.out, EXPORT, chat=run.job.chat)
    run.world.wait()


def _timed(run: _Run, name: str, work: Callable[[], Result]) -> Result:
    began = time.perf_counter()
    result = work()
    run.seconds[name] = run.seconds.get(name, 0.0) + time.perf_counter() - began
    return result
