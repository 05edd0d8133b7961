"""A training job on Ray Train: placement, process group and restarts. The loop itself knows nothing of Ray.

Ray's own checkpoints and reports are not used (`report` is a barrier that waits for the controller's poll): the truth is
in the artifact's `checkpoints/`, so each attempt is a new Ray run and begins where the newest checkpoint says.
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

if TYPE_CHECKING:
    from training.loop import Job

MAX_FAILURES = 3
QUICK_POLL_WORKERS = 16
PROCESS_GROUP_TIMEOUT_S = 1800


def train_on_ray(job: Job, context: StageContext) -> dict[str, Any]:
    """Run the job's loop on `context.resources` and return its summary, showing its progress meanwhile.

    A worker that dies takes its group with it; Ray starts the group again from the newest checkpoint. After
    `MAX_FAILURES` deaths without a new checkpoint between them the stage fails.
    """
    from ray.train import TrainingFailedError

    from training.checkpoint import checkpoint_folder, checkpoint_steps
    from training.loop import SUMMARY
    from training.metrics import METRICS, progress_reading

    folder = checkpoint_folder(context.out)
    if context.out.exists(SUMMARY):
        return context.out.read_json(SUMMARY)
    _set_environment(context.resources)
    starting = _start_message(context)
    metrics = context.out.local_path(METRICS)
    reached = checkpoint_steps(folder)[-1:]
    with context.progress.follow(lambda: progress_reading(metrics, starting)):
        while True:
            try:
                outcome = _fit(replace(job, attempt=uuid.uuid4().hex[:12]), context)
                break
            except TrainingFailedError as error:
                before, reached = reached, checkpoint_steps(folder)[-1:]
                if before == reached:
                    raise WorkError(
                        f"training failed {MAX_FAILURES + 1} times without a new checkpoint: {_cause(error)}; see {context.logs}"
                    ) from error
    if "error" in outcome:
        raise (RequestError if outcome["exit_code"] == RequestError.exit_code else WorkError)(outcome["error"])
    return outcome


def worker_main(config: dict[str, Any]) -> dict[str, Any]:
    """What Ray Train runs in each worker. A fault that a restart cannot cure is returned, so that Ray does not retry it."""
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
    except FournilError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    except Exception:
        logging.getLogger(__name__).exception("worker %d failed", rank)
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _fit(job: Job, context: StageContext) -> dict[str, Any]:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    resources = context.resources
    on_gpu = resources.gpus_per_worker > 0
    wanted = {"CPU": resources.cpus_per_worker} | ({"GPU": resources.gpus_per_worker} if on_gpu else {})
    trainer = TorchTrainer(
        worker_main,
        train_loop_config={"job": job, "stage": context.stage, "logs": str(context.logs.resolve())},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout_s=PROCESS_GROUP_TIMEOUT_S),
        scaling_config=ScalingConfig(num_workers=resources.workers, use_gpu=on_gpu, resources_per_worker=wanted),
        run_config=RunConfig(
            name=f"{context.stage}-{job.attempt}",
            storage_path=str((context.scratch / "ray_train").resolve()),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main_thread else None
    try:
        outcome = trainer.fit().return_value
        assert outcome is not None
        return outcome
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
    for kind, each in (("CPU", asked.cpus_per_worker), ("GPU", asked.gpus_per_worker)):
        have = there.get(kind, 0)
        if asked.workers * each > have:
            shortage = f"{context.stage} asks for {asked.workers} workers with {each:g} {kind} each and the cluster has {have:g}"
            if _is_private_cluster():
                raise RequestError(f"{shortage}; lower resources.{context.stage} in the recipe")
            return f"waiting: {shortage}"
    return "starting workers"


def _cause(error: BaseException) -> str:
    """The last line of the first worker's traceback, which names the real fault."""
    failures = getattr(error, "worker_failures", None) or {}
    first = next(iter(failures.values()), error)
    lines = [line for line in str(first).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(first).__name__
