"""The `fournil` command: its commands in the order of `--help`, and how a process ends.

The commands are in `cli_make.py` and `cli_runs.py`. Each is thin: read the request, call the package that does the work, print.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

import typer

from cluster.errors import FournilError
from fournil.cli_make import bake, chat, evaluate, glitch, plan, scale, serve, submit, tokenizer
from fournil.cli_runs import logs, report, runs, status, stop, why
from fournil.terminal import errors_console

app = typer.Typer(
    name="fournil",
    help="From raw French and English documents to a chat model, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (bake, submit, status, runs, logs, stop, report, why, plan, scale, tokenizer, glitch, serve, chat):
    app.command()(command)
app.command(name="eval")(evaluate)


INTERRUPTED = 130
"""The exit code that typer makes of a KeyboardInterrupt."""


def main() -> NoReturn:
    """Entry point: errors are one line on stderr; exit 0 done, 1 the work failed, 2 the request was wrong, 130 or 143 stopped by
    SIGINT (Ctrl-C) or SIGTERM (`fournil stop`): 128 and the signal's number."""
    stopped_by = int(signal.SIGINT)

    def interrupt(number: int, _: object) -> None:
        nonlocal stopped_by
        stopped_by = number
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        app()
    except FournilError as error:
        _fail(str(error), error.exit_code)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            _fail("stopped; the same command goes on where it was", 128 + stopped_by)
        raise
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    errors_console().print(f"fournil: {message}", markup=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
