"""What the driver makes of the ways in which a group of workers ends. Real groups are in `test_pretrain.py`."""

from __future__ import annotations

import errno
import os
import pickle

import pytest
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from cluster.errors import FournilError, RequestError, WorkError
from training.worker import _cause, _fournil_error


def failed(**failures: Exception) -> WorkerGroupError:
    """The error of a group, as it reaches the driver: `w1=...` is what became of worker 1."""
    error = WorkerGroupError("see below", {int(name[1:]): failure for name, failure in failures.items()})
    return pickle.loads(pickle.dumps(error))


def raised(error: Exception) -> UserExceptionWithTraceback:
    return UserExceptionWithTraceback(error, f"Traceback (most recent call last):\n  ...\n{type(error).__name__}: {error}\n")


LOST = raised(RuntimeError("Connection closed by peer"))


@pytest.mark.parametrize("error", [WorkError("the loss is gone"), RequestError("no such preset")])
def test_an_error_meant_for_people_ends_the_run(error: FournilError) -> None:
    found = _fournil_error(failed(w0=LOST, w1=raised(error)))
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_a_full_disk_ends_the_run() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/metrics.jsonl")
    ended = str(_fournil_error(failed(w0=raised(full), w1=LOST)))
    assert ended.startswith("/data/metrics.jsonl cannot be written (No space left on device); make room")
    assert _fournil_error(failed(w0=raised(OSError(errno.EIO, "Input/output error")))) is None


def test_the_cause_of_a_restart_is_the_first_fault_and_not_what_followed_from_it() -> None:
    dead = WorkerHealthCheckFailedError("A worker health check failed.", RuntimeError("the actor died"))
    hung = raised(RuntimeError("[gloo/transport/tcp/buffer.cc:32] Timed out waiting 2000ms for recv operation to complete"))
    assert _cause(failed(w0=LOST, w3=dead)).startswith("worker 3 died")
    assert _cause(failed(w0=LOST, w2=hung)).startswith("a worker hung: worker 2 waited longer than collective_timeout_s")
    assert _cause(failed(w0=LOST)) == "worker 0: RuntimeError: Connection closed by peer"
    assert "no room for the group" in _cause(ControllerError(RuntimeError("no room for the group")))
