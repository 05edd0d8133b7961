from __future__ import annotations

from pathlib import Path

from training.metrics import MetricsLog, progress_reading, read_metrics


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
