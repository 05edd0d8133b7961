"""What kills, hangs and moves do to a run: nothing that its loss curve would show."""

from __future__ import annotations

import random
import resource
import signal
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import WorkError
from tests.training.faults import Attempt, Fault, run_attempt
from tests.training.tiny import job, settings
from training.checkpoint import CHECKPOINTS, checkpoint_steps
from training.job import Job
from training.loop import train
from training.metrics import METRICS, read_metrics
from training.order import Order

STEPS = 72
CONFIG = settings(tokens=128 * STEPS, checkpoint_every=3, eval_every=24)
KILLS = 20
TOLERANCE = 1e-5
"""Of a loss in nats between numbers of workers, which add up the same sums in another order."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def plain(root: Path) -> Job:
    """The undisturbed run on two workers."""
    made = job(root, "plain", CONFIG)
    attempt = run_attempt(made, 2)
    assert attempt.finished, attempt.error
    assert attempt.rows == rows_of(made, 0)
    return made


def rows_of(made: Job, step: int) -> list[list[int]]:
    """The rows of every step from `step` on, by step."""
    order: Order = made.data().order
    return [sorted(row for row in order.rows(step).tolist() if row >= 0) for step in range(step, STEPS)]


def curve(made: Job) -> dict[int, tuple[Any, ...]]:
    """By step what the log has of it that does not depend on the clock."""
    lines = [line for line in read_metrics(made.out.local_path(METRICS)) if line["kind"] == "train"]
    found = {line["step"]: (line["loss"], line["grad_norm"], line["lr"], line["tokens"]) for line in lines}
    assert len(found) == len(lines) == STEPS
    return found


def events(made: Job, name: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(made.out.local_path(METRICS)) if line.get("event") == name]


def reached(made: Job) -> int:
    return max(checkpoint_steps(made.out.local_path(CHECKPOINTS)), default=0)


def weights(made: Job) -> bytes:
    return made.out.read_bytes("export/model.safetensors")


def check_rows(made: Job, attempt: Attempt, step: int, reads: int = 1) -> None:
    """The attempt began at `step`, and read the rows of that step and those after it; a step is `reads` reads of each worker."""
    got = [sorted(chain.from_iterable(attempt.rows[at : at + reads])) for at in range(0, len(attempt.rows) - reads + 1, reads)]
    assert got == rows_of(made, step)[: len(got)]


def test_twenty_kills_leave_no_trace_in_the_loss_curve(root: Path, plain: Job) -> None:
    """Each kill hits a random worker at a random step, while a checkpoint is being written as often as not."""
    made, chance, starts = job(root, "killed", CONFIG), random.Random(4), []
    for kill in range(KILLS):
        starts.append(reached(made))
        attempt = run_attempt(made, 2, Fault(rank=chance.randrange(2), read=chance.randrange(2, 8)))
        assert not attempt.finished, f"kill {kill} came after the end"
        check_rows(made, attempt, starts[-1])
    last = run_attempt(made, 2)
    assert last.finished, last.error
    assert len(set(starts)) > 2, "the kills were not spread over the run"
    assert curve(made) == curve(plain)
    assert weights(made) == weights(plain)
    assert made.out.read_json("summary.json")["heldout"] == plain.out.read_json("summary.json")["heldout"]


def test_a_run_moves_to_one_worker_and_back(root: Path, plain: Job) -> None:
    made, moves = job(root, "moved", CONFIG), ((2, Fault(1, 20)), (1, Fault(0, 41)), (2, None))
    for workers, fault in moves:
        step = reached(made)
        attempt = run_attempt(made, workers, fault)
        assert attempt.finished == (fault is None), attempt.error
        check_rows(made, attempt, step, reads=2 // workers)
    assert [(line["saved_workers"], line["workers"]) for line in events(made, "resumed")] == [(2, 1), (1, 2)]
    for (loss, _, rate, tokens), (as_loss, _, as_rate, as_tokens) in zip(curve(made).values(), curve(plain).values(), strict=True):
        assert (rate, tokens) == (as_rate, as_tokens)
        assert loss == pytest.approx(as_loss, abs=TOLERANCE)


def test_a_worker_that_hangs_is_noticed_and_the_run_goes_on(root: Path, plain: Job) -> None:
    """After the first step the others wait two seconds for it and not for as long as the start may take."""
    made, quick = job(root, "hung", CONFIG), job(root, "hung", CONFIG.model_copy(update={"collective_timeout_s": 2.0}))
    hung = run_attempt(quick, 2, Fault(1, 9, signal.SIGSTOP))
    assert not hung.finished
    assert hung.error is not None
    assert "timed out" in hung.error.lower()
    last = run_attempt(made, 2)
    assert last.finished, last.error
    assert curve(made) == curve(plain)


def test_a_full_disk_ends_the_run_and_the_same_run_goes_on_once_there_is_room(root: Path) -> None:
    made = job(root, "full", settings(tokens=128 * 8, checkpoint_every=2))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(WorkError, match=r"step-00000002 cannot be written .*make room there"):
            train(made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert reached(made) == 0
    assert train(made)["steps"] == 8
