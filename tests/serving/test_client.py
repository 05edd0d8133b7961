from __future__ import annotations

import io

import pytest

from cluster.errors import RequestError, WorkError
from serving.app import free_port
from serving.client import ask, ask_streaming, chat_loop, models, wait_until_healthy
from tests.served import Served

MESSAGES = [{"role": "user", "content": "Quelle heure est-il ?"}]


def test_ask_and_stream_agree(served: Served) -> None:
    assert models(served.url) == ["fournil"]
    assert "".join(ask_streaming(served.url, MESSAGES, max_tokens=10)) == ask(f"{served.url}/v1/", MESSAGES, max_tokens=10)


def test_closing_a_stream_early_leaves_the_endpoint_working(served: Served) -> None:
    pieces = ask_streaming(served.url, MESSAGES, max_tokens=200, temperature=1.0)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert ask(served.url, MESSAGES, max_tokens=3) is not None


def test_waiting_for_a_healthy_endpoint(served: Served) -> None:
    said: list[str] = []
    wait_until_healthy(served.url, 10, said.append)
    assert said == []


def test_conversation_reads_one_question_a_line(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    chat_loop(served.url, max_tokens=4, questions=io.StringIO("Bonjour\n\nHello\n/new\nBonjour\n/quit\nnever asked\n"))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("> ")] == ["> Bonjour", "> Hello", "> Bonjour"]
    assert len(lines) >= 6


def test_address_that_nobody_answers_at() -> None:
    url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    for talk in (
        lambda: ask(url, MESSAGES),
        lambda: list(ask_streaming(url, MESSAGES, model="m")),
        lambda: chat_loop(url, questions=io.StringIO("")),
    ):
        with pytest.raises(RequestError, match=f"nobody answers at {url}"):
            talk()
    with pytest.raises(RequestError, match="not healthy"):
        wait_until_healthy(url, 0)
    with pytest.raises(RequestError, match="not the address"):
        ask("localhost:8000", MESSAGES)


def test_refusals_carry_the_words_of_the_endpoint(served: Served) -> None:
    with pytest.raises(RequestError, match=r"404.*absent"):
        ask(served.url, MESSAGES, model="absent")
    with pytest.raises(RequestError, match="400"):
        list(ask_streaming(served.url, MESSAGES, temperature=-1))
    with pytest.raises((RequestError, WorkError), match="404"):
        ask(f"{served.url}/chat.js", MESSAGES)
