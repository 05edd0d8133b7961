"""A training job on Ray Train: placement, process group and restarts. The loop itself knows nothing of Ray.

Ray's own checkpoints and reports are not used (`report` is a barrier that waits for the controller's poll): the truth is
in the artifact's `checkpoints/`, so each attempt is a new Ray run and begins where the newest checkpoint says. Restarts are
made here and not by Ray, so that the log can say what went before, and so that an error which no restart cures ends the run.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import FournilError, RequestError, WorkError
from cluster.stage import Resources, StageContext
from training.config import WatchConfig

if TYPE_CHECKING:
    from training.job import Job

MAX_FAILURES = 3
QUICK_POLL_WORKERS = 16
RESIZE_SECONDS = 1800.0
"""How often an elastic run asks for the workers it lacks. Growing costs a restart and the steps since the last checkpoint."""


def train_on_ray(job: Job, context: StageContext) -> dict[str, Any]:
    """Run the job's loop on `context.resources` and return its summary, showing its progress meanwhile.

    A worker that dies or hangs takes its group with it; a new group begins at the newest checkpoint, with as many workers as
    there is room for. After `MAX_FAILURES` restarts without a new checkpoint between them the stage fails.
    """
    from ray.train import TrainingFailedError

    from training.checkpoint import checkpoint_folder, checkpoint_steps
    from training.loop import SUMMARY
    from training.metrics import METRICS, progress_reading

    folder = checkpoint_folder(context.out)
    if context.out.exists(SUMMARY):
        return context.out.read_json(SUMMARY)
    assert isinstance(context.watch, WatchConfig | None)
    job = replace(job, watch=context.watch or WatchConfig(), logs=context.logs.resolve())
    _set_environment(context.resources)
    starting = _start_message(context)
    metrics = context.out.local_path(METRICS)
    failures, reached = 0, checkpoint_steps(folder)[-1:]
    with context.progress.follow(lambda: progress_reading(metrics, starting)):
        while True:
            job = replace(job, attempt=uuid.uuid4().hex[:12])
            try:
                return _fit(job, context)
            except TrainingFailedError as error:
                if (known := _fournil_error(error)) is not None:
                    raise known from error
                before, reached = reached, checkpoint_steps(folder)[-1:]
                failures = failures + 1 if before == reached else 1
                job = replace(job, after=_cause(error))
                if failures > MAX_FAILURES:
                    raise WorkError(
                        f"training failed {failures} times without a new checkpoint: {job.after}; see {context.logs}"
                    ) from error


def worker_main(config: dict[str, Any]) -> dict[str, Any]:
    """What Ray Train runs in each worker."""
    import ray.train

    from training.loop import train

    rank = ray.train.get_context().get_world_rank()
    logs = Path(config["logs"])
    logs.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(logs / f"{config['stage']}-worker-{rank}.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    try:
        return train(config["job"])
    except Exception:
        logging.getLogger(__name__).exception("worker %d failed", rank)
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _fit(job: Job, context: StageContext) -> dict[str, Any]:
    """One attempt. Only what Ray itself sees coming (a node that is to go, workers to add) restarts the group inside it."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    from training.distributed import PATIENT_TIMEOUT_S

    resources = context.resources
    on_gpu = resources.gpus_per_worker > 0
    wanted = {"CPU": resources.cpus_per_worker} | ({"GPU": resources.gpus_per_worker} if on_gpu else {})
    trainer = TorchTrainer(
        worker_main,
        train_loop_config={"job": job, "stage": context.stage, "logs": str(context.logs.resolve())},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout_s=int(PATIENT_TIMEOUT_S)),
        scaling_config=ScalingConfig(
            num_workers=(resources.min_workers, resources.workers) if resources.min_workers else resources.workers,
            use_gpu=on_gpu,
            resources_per_worker=wanted,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(
            name=f"{context.stage}-{job.attempt}",
            storage_path=str((context.scratch / "ray_train").resolve()),
            failure_config=FailureConfig(max_failures=0),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main_thread else None
    try:
        outcome = trainer.fit().return_value
        assert outcome is not None
        return outcome
    except SystemExit:  # Ray Train's answer to Ctrl-C, once it has stopped the workers
        raise KeyboardInterrupt from None
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


def _set_environment(resources: Resources) -> None:
    """Ray Train reads these in the driver and passes them on: no chdir, no patched print, no metrics, time for workers to
    start on a busy machine, no watch for preemption where nothing can be preempted, and a quick poll where few workers
    make it cheap (a death or the end is noticed sooner)."""
    wanted = {
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    }
    if _is_private_cluster():
        wanted["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    if resources.workers <= QUICK_POLL_WORKERS:
        wanted["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.25"
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def _is_private_cluster() -> bool:
    """Whether this process started its Ray cluster itself."""
    from ray._private import worker

    return worker._global_node is not None and worker._global_node.is_head()


def _start_message(context: StageContext) -> str:
    """What is being waited for at first. A private cluster cannot grow, so asking it for more than it has is an error."""
    import ray

    asked, there = context.resources, ray.cluster_resources()
    fewest = asked.min_workers or asked.workers
    for kind, each in (("CPU", asked.cpus_per_worker), ("GPU", asked.gpus_per_worker)):
        have = there.get(kind, 0)
        if fewest * each > have:
            shortage = f"{context.stage} asks for {fewest} workers with {each:g} {kind} each and the cluster has {have:g}"
            if _is_private_cluster():
                raise RequestError(f"{shortage}; lower resources.{context.stage} in the recipe")
            return f"waiting: {shortage}"
    return "starting workers"


def _fournil_error(error: Any) -> FournilError | None:
    """What a worker raised on purpose, whose line is meant for people, or that it had no room to write."""
    from training.checkpoint import NO_SPACE

    for failure in getattr(error, "worker_failures", {}).values():
        fault = getattr(failure, "_base_exc", failure)
        if isinstance(fault, FournilError):
            return fault
        if isinstance(fault, OSError) and fault.errno in NO_SPACE:
            return WorkError(f"{fault.filename or 'a file'} cannot be written ({fault.strerror}); make room, then the same command goes on")
    return None


def _cause(error: Any) -> str:
    """What ended an attempt, in a line. A worker that died or hung makes others fail, so it is looked for first."""
    failures = getattr(error, "worker_failures", {})
    for rank, failure in failures.items():
        if not hasattr(failure, "_base_exc"):
            return f"worker {rank} died: it was killed, was out of memory, or its node is gone"
    for rank, failure in failures.items():
        if "timed out" in str(failure).lower():
            return f"a worker hung: worker {rank} waited longer than collective_timeout_s for it ({_last_line(failure)})"
    return "; ".join(f"worker {rank}: {_last_line(failure)}" for rank, failure in failures.items()) or _last_line(error)


def _last_line(error: BaseException) -> str:
    """The last line of a traceback, which names the real fault."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else type(error).__name__
