"""A profiler window, asked for by a file, on a run under way."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from tests.training.tiny import job, settings
from training.loop import train
from training.metrics import METRICS, read_metrics


def test_a_file_with_a_number_traces_so_many_steps(tmp_path: Path) -> None:
    logs, steps = tmp_path / "logs", 3
    logs.mkdir()
    (logs / "profile").write_text(str(steps))
    made = job(tmp_path, "run", settings(tokens=128 * 10), logs=logs)
    train(made)
    assert not (logs / "profile").exists()
    events = [line for line in read_metrics(tmp_path / "run" / METRICS) if line.get("event") in ("profiling", "profiled")]
    assert [line["step"] for line in events] == [1, 1 + steps]
    (trace,) = (tmp_path / "run/profile").iterdir()
    assert trace.name == f"step-{1 + steps:08d}.json.gz"
    found = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    backward = [event for event in found if event.get("name") == "aten::_fused_adamw_"]
    assert len(backward) >= steps


def test_a_window_longer_than_the_run_ends_with_it(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "profile").touch()
    train(job(tmp_path, "run", settings(tokens=128 * 4), logs=logs))
    (trace,) = (tmp_path / "run/profile").iterdir()
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
