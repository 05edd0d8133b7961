"""The command itself: what it lists, what it loads to start, how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fournil.cli import app

COMMANDS = "bake submit status runs logs stop report why plan scale tokenizer glitch serve chat eval"


def test_help_lists_the_commands_in_their_order() -> None:
    printed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"}).stdout
    assert " ".join(re.findall(r"^│ (\w+)  ", printed, re.MULTILINE)) == COMMANDS


def test_a_start_loads_no_engine() -> None:
    heavy = ("ray", "torch", "numpy", "pyarrow", "pydantic")
    code = f"import sys, fournil.cli; print(*(name for name in {heavy} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_says_so_in_one_line(tmp_path: Path, number: signal.Signals, code: int) -> None:
    recipe = tmp_path / "recipe.yaml"
    os.mkfifo(recipe)
    with waiting_command("bake", recipe) as process:
        process.send_signal(number)
        printed = process.communicate(timeout=60)
    assert (process.returncode, *printed) == (code, "", "fournil: stopped; the same command goes on where it was\n")


@contextmanager
def waiting_command(name: str, pipe: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that reads its recipe from a pipe into which nobody writes, once it is reading."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fournil.cli", name, str(pipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a test in the background has ignored
    )
    deadline, end = time.monotonic() + 60, None
    while end is None and process.poll() is None and time.monotonic() < deadline:
        try:
            end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.02)
    assert end is not None, process.communicate(timeout=1)
    try:
        yield process
    finally:
        os.close(end)
        process.kill()
        process.wait()


def test_a_wrong_option_is_exit_code_2() -> None:
    command = [sys.executable, "-m", "fournil.cli", "bake", "--fast"]
    wrong = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "No such option: --fast" in wrong.stderr
