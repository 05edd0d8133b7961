"""The one training loop, shared by pretraining and fine-tuning.

Plain PyTorch: it runs in whatever process group is there (Ray Train's, torchrun's) or alone. A step's rows come from
`data.Order`, so they depend on nothing but the seed, the step and the shifts of `training/spikes.py`. The loss of a step is
a sum over its targets divided by their number over all workers and micro-batches (`training/step.py`), so the global batch
means the same on any number of workers. A step's figures are read while the next one runs, and before a checkpoint.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

from cluster.errors import RequestError, WorkError
from training.average import average_checkpoints
from training.checkpoint import TRAINED, Checkpoints, checkpoint_folder, load_step, load_weights
from training.data import IGNORE, HeldOut, TrainingData
from training.distributed import PATIENT_TIMEOUT_S, World, build_model, compiler_fault, full_state_dict, open_world
from training.export import export_model
from training.flops import FLOPS_FORMULA, flops_per_token, matmul_peak, parameter_count
from training.goldfish import drop_targets
from training.heldout import read_heldout, shown
from training.job import Job
from training.lora import export_adapter, init_adapters, merged
from training.meter import Meter, known_peak
from training.metrics import METRICS, MetricsLog
from training.model import Llama, init_weights
from training.objectives import DeviceBatch, on_device
from training.optim import build_optimizer
from training.order import share
from training.profile import ProfilerWindow
from training.schedule import learning_rate
from training.spikes import Shift, SpikeGuard, go_round, skipped_steps
from training.step import Figures, Reading, train_step
from training.trackers import open_tracker

EXPORT, AVERAGE, SUMMARY = "export", "export-average", "summary.json"
LOG_SECONDS = 1.0


def train(job: Job) -> dict[str, Any]:
    """Run a job to its end, from its newest checkpoint if it has one, and return (and write) its summary."""
    with open_world(job.settings.precision, job.threads) as world, ThreadPoolExecutor(1) as reader:
        # Checked first: everything else is written beside the checkpoints.
        folder = checkpoint_folder(job.out)
        with MetricsLog(job.out.local_path(METRICS), world.is_main, partial(open_tracker, job)) as log:
            run = _prepare(job, world, folder, log)
            with run.checkpoints:
                while run.step < run.data.order.steps:
                    _step(run, reader)
                    run.window.between_steps(run.step)
                    if run.lost:
                        _rewind(run)
                return _finish(run)


@dataclass
class _Launched:
    """A step whose figures are still to be read."""

    step: int
    rate: float
    seconds: float
    waited: float
    reading: Reading


@dataclass
class _Run:
    """The moving parts of one run on one worker. `step` are those launched, `bad` the last ones that were skipped in a row."""

    job: Job
    world: World
    data: TrainingData
    model: Llama
    optimizer: torch.optim.Optimizer
    guard: SpikeGuard
    checkpoints: Checkpoints
    log: MetricsLog
    micro_rows: int
    compiled: bool
    meter: Meter
    window: ProfilerWindow
    step: int = 0
    tokens: int = 0
    skipped: int = 0
    bad: list[dict[str, float]] = field(default_factory=list)
    shifts: list[Shift] = field(default_factory=list)
    rewinds: int = 0
    loss: float = math.nan
    reader: Future[tuple[list[DeviceBatch], int]] | None = None
    launched: _Launched | None = None

    @property
    def lost(self) -> bool:
        return len(self.bad) >= self.job.settings.spikes.max_skipped


def _prepare(job: Job, world: World, folder: Path, log: MetricsLog) -> _Run:
    """Model, optimizer and data, at the step that the newest checkpoint says."""
    began = time.perf_counter()
    settings = job.settings
    checkpoints = Checkpoints(
        folder, world, settings.keep_checkpoints, job.attempt, keep_every=settings.keep_every, background=settings.async_checkpoints
    )
    data = job.data()
    fault = compiler_fault(world.device) if settings.compile else None
    compiled = settings.compile and not any(world.gathered(fault is not None))
    recompute, fp8 = settings.activation_checkpointing, settings.fp8
    model = build_model(job.model, job.vocab_size, settings.seed, world, compiled, recompute=recompute, fp8=fp8, lora=job.lora)
    optimizer = build_optimizer(model, settings.optim)
    guard = SpikeGuard(settings.spikes, world.device, settings.optim.grad_clip)
    micro_rows = share(data.order.rows(0), 0, world.size, settings.micro_batch_tokens // settings.seq_len).shape[1]
    peak = world.total(matmul_peak(world.precision, world.device.type))[0]
    flops = flops_per_token(job.model, job.vocab_size, settings.seq_len)
    meter = Meter(flops, peak, world.device, world.size, known_peak(world))
    window = ProfilerWindow(job.logs, job.out.local_path(), log)
    run = _Run(job, world, data, model, optimizer, guard, checkpoints, log, micro_rows, compiled, meter, window)
    facts, notes = _restore(run)
    log.rewind(run.step)
    for note in notes:
        log.event(run.step, "damaged", note)
    if fault is not None:
        log.event(run.step, "eager", f"torch.compile does not work here ({fault}); training without it")
    _say_start(run, facts)
    meter.parts["prepare"] = time.perf_counter() - began
    return run


def _restore(run: _Run) -> tuple[dict[str, Any] | None, list[str]]:
    """Put the run where its newest sound checkpoint says (returns its facts), or at its beginning."""
    job = run.job

    def check(facts: dict[str, Any]) -> None:
        run.data.fingerprint.check(facts["fingerprint"])
        if facts["identity"] != job.identity:
            raise WorkError(f"the checkpoint belongs to another recipe ({facts['identity']}); delete the unfinished artifact to start over")

    facts, notes = run.checkpoints.load(run.model, run.optimizer, check)
    there = facts or {"step": 0, "tokens": 0, "skipped": 0, "spikes": None, "shifts": [], "rewinds": 0}
    run.step, run.tokens, run.skipped, run.rewinds = there["step"], there["tokens"], there["skipped"], there["rewinds"]
    run.shifts = [Shift(*shift) for shift in there["shifts"]]
    run.guard.load(there["spikes"])
    if facts is None:
        _begin(run)
    elif job.lora is not None and job.initial is not None:
        load_weights(run.model, checkpoint_folder(job.initial))  # frozen, so in none of the run's own checkpoints
    return facts, notes


def _begin(run: _Run) -> None:
    """The run's first weights, and for a branch the optimizer's state and the place in the data."""
    job = run.job
    if run.optimizer.state:  # it has trained, and goes back
        init_weights(run.model, job.settings.seed)
        init_adapters(run.model, job.settings.seed)
        run.optimizer.state.clear()
    if job.initial is not None:
        load_weights(run.model, checkpoint_folder(job.initial))
    if job.prepare is not None:
        job.prepare(run.model, run.world, run.micro_rows)
    if job.branch is None:
        return
    facts = load_step(run.model, run.optimizer, checkpoint_folder(job.branch.base), job.branch.step)
    if job.branch.same_data:
        mine, theirs = asdict(run.data.fingerprint), facts["fingerprint"]
        different = [name for name in mine if name != "total_rows" and mine[name] != theirs.get(name)]
        if different:
            raise RequestError(f"the run cannot go on with the data of {job.branch.base.url}: {', '.join(different)} differ")
        run.shifts = [Shift(0, facts["step"] + skipped_steps([Shift(*shift) for shift in facts["shifts"]], facts["step"]))]


def _say_start(run: _Run, facts: dict[str, Any] | None) -> None:
    order, world = run.data.order, run.world
    facts_now = {
        "workers": world.size,
        "threads": torch.get_num_threads(),
        "device": str(world.device),
        "precision": world.precision,
        "compile": run.compiled,
        "micro_rows": run.micro_rows,
        "matmul_flops": run.meter.peak,
        "peak_flops": run.meter.known_peak,
        "flops_per_token": run.meter.flops,
        "flops_formula": FLOPS_FORMULA,
        "parameters": parameter_count(run.job.model, run.job.vocab_size),
        "sources": run.data.seen(order.steps, run.shifts),
    }
    message = f"{order.steps:,} steps in {world.precision} on {world.size} worker{'s' * (world.size > 1)}"
    message += (", compiling" if run.compiled else "") + (f"; before that: {run.job.after}" if run.job.after else "")
    if facts is None:
        run.log.event(run.step, "start", message, **facts_now)
    else:
        run.log.event(run.step, "resumed", f"resumed from step {run.step:,}, {message}", saved_workers=facts["workers"], **facts_now)


def _step(run: _Run, reader: ThreadPoolExecutor) -> None:
    """One optimizer step with what follows it: the figures of the step before, a reading of held-out text, a checkpoint."""
    began = time.perf_counter()
    settings, steps = run.job.settings, run.data.order.steps
    pending = run.reader or reader.submit(_load, run, run.step)
    batches, targets = pending.result()
    waited = time.perf_counter() - began
    run.reader = reader.submit(_load, run, run.step + 1) if run.step + 1 < steps else None
    rate = learning_rate(run.step, steps, settings.optim)
    reading = train_step(
        run.model, run.optimizer, run.guard, run.job.objective, batches, targets, rate=rate, max_norm=settings.optim.grad_clip
    )
    run.step += 1
    _settle(run)
    if run.lost:
        return
    last = run.step == steps
    evaluates, saves = run.step % settings.eval_every == 0 and not last, run.step % settings.checkpoint_every == 0 or last
    if evaluates or saves:
        reading.wait()
    run.launched = _Launched(run.step, rate, time.perf_counter() - began, waited, reading)
    if evaluates or saves:
        _settle(run)
        if run.lost:
            return
    if evaluates:
        run.meter.timed("evaluate", lambda: _read_heldout(run, run.data.quick, whole=False))
    if saves and (last or not run.bad):
        run.meter.timed("checkpoint", lambda: _save(run))


def _load(run: _Run, step: int) -> tuple[list[DeviceBatch], int]:
    """This worker's micro-batches of a step, on its device, and the number of their targets in the data."""
    world, settings = run.world, run.job.settings
    rows = run.data.order.rows(step, skipped_steps(run.shifts, step))
    parts = share(rows, world.rank, world.size, settings.micro_batch_tokens // settings.seq_len)
    batches = [run.data.rows.read(part) for part in parts]
    targets = sum(int(np.count_nonzero(batch.targets != IGNORE)) for batch in batches)
    if settings.goldfish is not None:
        batches = [drop_targets(batch, settings.goldfish) for batch in batches]
    return [on_device(batch, world.device) for batch in batches], targets


def _settle(run: _Run) -> None:
    """Read the figures of the step launched last, if that has not been done: counts, skipped steps, a line of metrics."""
    launched, run.launched = run.launched, None
    if launched is None:
        return
    figures = launched.reading.wait()
    run.loss, run.tokens = figures.loss, run.tokens + figures.targets
    if "first_step" in run.meter.parts:
        run.meter.add(figures.targets, launched.seconds, launched.waited)
    else:
        run.meter.parts["first_step"] = launched.seconds
        run.world.set_timeout(run.job.settings.collective_timeout_s)
    if figures.skipped:
        run.skipped += 1
        run.bad.append({"step": launched.step, "loss": figures.loss, "grad_norm": figures.grad_norm})
        run.log.event(launched.step, "skipped", _told(run.bad[-1], "skipped"))
    else:
        run.bad.clear()
    if math.isfinite(figures.loss + figures.grad_norm):
        _write_line(run, launched, figures)


def _told(bad: dict[str, float], what: str) -> str:
    return f"step {bad['step']} {what}: loss {bad['loss']}, gradient norm {bad['grad_norm']}"


def _rewind(run: _Run) -> None:
    """Back to the newest checkpoint, which is older than the skipped steps, and on past the rows that came since.

    Nothing of this is written before the next checkpoint: a run that is killed meanwhile finds the same steps bad again.
    """
    bad, shifts, rewinds = run.bad, run.shifts, run.rewinds + 1
    story = f"{len(bad)} steps in a row had no finite loss or gradient norm, or a spike; {_told(bad[-1], 'was the last')}"
    if rewinds > run.job.settings.spikes.max_rewinds:
        raise WorkError(f"{story}; going back {run.rewinds} times did not help: lower optim.learning_rate, or look at the data")
    stop = int(bad[-1]["step"])
    run.reader, run.launched, run.bad = None, None, []
    run.world.set_timeout(PATIENT_TIMEOUT_S)
    _, notes = _restore(run)
    run.world.set_timeout(run.job.settings.collective_timeout_s)
    run.shifts, run.rewinds = go_round(shifts, run.step, stop), rewinds
    run.log.rewind(run.step)
    for note in notes:
        run.log.event(run.step, "damaged", note)
    passed = f"back to step {run.step:,} and past the rows of {stop - run.step} steps"
    run.log.event(run.step, "rewound", f"{story}; {passed}", skipped=[_told(step, "skipped") for step in bad], shifts=run.shifts)


def _write_line(run: _Run, launched: _Launched, figures: Figures) -> None:
    """A line of metrics once there is a second of work to speak of, and at the end."""
    order = run.data.order
    if run.meter.seconds < LOG_SECONDS and launched.step < order.steps:
        return
    run.log.write(
        "train",
        launched.step,
        steps=order.steps,
        tokens=run.tokens,
        total_tokens=max(run.tokens, order.total_rows * run.job.settings.seq_len),
        loss=figures.loss,
        lr=launched.rate,
        grad_norm=figures.grad_norm,
        **run.meter.take(),
        goodput=round(run.log.goodput(run.tokens), 1),
    )


def _save(run: _Run) -> None:
    facts = {
        "step": run.step,
        "tokens": run.tokens,
        "skipped": run.skipped,
        "spikes": run.guard.state(),
        "shifts": run.shifts,
        "rewinds": run.rewinds,
        "fingerprint": asdict(run.data.fingerprint),
        "identity": run.job.identity,
        "model": run.job.model.model_dump(mode="json"),
        "vocab_size": run.job.vocab_size,
    }
    if run.job.lora is not None:
        facts |= {"lora": run.job.lora.model_dump(mode="json"), "base": run.job.initial and run.job.initial.url}
    run.checkpoints.save(run.model, run.optimizer, facts)


def _read_heldout(run: _Run, streams: dict[str, HeldOut], *, whole: bool) -> dict[str, dict[str, float | None]]:
    readings = read_heldout(run.model, streams, run.world, run.micro_rows)
    if readings:
        run.log.write("eval", run.step, heldout=shown(readings, streams), whole=whole)
    return readings


def _finish(run: _Run) -> dict[str, Any]:
    """The whole held-out reading, the export, and the summary, which rank 0 writes last."""
    job, meter = run.job, run.meter
    run.window.close(run.step)
    meter.timed("drain", run.checkpoints.wait)
    meter.parts["checkpoint_write"] = run.checkpoints.write_seconds
    run.world.set_timeout(PATIENT_TIMEOUT_S)
    run.log.event(run.step, "heldout", "reading all held-out text")
    heldout = meter.timed("evaluate", lambda: _read_heldout(run, run.data.heldout, whole=True))
    run.log.event(run.step, "export", "exporting the model")
    meter.timed("export", lambda: _export(run, EXPORT))
    average = meter.timed("average", lambda: _average(run)) if job.settings.average_last else None
    summary = {
        "steps": run.step,
        "tokens": run.tokens,
        "skipped_steps": run.skipped,
        "shifts": [list(shift) for shift in run.shifts],
        "loss": run.loss if math.isfinite(run.loss) else None,
        "heldout": heldout,
        "average": average,
        "sources": run.data.seen(run.step, run.shifts),
        "parameters": parameter_count(job.model, job.vocab_size),
        "workers": run.world.size,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(run.world.device) if run.world.device.type == "cuda" else "cpu",
        "precision": run.world.precision,
        "compile": run.compiled,
        **meter.summary(),
        "goodput": round(run.log.goodput(run.tokens), 1),
    }
    if run.world.is_main:
        job.out.write_json(SUMMARY, summary)
    run.world.wait()
    return summary


def _export(run: _Run, name: str) -> None:
    """The model as a folder; adapters are merged into it, and stand beside it too."""
    job, weights = run.job, full_state_dict(run.model)
    if run.world.is_main:
        if job.lora is not None:
            if name == EXPORT:
                export_adapter(weights, job.lora, str(job.initial / EXPORT) if job.initial else "", job.out)
            weights = merged(weights, job.lora)
        export_model(weights, job.model, job.vocab_size, job.tokenizer, job.out, name, chat=job.chat)
    run.world.wait()


def _average(run: _Run) -> dict[str, Any]:
    """The mean of the last checkpoints takes the model's place, is read and exported."""
    weights = get_model_state_dict(run.model, options=TRAINED)
    steps = average_checkpoints(weights, run.checkpoints.folder, run.job.settings.average_last)
    set_model_state_dict(run.model, weights, options=TRAINED)
    heldout = read_heldout(run.model, run.data.heldout, run.world, run.micro_rows)
    _export(run, AVERAGE)
    return {"steps": steps, "heldout": heldout}
