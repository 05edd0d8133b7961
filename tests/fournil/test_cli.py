"""The command itself: what it lists, what it loads to start."""

from __future__ import annotations

import re
import subprocess
import sys

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
