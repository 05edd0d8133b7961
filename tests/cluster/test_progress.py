"""What a person sees while work runs, in a pipe and in a terminal."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from cluster.progress import Reporter, StageProgress, format_seconds


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3600, "1 h 00 min"), (7640, "2 h 07 min")],
)
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words


def test_a_stage_that_says_nothing_is_working() -> None:
    assert StageProgress("clean").describe() == "working"


def test_counting_tells_how_far_it_is() -> None:
    progress = StageProgress("clean")
    progress.start(40, "parts", done=10)
    assert progress.describe() == "10/40 parts (25 %)"
    assert progress.rate() is None
    progress.advance(2)
    progress.note("reading manpages")
    told = progress.describe()
    assert told.startswith("12/40 parts (30 %), ")
    assert " parts/s, " in told
    assert " left, reading manpages" in told


def test_parts_finished_by_an_earlier_run_do_not_count_for_the_rate() -> None:
    progress = StageProgress("clean")
    progress.start(10, "parts", done=9)
    assert progress.rate() is None
    progress.advance()
    assert progress.rate() is not None
    assert "left" not in progress.describe()
    progress.start(2, "files")
    assert progress.describe() == "0/2 files (0 %)"


def test_an_unknown_total_and_an_empty_one() -> None:
    progress = StageProgress("fetch")
    progress.start(None, "bytes")
    progress.advance(1500)
    assert progress.describe().startswith("1,500 bytes, ")
    progress.start(0, "parts")
    assert progress.describe() == "0 parts"


def test_following_asks_the_source_and_keeps_its_last_reading() -> None:
    progress = StageProgress("pretrain")
    readings = iter([None, (5.0, 20.0, "steps", "loss 3.10"), (20.0, 20.0, "steps", "loss 2.50")])
    with progress.follow(lambda: next(readings)):
        progress.refresh()
        assert progress.describe() == "working"
        progress.refresh()
        assert progress.describe() == "5/20 steps (25 %), loss 3.10"
    assert progress.describe().startswith("20/20 steps (100 %), ")
    assert progress.describe().endswith("loss 2.50")
    progress.refresh()


class _Screen(io.StringIO):
    """Console output that tests can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.grew = threading.Condition()

    def write(self, text: str) -> int:
        with self.grew:
            self.grew.notify_all()
            return super().write(text)

    def wait_for(self, words: str) -> bool:
        with self.grew:
            return self.grew.wait_for(lambda: words in self.getvalue(), timeout=30)


def test_plain_lines_go_on_while_the_stage_is_blocked() -> None:
    screen = _Screen()
    reporter = Reporter(Console(file=screen, width=200), interval=0.01)
    with reporter.stage("dedup") as progress:
        progress.start(3, "parts")
        assert screen.wait_for("  dedup        0/3 parts (0 %)\n  dedup        0/3 parts (0 %)\n")
        progress.advance(2)
        assert screen.wait_for("2/3 parts (67 %)")


def test_a_terminal_shows_notes_as_they_are_written() -> None:
    screen = _Screen()
    reporter = Reporter(Console(file=screen, width=200, force_terminal=True))
    with reporter.stage("extract") as progress:
        progress.note("reading [/usr/share/doc] and [bold]this")
        assert screen.wait_for("reading [/usr/share/doc] and [bold]this")


def test_lines_are_kept_in_the_log_with_their_brackets(tmp_path: Path) -> None:
    screen = io.StringIO()
    reporter = Reporter(Console(file=screen, width=200))
    reporter.log = tmp_path / "bake.log"
    reporter.say("[1/3] fetch [/x]")
    reporter.say("done")
    assert screen.getvalue() == reporter.log.read_text(encoding="utf-8") == "[1/3] fetch [/x]\ndone\n"


def test_an_error_in_a_stage_passes_and_ends_the_display() -> None:
    reporter = Reporter(Console(file=io.StringIO()), interval=0.01)
    with pytest.raises(ValueError, match="burnt"), reporter.stage("bake"):
        raise ValueError("burnt")
    assert not [thread for thread in threading.enumerate() if thread.name == "progress-bake"]
