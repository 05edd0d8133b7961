"""Pretraining as real two-process FSDP2 under Ray Train, and what a kill -9 of a worker or of the driver does to it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.artifacts import Artifact
from cluster.errors import RequestError, WorkError
from cluster.stage import Resources, StageContext
from cluster.storage import Folder
from tests.training.tiny import MODEL, VOCAB, SlowInput, job, settings
from training import pretrain, worker
from training.checkpoint import CHECKPOINTS, checkpoint_steps, read_state
from training.config import OptimConfig, PretrainJobConfig
from training.loop import SUMMARY
from training.metrics import METRICS, read_metrics
from training.worker import train_on_ray

TWO = Resources(workers=2, cpus_per_worker=1)
CONFIG = settings(tokens=128 * 30, checkpoint_every=5)

Make = Callable[..., StageContext]


@pytest.fixture
def context(stage_context: Make, tmp_path: Path) -> Callable[..., StageContext]:
    def make(key: str, resources: Resources = TWO, config: PretrainJobConfig | None = None) -> StageContext:
        wanted = job(tmp_path, key, CONFIG)
        tokens = Artifact("tokens", "t", Folder(str(tmp_path / "tokens")), {})
        tokenizer = Artifact("tokenizer", "k", wanted.tokenizer, {})
        config = config or PretrainJobConfig(model=MODEL, pretrain=CONFIG)
        return stage_context("pretrain", config, resources=resources, key=key, tokens=tokens, tokenizer=tokenizer)

    return make


def slow_job(root: Path, context: StageContext, seconds: float = 0.05) -> Any:
    """The stage's job, reading so slowly that there is time to kill something."""
    data = SlowInput(pretrain.TokensInput(Folder(str(root / "tokens")), CONFIG), seconds)
    return replace(job(root, "unused", CONFIG), data=data, out=context.out, identity=pretrain.identity(context))


def weights(context: StageContext) -> bytes:
    return context.out.read_bytes("export/model.safetensors")


def events(context: StageContext, *names: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(context.out.local_path(METRICS)) if line.get("event") in names]


