from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event  # type: ignore[attr-defined]

from cluster.errors import RequestError
from tests.training.tiny import SlowInput, job, settings
from training.flops import flops_per_token
from training.loop import train
from training.metrics import TENSORBOARD, MetricsLog, figures, progress_reading, read_metrics


def write(path: Path, steps: range, rewind_to: int = 0) -> None:
    with MetricsLog(path, is_main=True) as log:
        log.rewind(rewind_to)
        log.event(rewind_to, "start", "2 steps")
        for step in steps:
            log.write("train", step, steps=9, tokens=10 * step, total_tokens=90, loss=1.0 / step)


def test_rewinding_forgets_later_lines_and_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 6))
    with path.open("a") as out:
        out.write('{"kind": "train", "step": 6, "lo')
    assert [line["step"] for line in read_metrics(path)] == [0, 1, 2, 3, 4, 5]
    write(path, range(4, 8), rewind_to=3)
    assert [line["step"] for line in read_metrics(path) if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6, 7]
    assert path.read_bytes().endswith(b"}\n")
    write(path, range(1, 2))
    assert [line["step"] for line in read_metrics(path) if line["kind"] == "train"] == [1]


def test_a_log_left_open_by_a_killed_run_writes_into_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, is_main=True) as orphan:
        orphan.rewind(0)
        write(path, range(1, 3))
        orphan.write("train", 99)
        assert [line["step"] for line in read_metrics(path)] == [0, 1, 2]


def test_other_workers_write_nothing(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl", is_main=False) as log:
        log.rewind(0)
        log.write("train", 1)
    assert not list(tmp_path.iterdir())


def test_progress_says_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert progress_reading(path, "waiting") == (0.0, None, "", "waiting")
    write(path, range(1, 1))
    assert progress_reading(path) == (0.0, None, "", "2 steps")
    write(path, range(1, 3))
    assert progress_reading(path) == (20.0, 90.0, "tokens", "step 2/9, loss 0.500")
    with MetricsLog(path, is_main=True) as log:
        log.rewind(2)
        log.write("eval", 2, heldout={"fr": 1.5}, whole=False)
        log.event(2, "export", "exporting")
    assert progress_reading(path) == (20.0, 90.0, "tokens", "exporting, held-out fr 1.500")


def events(path: Path) -> Iterator[Any]:
    """The events of the one event file below, each record's checksums verified (TFRecord: length, its crc, data, its crc)."""
    (file,) = (path.parent / TENSORBOARD).iterdir()
    data = file.read_bytes()

    def masked(part: bytes) -> int:
        value = crc32c(part)
        return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF

    while data:
        (length,), checksum = struct.unpack("<Q", data[:8]), struct.unpack("<I", data[8:12])[0]
        body, (end,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert (checksum, end) == (masked(data[:8]), masked(body))
        yield Event.FromString(body)
        data = data[16 + length :]


def shown(path: Path) -> list[tuple[int, str, float]]:
    return [
        (event.step, value.tag, value.simple_value) for event in events(path) for value in event.summary.value if not value.tensor.dtype
    ]


def test_the_event_file_says_what_the_log_says_also_after_a_rewind(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 6))
    write(path, range(3, 5), rewind_to=2)
    with MetricsLog(path, is_main=True) as log:
        log.rewind(4)
        log.write("eval", 4, heldout={"fr": 1.5, "en": 2.0}, whole=False)
        log.rewind(3)
        log.event(3, "rewound", "back", shifts=2)
    lines = list(read_metrics(path))
    wanted = [(line["step"], name, pytest.approx(value)) for line in lines for name, value in figures(line).items()]
    assert shown(path) == wanted
    assert {"train/loss", "train/tokens", "rewound/shifts"} == {name for _, name, _ in shown(path)}
    texts = [value.tensor.string_val[0].decode() for event in events(path) for value in event.summary.value if value.tensor.dtype]
    assert texts == [line["message"] for line in lines if line["kind"] == "event"] == ["2 steps", "2 steps", "back"]
    times = [event.wall_time for event in events(path) if event.summary.value]
    assert times == sorted(times)
    assert time.time() - 60 < times[0] < time.time()


def test_goodput_counts_from_the_first_beginning_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, is_main=True) as log:
        first = log.began
        log.rewind(0)
        log.event(0, "start", "go")
    time.sleep(0.3)
    with MetricsLog(path, is_main=True) as log:
        log.rewind(0)
        assert log.began == pytest.approx(first, abs=1e-3)
        log.event(0, "start", "go again")
        elapsed = time.time() - first
        assert log.goodput(1_000) == pytest.approx(1_000 / elapsed, rel=0.02)
        assert elapsed >= 0.3
    assert [("began" in line) for line in read_metrics(path)] == [True, False]


