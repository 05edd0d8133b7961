"""Talks to an OpenAI-compatible endpoint: one answer, a streamed answer, a conversation in the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import httpx

from cluster.errors import RequestError, WorkError

Message = dict[str, str]

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 600.0
POLL_SECONDS = 0.5
QUIT = ("/quit", "/exit")


def ask(url: str, messages: list[Message], max_tokens: int = 128, temperature: float = 0.0, model: str | None = None) -> str:
    """The endpoint's answer to a conversation (greedy at temperature 0)."""
    with _client(url) as client:
        body = _body(client, messages, max_tokens, temperature, model)
        answer = _checked(url, lambda: client.post("/v1/chat/completions", json=body))
    return answer.json()["choices"][0]["message"]["content"] or ""


def ask_streaming(
    url: str, messages: list[Message], max_tokens: int = 128, temperature: float = 0.0, model: str | None = None
) -> Iterator[str]:
    """The same answer in pieces, as the model makes them. Closing the iterator stops the generation."""
    with _client(url) as client:
        body = _body(client, messages, max_tokens, temperature, model) | {"stream": True}
        try:
            with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise _error_of(url, answer)
                yield from _pieces(answer.iter_lines())
        except httpx.ConnectError:
            raise _nobody(url) from None
        except httpx.HTTPError as error:
            raise WorkError(f"{url} broke off its answer ({type(error).__name__}); is the endpoint still running?") from None


def models(url: str) -> list[str]:
    """The model ids that the endpoint serves."""
    with _client(url) as client:
        return [card["id"] for card in _checked(url, lambda: client.get("/v1/models")).json()["data"]]


def wait_until_healthy(url: str, timeout: float, say: Callable[[str], None] | None = None) -> None:
    """Return once `/health` answers 200; a `RequestError` after `timeout` seconds without an answer at all or with 503 only."""
    deadline = time.monotonic() + timeout
    state = "nobody answers"
    with _client(url) as client:
        while True:
            try:
                answer = client.get("/health")
            except httpx.TransportError:
                state = "nobody answers"
            else:
                if answer.status_code == 200:
                    return
                state = f"it answers {answer.status_code}"
            if time.monotonic() >= deadline:
                raise RequestError(f"{url} is not healthy after {timeout:.0f} s ({state}); check the address, or start `fournil serve`")
            if say:
                say(f"waiting for {url} ({state})")
            time.sleep(POLL_SECONDS)


def chat_loop(url: str, max_tokens: int = 128, temperature: float = 0.0, questions: TextIO | None = None) -> None:
    """A conversation with the endpoint: questions from the terminal, or one a line from standard input when it is no terminal.

    `/new` forgets the conversation, `/quit` (or the end of input) ends it. Ctrl-C stops an answer.
    """
    from rich.console import Console

    console = Console(highlight=False)
    source: TextIO = questions or sys.stdin
    interactive = source.isatty()
    model = models(url)[0]
    if interactive:
        console.print(f"{model} at {url}. /new starts over, /quit leaves.", markup=False)
    messages: list[Message] = []
    for question in _questions(source, interactive, console):
        if question in QUIT:
            return
        if question == "/new":
            messages.clear()
            continue
        if not interactive:
            console.print(f"> {question}", markup=False)
        messages.append({"role": "user", "content": question})
        messages.append(
            {"role": "assistant", "content": _print_answer(console, ask_streaming(url, messages, max_tokens, temperature, model))}
        )


def _questions(source: TextIO, interactive: bool, console: Any) -> Iterator[str]:
    while True:
        if interactive:
            try:
                line = console.input("[bold]> [/bold]")
            except (EOFError, KeyboardInterrupt):
                return
        else:
            line = source.readline()
            if not line:
                return
        if line.strip():
            yield line.strip()


def _print_answer(console: Any, pieces: Iterator[str]) -> str:
    """Print pieces as they come and return them joined; Ctrl-C ends the answer early."""
    answer: list[str] = []
    try:
        for piece in pieces:
            answer.append(piece)
            console.print(piece, end="", markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        pass
    console.print()
    return "".join(answer)


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    """The text deltas of a server-sent event stream; an error event is a `WorkError`."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise WorkError(f"the endpoint broke off its answer: {event['error'].get('message', event['error'])}")
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                yield text


def _body(client: httpx.Client, messages: list[Message], max_tokens: int, temperature: float, model: str | None) -> dict[str, Any]:
    if model is None:
        cards = _checked(str(client.base_url), lambda: client.get("/v1/models")).json()["data"]
        model = cards[0]["id"]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": temperature}


def _client(url: str) -> httpx.Client:
    """A client for `url` with or without a trailing `/v1`; anything that is no HTTP address is a `RequestError`."""
    base = url.rstrip("/").removesuffix("/v1")
    if not base.startswith(("http://", "https://")):
        raise RequestError(f"{url} is not the address of an endpoint; give one like http://127.0.0.1:8000")
    try:
        return httpx.Client(base_url=base, timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS))
    except httpx.InvalidURL as error:
        raise RequestError(f"{url} is not the address of an endpoint ({error}); give one like http://127.0.0.1:8000") from None


def _checked(url: str, send: Callable[[], httpx.Response]) -> httpx.Response:
    """What `send` gets from the endpoint, if it is a 200."""
    try:
        answer = send()
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol):
        raise _nobody(url) from None
    except httpx.HTTPError as error:
        raise WorkError(f"{url} did not answer ({type(error).__name__}); is the endpoint still running?") from None
    if answer.status_code != 200:
        raise _error_of(url, answer)
    return answer


def _nobody(url: str) -> RequestError:
    return RequestError(f"nobody answers at {url.rstrip('/')}; start an endpoint with `fournil serve RUN`, or give its address")


def _error_of(url: str, answer: httpx.Response) -> RequestError | WorkError:
    """The endpoint's own words; a wrong request (4xx but for 408 and 429) is a `RequestError`."""
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"not the answer of an OpenAI-compatible endpoint: {answer.text[:100]!r}"
    kind = RequestError if 400 <= answer.status_code < 500 and answer.status_code not in (408, 429) else WorkError
    return kind(f"{url.rstrip('/')} answered {answer.status_code}: {message}")
