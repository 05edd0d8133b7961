"""`metrics.jsonl`: what a training run measured, a line at a time, and what its driver shows of it.

Three kinds of line, all with `step` (steps done) and `time` (Unix seconds): `train` (tokens, total_tokens, steps, loss, lr,
grad_norm, tokens_per_s, flops_share, mfu, goodput, data_wait, memory_mb), `eval` (heldout: stream -> value) and `event` (start,
resumed, skipped, ...: message). The first line ever has `began`, when the first attempt did. Everything else that shows the
run (TensorBoard, Weights & Biases, MLflow) is fed the same lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from cluster.errors import FournilError

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
TAIL_BYTES = 1 << 14
AXES = {"kind", "step", "time", "began", "whole", "steps", "total_tokens"}
"""Keys of a line that are not figures of the run."""


class Sink(Protocol):
    """Something beside `metrics.jsonl` that shows its lines."""

    def write(self, line: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class MetricsLog:
    """Appends lines on the main worker, nothing elsewhere. `rewind` opens it.

    `open_tracker` opens one more place to show the lines in. A tracker that fails is dropped with an event: it must not end the run.
    """

    def __init__(self, path: Path, is_main: bool, open_tracker: Callable[[], Sink | None] | None = None) -> None:
        self.path, self.is_main = path, is_main
        self.began = time.time()
        self._open_tracker = open_tracker
        self._out: TextIO | None = None
        self._empty = True
        self._sinks: list[Sink] = []

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._out is not None:
            self._out.close()
        for sink in self._sinks:
            with contextlib.suppress(Exception):
                sink.close()

    def rewind(self, step: int) -> None:
        """Forget what an interrupted run wrote after `step`, and open the log.

        The new file replaces the old one, so what is left of a run whose driver was killed writes into nothing. TensorBoard's
        event file is written anew from the lines that are kept.
        """
        if not self.is_main:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_metrics(self.path) if line["step"] <= step and not (step == 0 and line["kind"] != "event")]
        fresh = self.path.with_name(f".tmp-{os.getpid()}-{METRICS}")
        fresh.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
        fresh.replace(self.path)
        if self._out is not None:
            self._out.close()
        self._out = self.path.open("a", encoding="utf-8", buffering=1)
        self._empty = not kept
        self.began = next((line["began"] for line in kept if "began" in line), self.began)
        self._open_sinks(step, kept)

    def _open_sinks(self, step: int, kept: Sequence[dict[str, Any]]) -> None:
        """A new event file; the tracker stays open when a run rewinds itself."""
        first = not self._sinks
        for sink in [sink for sink in self._sinks if isinstance(sink, EventFile)]:
            self._sinks.remove(sink)
            sink.close()
        self._sinks.append(EventFile(self.path.with_name(TENSORBOARD), kept))
        if not first:
            return
        try:
            tracker = self._open_tracker() if self._open_tracker else None
        except FournilError:
            raise
        except Exception as error:
            self._drop(step, "the tracker", error)
        else:
            self._sinks += [tracker] if tracker else []

    def write(self, kind: str, step: int, **values: Any) -> None:
        if self._out is None:
            return
        line = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        if self._empty:
            line["began"], self._empty = round(self.began, 3), False
        self._out.write(json.dumps(line) + "\n")
        for sink in list(self._sinks):
            try:
                sink.write(line)
            except Exception as error:
                self._sinks.remove(sink)
                self._drop(step, type(sink).__name__, error)

    def _drop(self, step: int, name: str, error: Exception) -> None:
        self.event(step, "tracker", f"{name} failed and is left out from here on: {error}".splitlines()[0])

    def goodput(self, tokens: float) -> float:
        """Tokens of the run a second of all that has passed since it first began: evaluation, checkpoints, restarts, waiting."""
        return tokens / max(time.time() - self.began, 1e-3)

    def event(self, step: int, name: str, message: str, **values: Any) -> None:
        self.write("event", step, event=name, message=message, **values)


class EventFile:
    """TensorBoard's view of the log: each figure a scalar, each event a text. Written step by step in this thread, without
    tensorboardX's `SummaryWriter`, which keeps a queue and a thread for it."""

    def __init__(self, folder: Path, lines: Sequence[dict[str, Any]]) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._events = EventsWriter(str(folder / "events"))
        for line in lines:
            self.write(line, flush=False)
        self._events.flush()

    def write(self, line: dict[str, Any], flush: bool = True) -> None:
        from tensorboardX.proto.event_pb2 import Event  # type: ignore[attr-defined]
        from tensorboardX.summary import scalar, text

        found = [scalar(name, value) for name, value in figures(line).items()]
        if line["kind"] == "event":
            found.append(text(f"event/{line['event']}", line["message"]))
        for summary in found:
            self._events.write_event(Event(wall_time=line.get("time", 0.0), step=line["step"], summary=summary))
        if flush:
            self._events.flush()

    def close(self) -> None:
        self._events.close()


def figures(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line by the names that trackers show them under: `train/loss`, `heldout/fr`, `start/workers`."""
    group = {"train": "train", "eval": "heldout"}.get(line["kind"]) or str(line.get("event"))
    values = line["heldout"] if line["kind"] == "eval" else line
    return {
        f"{group}/{name}": value
        for name, value in values.items()
        if name not in AXES and isinstance(value, int | float) and not isinstance(value, bool)
    }


def read_metrics(path: Path, tail_bytes: int | None = None) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file (only those in its last `tail_bytes`), without one that a kill cut short."""
    if not path.exists():
        return
    with path.open("rb") as source:
        if tail_bytes is not None:
            source.seek(max(0, path.stat().st_size - tail_bytes))
        for line in source:
            if line.startswith(b"{") and line.endswith(b"}\n"):
                yield json.loads(line)


def progress_reading(path: Path, starting: str = "starting workers") -> tuple[float, float | None, str, str]:
    """Tokens done and to do with the newest figures in words, in the shape that `StageProgress.follow` asks for."""
    train: dict[str, Any] = {}
    heldout: dict[str, float] = {}
    message = starting
    for line in read_metrics(path, TAIL_BYTES):
        if line["kind"] == "train":
            train = line
            message = f"step {line['step']:,}/{line['steps']:,}, loss {line['loss']:.3f}"
        elif line["kind"] == "eval":
            heldout = line["heldout"]
        else:
            message = line["message"]
    if heldout:
        message += ", held-out " + " ".join(f"{stream} {value:.3f}" for stream, value in heldout.items())
    if not train:
        return 0.0, None, "", message
    return float(train["tokens"]), float(train["total_tokens"]), "tokens", message
