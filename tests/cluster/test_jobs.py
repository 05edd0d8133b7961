"""What of jobs needs no cluster: ids, log lines, addresses, and what is said when something is wrong.

Submitting, following and stopping real jobs: `test_three_hosts.py`.
"""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import jobs
from cluster.errors import FournilError, RequestError, WorkError
from cluster.jobs import Job, LogLines, check_job, next_submission, submission_prefix


def test_a_bake_is_the_same_while_recipe_storage_and_arguments_are() -> None:
    prefix = submission_prefix("name: demo", "demo", "/shared", ["--until", "clean"])
    assert prefix.startswith("fournil-demo-")
    assert prefix == submission_prefix("name: demo", "demo", "/shared", ["--until", "clean"])
    others = [
        submission_prefix("name: demo2", "demo", "/shared", ["--until", "clean"]),
        submission_prefix("name: demo", "demo", "/other", ["--until", "clean"]),
        submission_prefix("name: demo", "demo", "/shared", ["--until", "mix"]),
        submission_prefix("name: demo", "demo", "/shared", []),
    ]
    assert len({prefix, *others}) == 5


def test_a_name_with_anything_in_it_makes_an_id_that_urls_take() -> None:
    assert submission_prefix("x", "à la carte/../?#" + "z" * 100, "s", []).isascii()
    assert "/" not in submission_prefix("x", "a/b", "s", [])


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, ("fournil-d-1-1", False)),
        ({"fournil-d-1-1": "RUNNING"}, ("fournil-d-1-1", True)),
        ({"fournil-d-1-1": "PENDING"}, ("fournil-d-1-1", True)),
        ({"fournil-d-1-1": "SUCCEEDED"}, ("fournil-d-1-2", False)),
        ({"fournil-d-1-9": "FAILED", "fournil-d-1-10": "STOPPED"}, ("fournil-d-1-11", False)),
        ({"fournil-d-1-9": "FAILED", "fournil-d-1-10": "RUNNING"}, ("fournil-d-1-10", True)),
        ({"fournil-d-2-7": "RUNNING", "raysubmit_x": "RUNNING", "fournil-d-1-x": "RUNNING"}, ("fournil-d-1-1", False)),
    ],
)
def test_a_running_bake_is_joined_and_an_ended_one_tried_again(known: dict[str, str], expected: tuple[str, bool]) -> None:
    assert next_submission("fournil-d-1-", known) == expected


@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=200),
    breaks=st.lists(st.integers(0, 200), max_size=4),
    size=st.integers(1, 17),
)
def test_log_lines_pass_once_whatever_breaks(text: str, breaks: list[int], size: int) -> None:
    """A log of `text`, read in chunks of `size` characters, begun again after each of `breaks` characters."""
    said: list[str] = []
    lines = LogLines(said.append)
    for end in [*breaks, len(text)]:
        lines.rewind()
        part = text[:end]
        for start in range(0, len(part), size):
            lines.add(part[start : start + size])
    lines.close()
    assert said == (text.removesuffix("\n").split("\n") if text else [])


def _job(status: str, exit_code: int | None = None, message: str = "") -> Job:
    return Job("fournil-demo-0-1", "demo", "/shared", status, message, exit_code, None, None)


@pytest.mark.parametrize(
    ("job", "error", "words"),
    [
        (_job("FAILED", 2), RequestError, "the bake ended with exit code 2; see `fournil logs fournil-demo-0-1 --address http://h:8265`"),
        (_job("FAILED", 1), WorkError, "the bake ended with exit code 1"),
        (_job("FAILED", 127), WorkError, "the head finds no `python`"),
        (_job("FAILED", 1, "exit code 1 ...\n/usr/bin/python: No module named fournil\n"), WorkError, "Fournil is not installed"),
        (
            _job("FAILED", None, "Unexpected error occurred: the head died\nmore"),
            WorkError,
            "Unexpected error occurred: the head died; see",
        ),
        (_job("STOPPED"), WorkError, "was stopped; submit the same recipe again to go on"),
    ],
)
def test_a_job_that_ended_badly_says_what_to_do(job: Job, error: type[FournilError], words: str) -> None:
    with pytest.raises(error) as caught:
        check_job(job, "http://h:8265")
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", ["SUCCEEDED", "RUNNING", "PENDING"])
def test_a_job_that_ended_well_or_goes_on_is_fine(status: str) -> None:
    check_job(_job(status), "http://h:8265")


@pytest.mark.parametrize("address", ["ray://head:10001", "s3://bucket", "http://", "http://head:port", "http://head:0", ""])
def test_only_an_http_address_takes_jobs(address: str) -> None:
    with pytest.raises(RequestError, match="is not a job address; give the head's dashboard"):
        jobs.list_jobs(address)


def test_a_recipe_too_large_to_be_one_never_leaves() -> None:
    with pytest.raises(RequestError, match="recipe demo has 1,100,000 bytes; up to 1,048,576 may travel"):
        jobs.submit("http://127.0.0.1:1", "#" * 1_100_000, "demo", "/shared")


def test_an_address_nobody_listens_at_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")  # an address given in so many words wins over this
        with pytest.raises(RequestError, match=f"no Ray cluster answers at {url}; is its head up"):
            jobs.submit(url, "name: demo", "demo", "/shared")


def test_an_address_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RequestError, match=f"no Ray cluster answers at {url}"):
            jobs.list_jobs(url)


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    """A web server that is no Ray dashboard: `answer` is a status and a body."""

    answer = (200, b"")

    def do_GET(self) -> None:
        self.send_response(self.answer[0])
        self.end_headers()
        self.wfile.write(self.answer[1])

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("answer", [(404, b"not here"), (500, b"oops"), (200, b"<html>"), (200, b"[]"), (200, b'{"ray_version": "x"}')])
def test_something_else_that_answers_is_not_taken_for_ray(
    answer: tuple[int, bytes], elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Elsewhere, "answer", answer)
    with pytest.raises(RequestError, match=f"{elsewhere} answers, but not like a Ray dashboard") as caught:
        jobs.list_jobs(elsewhere)
    assert "\n" not in str(caught.value)
