"""What is printed: aligned lines, tables, JSON."""

from __future__ import annotations

import json

import pytest

from fournil.terminal import print_rows, print_values, say


def test_values_are_lines_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"run": "t", "error": None, "stages": {"fetch": "ready"}, "warnings": ["[red] one"]}
    print_values(values, as_json=False)
    assert capsys.readouterr().out == f"{'run':<30} t\nstages:\n  {'fetch':<28} ready\nwarnings:\n  [red] one\n"
    print_values(values, as_json=True)
    assert json.loads(capsys.readouterr().out) == values


def test_rows_are_a_table_or_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"name": "a", "value": 0.123456}, {"name": "b", "value": None}], as_json=False, empty="none")
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["name", "value"], ["a", "0.1235"], ["b"]]
    print_rows([], as_json=False, empty="none")
    say("[bold] stays")
    assert capsys.readouterr().out == "none\n[bold] stays\n"
    print_rows([], as_json=True, empty="none")
    assert json.loads(capsys.readouterr().out) == []