def wait_for_step(folder: Folder, step: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if checkpoint_steps(folder.local_path(CHECKPOINTS))[-1:] >= [step]:
            return
        time.sleep(0.05)
    raise TimeoutError(f"no checkpoint of step {step} in {folder}")


def train_workers(parent: int) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.usefixtures("ray_session")
def test_an_elastic_run_grows_when_there_is_room(context: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another job has a claim on one CPU of two at first: the group begins with one worker and goes on with two.

    It comes before the tests that kill drivers, whose claims stand until they expire.
    """
    import ray
    from ray.data._internal.cluster_autoscaler.base_autoscaling_coordinator import ResourceRequestPriority
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator

    coordinator = get_or_create_autoscaling_coordinator()
    claim = {"resources": [{"CPU": 1}], "expire_after_s": 600, "priority": ResourceRequestPriority.HIGH}
    ray.get(coordinator.request_resources.remote(requester_id="another job", **claim))
    monkeypatch.setattr(worker, "RESIZE_SECONDS", 1.0)
    grown = context("grown", resources=Resources(workers=2, cpus_per_worker=1, min_workers=1))

    def leave() -> None:
        wait_for_step(grown.out, 5)
        ray.get(coordinator.cancel_request.remote(requester_id="another job"))

    thread = threading.Thread(target=leave)
    thread.start()
    summary = train_on_ray(slow_job(tmp_path, grown, seconds=0.15), grown)
    thread.join()
    assert [line["workers"] for line in events(grown, "start", "resumed")] == [1, 2]
    assert (summary["steps"], summary["workers"]) == (30, 2)


@pytest.mark.usefixtures("ray_session")
def test_ctrl_c_ends_the_group_and_the_next_one_goes_on(context: Make, tmp_path: Path) -> None:
    """Ray Train answers the signal itself, with an exit that would pass for the end of the work."""
    stopped = context("stopped", resources=Resources(workers=1, cpus_per_worker=1))

    def press() -> None:
        wait_for_step(stopped.out, 5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        train_on_ray(slow_job(tmp_path, stopped), stopped)
    thread.join()
    assert not stopped.out.exists(SUMMARY)
    assert train_on_ray(slow_job(tmp_path, stopped, seconds=0.0), stopped)["steps"] == 30
    assert [line["event"] for line in events(stopped, "start", "resumed")] == ["start", "resumed"]


@pytest.mark.usefixtures("ray_session")
def test_two_workers_train_one_model_and_survive_kills(context: Make, tmp_path: Path) -> None:
    plain = context("plain")
    summary = pretrain.run(plain)
    assert summary["workers"] == 2
    assert plain.out.read_json(SUMMARY) == summary
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {name.split("/")[-1] for name in plain.out.names(under="export")}
    assert pretrain.run(plain) == summary

    _kill_a_worker(context, tmp_path, weights(plain))
    _kill_the_driver(context, tmp_path, weights(plain))
    _resume_on_one_worker(plain, context, summary)


def _kill_a_worker(context: Make, root: Path, expected: bytes) -> None:
    hit = context("hit")
    killed: list[int] = []

    def kill() -> None:
        wait_for_step(hit.out, 10)
        victim = train_workers(os.getpid())[1]
        killed.append(victim.pid)
        os.kill(victim.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    summary = train_on_ray(slow_job(root, hit), hit)
    thread.join()
    assert len(killed) == 1
    assert summary["steps"] == 30
    resumed = events(hit, "resumed")
    assert resumed
    assert min(line["step"] for line in resumed) >= 10
    assert re.search(r"before that: worker \d died", resumed[0]["message"])
    assert weights(hit) == expected


def _kill_the_driver(context: Make, root: Path, expected: bytes) -> None:
    import ray

    lost = context("lost")
    address = ray.get_runtime_context().gcs_address
    script = Path(__file__).with_name("driver.py")
    driver = subprocess.Popen([sys.executable, str(script), address, str(root), lost.out.url], stdout=subprocess.DEVNULL)
    wait_for_step(lost.out, 10)
    driver.kill()
    driver.wait()
    assert not lost.out.exists(SUMMARY)
    summary = train_on_ray(slow_job(root, lost), lost)
    assert summary["steps"] == 30
    assert weights(lost) == expected


def _resume_on_one_worker(plain: StageContext, context: Make, summary: dict[str, Any]) -> None:
    """From a checkpoint of two workers, one worker with two threads ends where they did, but for rounding."""
    moved = context("moved", resources=Resources(workers=1, cpus_per_worker=2))
    shutil.copytree(plain.out.local_path(f"{CHECKPOINTS}/step-00000025"), moved.out.local_path(f"{CHECKPOINTS}/step-00000025"))
    alone = pretrain.run(moved)
    assert (alone["workers"], alone["threads"]) == (1, 2)
    assert alone["tokens"] == summary["tokens"]
    assert alone["loss"] == pytest.approx(summary["loss"], abs=1e-5)
    for stream, reading in summary["heldout"].items():
        assert alone["heldout"][stream]["bits_per_byte"] == pytest.approx(reading["bits_per_byte"], rel=1e-5)
    state = read_state(moved.out.local_path(f"{CHECKPOINTS}/step-00000030"))
    assert state["identity"] == {"recipe": state["identity"]["recipe"], "tokenizer": "k", "tokens": "t"}
    assert state["vocab_size"] == VOCAB


@pytest.mark.usefixtures("ray_session")
def test_a_fault_that_a_restart_cannot_cure_is_not_retried(context: Make, tmp_path: Path) -> None:
    wrong = context("wrong", resources=Resources(workers=1, cpus_per_worker=1))
    wild = CONFIG.model_copy(update={"optim": OptimConfig(learning_rate=1e30, grad_clip=1e30, warmup_ratio=0)})
    with pytest.raises(WorkError, match="no finite loss"):
        train_on_ray(job(tmp_path, "unused", wild, out=wrong.out), wrong)
    assert len(events(wrong, "start", "resumed")) == 1


@pytest.mark.usefixtures("ray_session")
def test_requests_that_cannot_work_are_refused_before_anything_starts(context: Make) -> None:
    with pytest.raises(RequestError, match="asks for 3 workers with 1 CPU each and the cluster has 2"):
        pretrain.run(context("many", resources=Resources(workers=3, cpus_per_worker=1)))
    too_long = PretrainJobConfig(model=MODEL, pretrain=settings(seq_len=128, micro_batch_tokens=128))
    with pytest.raises(RequestError, match=r"seq_len 128 .*max_position_embeddings 64"):
        pretrain.run(context("long", config=too_long))
    remote = replace(context("remote"), out=Folder("memory://fournil-test/pretrain"))
    with pytest.raises(RequestError, match="mount it"):
        pretrain.run(remote)
