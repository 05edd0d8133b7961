"""A profiler window on a running job: `touch profile` in the run's logs, and the next steps are traced.

The file may hold the number of steps (5 when empty). The trace, `profile/step-XXXXXXXX.json.gz` beside `metrics.jsonl`, opens in
Perfetto or chrome://tracing. Rank 0 alone looks for the file, and takes it away; the other workers know nothing of it.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from training.metrics import MetricsLog

TRIGGER, TRACES = "profile", "profile"
STEPS, MAX_STEPS = 5, 100
LOOK_SECONDS = 1.0


class ProfilerWindow:
    """Looks for the trigger in `logs` at most once a second and traces into `out`; inert without `logs`."""

    def __init__(self, logs: Path | None, out: Path, log: MetricsLog) -> None:
        self._trigger = logs / TRIGGER if logs and log.is_main else None
        self._out, self._log = out, log
        self._profiler: profile | None = None
        self._left = 0
        self._looked = 0.0

    def between_steps(self, step: int) -> None:
        """Begin or end a window; to be called once `step` steps are done and the next has not begun."""
        if self._profiler is not None:
            self._left -= 1
            if self._left == 0:
                self.close(step)
        elif self._trigger is not None and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            if self._trigger.exists():
                self._open(step, self._trigger)

    def close(self, step: int) -> None:
        """End the window that is open, if one is, and write its trace."""
        if self._profiler is None:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._profiler.stop()
        path = self._out / TRACES / f"step-{step:08d}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._profiler.export_chrome_trace(str(path))
        self._profiler = None
        self._log.event(step, "profiled", f"trace of the last steps: {path}")

    def _open(self, step: int, trigger: Path) -> None:
        asked = trigger.read_text("utf-8").strip()
        with contextlib.suppress(FileNotFoundError):
            trigger.unlink()
        self._left = min(int(asked), MAX_STEPS) if asked.isdigit() and int(asked) else STEPS
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self._profiler = profile(activities=activities, record_shapes=True)
        self._profiler.start()
        self._log.event(step, "profiling", f"tracing {self._left} steps")
