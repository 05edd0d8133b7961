"""Commands about runs, on records of runs that nobody bakes and on one that a process does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cluster.artifacts import commit_artifact, now
from cluster.errors import RequestError
from cluster.storage import Folder
from fournil.bake import log_folder
from fournil.cli import app
from fournil.runs import Run


def printed(storage: Folder, *arguments: str) -> str:
    found = CliRunner().invoke(app, [*arguments, "--storage", str(storage)])
    if found.exception is not None:
        raise found.exception
    return found.stdout


@pytest.fixture
def run(storage: Folder) -> Run:
    """A run that ended after the first of two stages."""
    made = Run("small", storage)
    made.begin({"fetch": "f" * 16, "extract": "e" * 16}, {})
    commit_artifact(storage, "fetch", "f" * 16, inputs={}, config={}, versions={}, started=now(), seconds=0.0, metrics={})
    made.write(status="stopped", stage="extract", error="the oven is cold", process=None)
    return made


def test_status_tells_a_run_or_all_of_them(run: Run) -> None:
    found = json.loads(printed(run.storage, "status", "small", "--json"))
    assert found == {"run": "small", "status": "stopped", "error": "the oven is cold", "stages": {"fetch": "ready", "extract": "running"}}
    assert "the oven is cold" in printed(run.storage, "status", "small")
    [row] = json.loads(printed(run.storage, "status", "--json"))
    assert (row["run"], row["status"]) == ("small", "stopped")
    assert printed(run.storage, "runs") == printed(run.storage, "status")
    run.write(status="running")
    assert json.loads(printed(run.storage, "status", "small", "--json"))["status"].startswith("interrupted")


def test_logs_print_the_bakes_own_and_name_the_others(run: Run) -> None:
    (log_folder(run) / "bake.log").write_text("[bold] is no markup\n")
    (log_folder(run) / "fetch-error.log").write_text("12345")
    lines = printed(run.storage, "logs", "small").splitlines()
    assert lines == ["[bold] is no markup", f"log: {log_folder(run) / 'fetch-error.log'} (5 bytes)"]


def test_a_report_is_a_path_once_it_is_there(run: Run) -> None:
    with pytest.raises(RequestError, match="has no report yet"):
        printed(run.storage, "report", "small")
    run.folder.write_text("report/index.html", "<html>")
    assert printed(run.storage, "report", "small").strip() == run.report_path


def test_stop_ends_the_process_that_bakes(run: Run) -> None:
    with pytest.raises(RequestError, match="is not being baked on this host"):
        printed(run.storage, "stop", "small")
    code = f"import time; from fournil.runs import *; Run('small', Folder({str(run.storage)!r})).begin({{}}, {{}}); print(); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as baker:
        assert baker.stdout is not None
        baker.stdout.readline()
        assert printed(run.storage, "stop", "small") == f"run small: asked process {baker.pid} to stop\n"
        assert baker.wait(30) == -signal.SIGTERM