class Broken:
    """A tracker whose server goes away after some lines."""

    def __init__(self, lines: int) -> None:
        self.left, self.closed = lines, False

    def write(self, line: dict[str, Any]) -> None:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError(f"no server for {line['kind']}\nsecond line")

    def close(self) -> None:
        self.closed = True


def test_a_tracker_that_fails_is_dropped_and_the_log_goes_on(tmp_path: Path) -> None:
    path, tracker = tmp_path / "metrics.jsonl", Broken(2)
    with MetricsLog(path, True, lambda: tracker) as log:
        log.rewind(0)
        for step in range(1, 5):
            log.write("train", step, loss=1.0)
    kinds = [line.get("event", line["kind"]) for line in read_metrics(path)]
    assert kinds == ["train", "train", "train", "tracker", "train"]
    assert "no server for train" in next(line for line in read_metrics(path) if line["kind"] == "event")["message"]

    def unreachable() -> None:
        raise ConnectionError("no route")

    with MetricsLog(path, True, unreachable) as log:
        log.rewind(4)
    assert list(read_metrics(path))[-1]["message"] == "the tracker failed and is left out from here on: no route"

    def missing() -> None:
        raise RequestError("not installed")

    with pytest.raises(RequestError), MetricsLog(path, True, missing) as log:
        log.rewind(4)


def test_figures_are_numbers_by_group() -> None:
    line = {
        "kind": "train",
        "step": 3,
        "time": 1.0,
        "tokens": 30,
        "loss": 2.5,
        "mfu": None,
        "compile": True,
        "steps": 9,
        "total_tokens": 90,
    }
    assert figures(line) == {"train/tokens": 30, "train/loss": 2.5}
    assert figures({"kind": "eval", "step": 3, "heldout": {"fr": 1.5}, "whole": True}) == {"heldout/fr": 1.5}
    assert figures({"kind": "event", "step": 0, "event": "start", "message": "go", "workers": 2}) == {"start/workers": 2}


def test_a_run_that_failed_and_went_on_says_what_it_took_altogether(tmp_path: Path) -> None:
    config = settings(tokens=128 * 12, checkpoint_every=4)
    made = job(tmp_path, "run", config)
    before = time.time()
    with pytest.raises(OSError, match="disk is gone"):
        train(job(tmp_path, "run", config, data=SlowInput(made.data, fail_at=15)))
    time.sleep(0.5)
    summary = train(job(tmp_path, "run", config, attempt="b"))
    lines = list(read_metrics(tmp_path / "run/metrics.jsonl"))
    assert [line["event"] for line in lines if line["kind"] == "event"][:2] == ["start", "resumed"]
    assert [place for place, line in enumerate(lines) if "began" in line] == [0]
    assert before <= lines[0]["began"] <= lines[0]["time"]
    last = [line for line in lines if line["kind"] == "train"][-1]
    assert last["goodput"] == pytest.approx(last["tokens"] / (last["time"] - lines[0]["began"]), rel=0.05)
    assert summary["goodput"] <= last["goodput"] < last["tokens_per_s"] == last["tokens_per_s_per_worker"]
    assert lines[0]["flops_per_token"] == flops_per_token(made.model, made.vocab_size, config.seq_len)
    assert "PaLM appendix B" in lines[0]["flops_formula"]
    assert last["flops_share"] == pytest.approx(
        last["tokens_per_s"] * lines[0]["flops_per_token"] / summary["matmul_flops"], rel=0.02, abs=1e-4
    )
    assert (last["mfu"], summary["peak_flops"]) == (None, None)
    assert {name for _, name, _ in shown(tmp_path / "run/metrics.jsonl")} >= {
        "train/goodput",
        "train/loss",
        "train/lr",
        "heldout/fr",
        "train/data_wait",
    }
