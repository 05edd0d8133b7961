"""`metrics.jsonl`: what a training run measured, a line at a time, and what its driver shows of it.

Three kinds of line, all with `step` (steps done): `train` (tokens, total_tokens, steps, loss, lr, grad_norm, tokens_per_s,
flops_share, data_wait, memory_mb), `eval` (heldout: stream -> value) and `event` (start, resumed, skipped, ...: message).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

METRICS = "metrics.jsonl"
TAIL_BYTES = 1 << 14


class MetricsLog:
    """Appends lines on the main worker, nothing elsewhere. `rewind` opens it."""

    def __init__(self, path: Path, is_main: bool) -> None:
        self.path, self.is_main = path, is_main
        self._out: TextIO | None = None

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._out is not None:
            self._out.close()

    def rewind(self, step: int) -> None:
        """Forget what an interrupted run wrote after `step`, and open the log.

        The new file replaces the old one, so what is left of a run whose driver was killed writes into nothing.
        """
        if not self.is_main:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_metrics(self.path) if line["step"] <= step and not (step == 0 and line["kind"] != "event")]
        fresh = self.path.with_name(f".tmp-{os.getpid()}-{METRICS}")
        fresh.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
        fresh.replace(self.path)
        self._out = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, kind: str, step: int, **values: Any) -> None:
        if self._out is not None:
            self._out.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")

    def event(self, step: int, name: str, message: str, **values: Any) -> None:
        self.write("event", step, event=name, message=message, **values)


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
