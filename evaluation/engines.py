"""Where tokens go in and log-probabilities or answers come out: vLLM in Ray actors, or an endpoint over HTTP.

Tasks see a `Model`: an engine, its tokenizer and how many tokens it reads at once.
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cluster.errors import RequestError, WorkError
from cluster.stage import Resources
from cluster.storage import Folder
from serving.config import ServeConfig
from training.export import context_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 32
_IMPORTING = threading.Lock()
"""transformers fills its namespace lazily: a second thread that imports it meanwhile finds names missing."""
END_OF_TEXT, END_OF_TURN = "<|endoftext|>", "<|im_end|>"


class Engine(Protocol):
    """What the tasks need of an engine; token ids in, token ids or natural log-probabilities out, in the order given."""

    def generate(self, prompts: list[list[int]], max_tokens: int, stop_token_ids: list[int]) -> list[list[int]]:
        """Greedy continuation of each prompt, without the stop token."""
        ...

    def token_logprobs(self, sequences: list[list[int]]) -> list[list[float]]:
        """Log-probability of tokens 1..n-1 of each sequence given those before: n-1 values for n tokens."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Model:
    """A model under test. `context` is the most tokens of one request, the answer included; `window` the most tokens of a
    scored window (at most what the model was trained on)."""

    role: str
    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    context: int
    window: int
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def separator(self) -> int:
        """The token that precedes every document."""
        known = self._known(END_OF_TEXT, self.tokenizer.bos_token, self.tokenizer.eos_token)
        if not known:
            raise RequestError("the tokenizer has no <|endoftext|>, BOS or EOS token to begin a document with")
        return known[0]

    @property
    def stop_tokens(self) -> list[int]:
        """Tokens that end an answer."""
        return sorted(set(self._known(self.tokenizer.eos_token, END_OF_TURN, END_OF_TEXT)))

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False, verbose=False)

    def log_likelihoods(self, texts: Sequence[str], advance: Callable[[float], None]) -> list[float]:
        """Natural log-probability of each text after a separator. Texts longer than the context are cut."""
        sequences = [[self.separator, *self.encode(text)][: self.context - 1] for text in texts]
        return [math.fsum(values) for values in self.token_logprobs(sequences, advance)]

    def token_logprobs(self, sequences: list[list[int]], advance: Callable[[float], None]) -> list[list[float]]:
        return self._in_chunks(sequences, self.engine.token_logprobs, advance)

    def chat_prompt(self, question: str) -> str:
        """The chat template around one question, up to where the assistant speaks."""
        messages = [{"role": "user", "content": question}]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def answer(self, prompts: Sequence[str], max_tokens: int, advance: Callable[[float], None]) -> list[str]:
        """Greedy answers to ready prompts, as text. Where both don't fit the context, the prompt keeps at least half of it."""
        room = min(max_tokens, self.context // 2)
        encoded = [self.encode(prompt)[room - self.context :] for prompt in prompts]
        answers = self._in_chunks(encoded, lambda chunk: self.engine.generate(chunk, room, self.stop_tokens), advance)
        return [str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip() for tokens in answers]

    def _in_chunks(
        self, items: list[list[int]], call: Callable[[list[list[int]]], list[Any]], advance: Callable[[float], None]
    ) -> list[Any]:
        """Several chunks an actor at a time, so that progress moves; the order is kept."""
        width = CHUNK * getattr(self.engine, "width", 1)
        answers: list[Any] = []
        for begin in range(0, len(items), width):
            chunk = items[begin : begin + width]
            answers += call(chunk)
            advance(len(chunk))
        return answers

    def _known(self, *tokens: Any) -> list[int]:
        """Ids of those of the tokens that the vocabulary has."""
        vocabulary = self.tokenizer.get_vocab()
        return [vocabulary[str(token)] for token in tokens if token is not None and str(token) in vocabulary]


def load_tokenizer(folder: Folder) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder; a `RequestError` where there is none."""
    place = local_copy(folder)
    if not (Path(place) / "tokenizer.json").is_file():
        raise RequestError(f"no tokenizer.json in {folder}; give the folder of a Hugging Face export")
    with _IMPORTING:
        from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(place)


def model_context(folder: Folder) -> int:
    """The most tokens the model of that folder reads, from its config.json."""
    if not folder.exists("config.json"):
        raise RequestError(f"no config.json in {folder}; give the folder of a Hugging Face export")
    return context_length(folder.read_json("config.json"))


def local_copy(folder: Folder) -> str:
    """A path on this machine with the folder's files: the folder itself where it is local, else a copy."""
    if folder.is_local:
        return folder.path
    place = Path(tempfile.mkdtemp(prefix="fournil-model-"))
    for name in folder.names():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(folder.read_bytes(name))
    return str(place)


class RayEngine:
    """vLLM engines as Ray actors: requests are dealt out in chunks, answers come back in order.

    Ray restarts an actor that dies and sends its chunk again.
    """

    def __init__(self, model: Folder, config: ServeConfig, log_file: Path, resources: Resources) -> None:
        import ray
        from ray.util import ActorPool

        actor = ray.remote(_EngineActor).options(
            num_cpus=resources.cpus_per_worker,
            num_gpus=resources.gpus_per_worker,
            max_restarts=2,
            max_task_retries=2,
        )
        self.width = resources.workers
        self._log_file = log_file
        logs = [str(log_file.with_name(f"{log_file.stem}-{number}{log_file.suffix}")) for number in range(resources.workers)]
        self._actors: list[Any] = [actor.remote(model, config, log) for log in logs]
        self._pool = ActorPool(self._actors)

    def generate(self, prompts: list[list[int]], max_tokens: int, stop_token_ids: list[int]) -> list[list[int]]:
        return self._spread(prompts, lambda actor, chunk: actor.generate.remote(chunk, max_tokens, stop_token_ids))

    def token_logprobs(self, sequences: list[list[int]]) -> list[list[float]]:
        return self._spread(sequences, lambda actor, chunk: actor.token_logprobs.remote(chunk))

    def close(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)

    def _spread(self, items: list[list[int]], call: Callable[[Any, list[list[int]]], Any]) -> list[Any]:
        import ray.exceptions

        chunks = [items[begin : begin + CHUNK] for begin in range(0, len(items), CHUNK)]
        try:
            return [answer for answers in self._pool.map(call, chunks) for answer in answers]
        except RequestError:
            raise
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise WorkError(f"the vLLM engine failed ({reason}); its log is {self._log_file.parent}/{self._log_file.stem}-*.log") from None


class _EngineActor:
    """Runs inside the Ray actor; the model is fetched to its machine if need be."""

    def __init__(self, model: Folder, config: ServeConfig, log_file: str) -> None:
        from serving.engine import OfflineEngine

        self._engine = OfflineEngine(local_copy(model), config, log_file)

    def generate(self, prompts: list[list[int]], max_tokens: int, stop_token_ids: list[int]) -> list[list[int]]:
        return self._engine.generate(prompts, max_tokens, stop_token_ids)

    def token_logprobs(self, sequences: list[list[int]]) -> list[list[float]]:
        return self._engine.token_logprobs(sequences)


class HttpEngine:
    """An OpenAI-compatible endpoint of vLLM's, through `/v1/completions` with token ids.

    Log-probabilities come from `echo`; generated tokens are read back from `token_id:N` names (`return_tokens_as_token_ids`).
    """

    TIMEOUT_SECONDS = 300.0
    BUSY = (429, 502, 503)

    def __init__(self, url: str, model: str | None = None, api_key: str | None = None, concurrency: int = 16) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.url = url.rstrip("/").removesuffix("/v1")
        self.width = max(1, concurrency // CHUNK)
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=self.TIMEOUT_SECONDS)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="http-engine")
        self.card = self._find(model)
        self.model: str = self.card["id"]

    def generate(self, prompts: list[list[int]], max_tokens: int, stop_token_ids: list[int]) -> list[list[int]]:
        stop = set(stop_token_ids)
        options = {"max_tokens": max_tokens, "stop_token_ids": stop_token_ids, "skip_special_tokens": False}

        def answer(prompt: list[int]) -> list[int]:
            tokens = [_token_id(name) for name in self._complete(prompt, options)["tokens"]]
            return tokens[:-1] if tokens and tokens[-1] in stop else tokens

        return list(self._pool.map(answer, prompts))

    def token_logprobs(self, sequences: list[list[int]]) -> list[list[float]]:
        def score(sequence: list[int]) -> list[float]:
            return self._complete(sequence, {"max_tokens": 1, "echo": True})["token_logprobs"][1 : len(sequence)]

        return list(self._pool.map(score, sequences))

    def close(self) -> None:
        self._pool.shutdown()
        self._client.close()

    def _find(self, model: str | None) -> dict[str, Any]:
        """The entry of `/v1/models` for that model, the first one when none is named."""
        cards = self._send("GET", "/v1/models").get("data", [])
        for card in cards:
            if model in (None, card["id"]):
                return card
        known = ", ".join(card["id"] for card in cards) or "none"
        raise RequestError(f"{self.url} does not serve {model or 'any model'}; its models: {known}")

    def _complete(self, prompt: list[int], options: dict[str, Any]) -> dict[str, Any]:
        body = {"model": self.model, "prompt": prompt, "temperature": 0, "logprobs": 1, "return_tokens_as_token_ids": True, **options}
        return self._send("POST", "/v1/completions", body)["choices"][0]["logprobs"]

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request; a busy server is asked again, more and more slowly, for `TIMEOUT_SECONDS`."""
        import httpx

        deadline, pause = time.monotonic() + self.TIMEOUT_SECONDS, 0.1
        while True:
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.TimeoutException:
                raise WorkError(f"{self.url}{path} gave no answer within {self.TIMEOUT_SECONDS:.0f} s; look at the server's log") from None
            except httpx.HTTPError as error:
                raise RequestError(f"nobody answers at {self.url} ({error}); start one with `fournil serve` or check the address") from None
            if answer.status_code == 200:
                return answer.json()
            if answer.status_code not in self.BUSY or time.monotonic() > deadline:
                raise WorkError(f"{self.url}{path} answered {answer.status_code}: {answer.text[:200]!r}")
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def _token_id(name: str) -> int:
    return int(name.removeprefix("token_id:"))
