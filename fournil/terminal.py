"""What the commands share: their common options, and printing values, tables or JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

console = Console(highlight=False, soft_wrap=True)

RecipeArgument = Annotated[Path, typer.Argument(help="YAML recipe, for example recipes/demo.yaml")]
RunArgument = Annotated[str, typer.Argument(help="name of a run (see `fournil runs`)")]
StorageOption = Annotated[str | None, typer.Option(help="folder or filesystem URL; FOURNIL_STORAGE or ./runs by default")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="change one recipe value: key.path=value (repeatable)")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
UntilOption = Annotated[str | None, typer.Option(help="last stage to make")]
ClusterOption = Annotated[str, typer.Option(help="`local`, `auto` (a running cluster) or ray://HEAD:10001")]
JobAddressOption = Annotated[str | None, typer.Option(help="Ray dashboard of a submitted job, http://HEAD:8265")]


def errors_console() -> Console:
    """A console on stderr, for what must not mix with a command's result."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """A line as it is, without markup."""
    console.print(line, markup=False)


def print_values(values: dict[str, Any], as_json: bool) -> None:
    """A line for each value, those inside a dict or a list indented under its name; what is None is left out."""
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False, indent=1, default=str))
        return
    for key, value in values.items():
        if isinstance(value, dict):
            say(f"{key}:")
            for inner, text in value.items():
                say(f"  {inner:<28} {text}")
        elif isinstance(value, list):
            say(f"{key}:")
            for text in value:
                say(f"  {text}")
        elif value is not None:
            say(f"{key:<30} {value}")


def print_rows(rows: list[dict[str, Any]], as_json: bool, empty: str) -> None:
    """A table with the first row's keys as its columns, or the line `empty` where there is no row."""
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1, default=str))
        return
    if not rows:
        say(empty)
        return
    table = Table(box=None, pad_edge=False)
    for key in rows[0]:
        table.add_column(key, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table)
