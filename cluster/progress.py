"""What a person sees while work runs: a live line in a terminal, plain lines every few seconds elsewhere.

Long work is never silent for more than `HEARTBEAT_SECONDS`, even while a stage's main thread is blocked in Ray.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

HEARTBEAT_SECONDS = 5.0

Reading = tuple[float, float | None, str, str]
"""done, total, unit, note."""


class StageProgress:
    """How far one stage is. Stages call `start`, `advance`, `note` or `follow`; a background thread shows it."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.done = 0.0
        self.total: float | None = None
        self.unit = ""
        self.message = ""
        self._begun = time.monotonic()
        self._base = 0.0
        self._source: Callable[[], Reading | None] | None = None

    def start(self, total: float | None, unit: str, done: float = 0) -> None:
        """Begin counting `unit`s up to `total` (None when unknown); `done` were finished by an earlier run."""
        self.total, self.unit, self.done, self._base = total, unit, done, done
        self._begun, self.message, self._source = time.monotonic(), "", None

    def advance(self, amount: float = 1) -> None:
        self.done += amount

    def note(self, message: str) -> None:
        """What is running now, in a few words."""
        self.message = message

    @contextlib.contextmanager
    def follow(self, source: Callable[[], Reading | None]) -> Iterator[None]:
        """While inside, ask `source` for the reading at every beat (for work whose driver only waits)."""
        self.start(None, "")
        self._source = source
        try:
            yield
        finally:
            self.refresh()
            self._source = None

    def refresh(self) -> None:
        if self._source is not None and (reading := self._source()) is not None:
            if self.total is None:
                self._base, self._begun = reading[0], time.monotonic()
            self.done, self.total, self.unit, self.message = reading

    def rate(self) -> float | None:
        """Units a second since `start`, None before anything was finished."""
        elapsed = time.monotonic() - self._begun
        return (self.done - self._base) / elapsed if elapsed > 0 and self.done > self._base else None

    def describe(self) -> str:
        """For example `12/40 parts (30 %), 5.2 parts/s, 5 s left, reading manpages`."""
        pieces = []
        if self.unit:
            counted = f"{self.done:,.0f}" + (f"/{self.total:,.0f}" if self.total else "") + f" {self.unit}"
            pieces.append(counted + (f" ({100 * self.done / self.total:.0f} %)" if self.total else ""))
        if (rate := self.rate()) is not None:
            pieces.append(f"{rate:,.1f} {self.unit}/s")
            if self.total and self.done < self.total:
                pieces.append(f"{format_seconds((self.total - self.done) / rate)} left")
        if self.message:
            pieces.append(self.message)
        return ", ".join(pieces) or "working"


def format_seconds(seconds: float) -> str:
    """`42 s`, `3 min 05 s` or `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Reporter:
    """Shows stages on a console: a spinner with a bar in a terminal, plain lines in logs and pipes."""

    def __init__(self, console: Console | None = None, interval: float = HEARTBEAT_SECONDS) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.interval = interval
        self.log: Path | None = None
        """Where lines are kept too, for `fournil logs`; None until a run is known."""

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    @contextlib.contextmanager
    def stage(self, stage: str) -> Iterator[StageProgress]:
        progress = StageProgress(stage)
        show = self._live if self.console.is_terminal else self._plain
        stop = threading.Event()
        thread = threading.Thread(target=show, args=(progress, stop), name=f"progress-{stage}", daemon=True)
        thread.start()
        try:
            yield progress
        finally:
            stop.set()
            thread.join()

    def _plain(self, progress: StageProgress, stop: threading.Event) -> None:
        while not stop.wait(self.interval):
            progress.refresh()
            self.say(f"  {progress.stage:<12} {progress.describe()}")

    def _live(self, progress: StageProgress, stop: threading.Event) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.fields[name]:<12}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
        )
        with RichProgress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task("starting", name=progress.stage, total=None)
            while not stop.wait(0.2):
                progress.refresh()
                bar.update(task, description=progress.describe(), completed=progress.done, total=progress.total)
