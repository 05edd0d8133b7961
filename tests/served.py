"""Fixtures for tests that need a model: a tiny Llama with random weights, and one endpoint that serves it for the whole run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from cluster.storage import Folder
from training.config import ModelConfig, RopeScaling
from training.export import export_model
from training.tokenizer import SPECIAL_TOKENS, write_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def byte_tokenizer() -> Tokenizer:
    """A byte-level tokenizer without merges: the special tokens in their places, then 256 bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


TINY = ModelConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=256,
    rope_scaling=RopeScaling(method="yarn", factor=2),
    initializer_range=0.2,
)
"""60 thousand parameters, with scaled rotary positions, so that all engines are seen to read them alike."""


def write_tiny_model(folder: Path) -> Path:
    """Write a model of that shape with random weights and a byte-level tokenizer, exported as a chat model of a run is."""
    from training.model import Llama, init_weights

    tokenizer, exported = byte_tokenizer(), Folder(str(folder))
    write_tokenizer(exported, tokenizer)
    model = Llama(TINY, tokenizer.get_vocab_size())
    init_weights(model, seed=46)  # its greedy answer to the tests' prompt is mostly letters
    export_model(model.state_dict(), TINY, model.vocab_size, exported, Folder(str(folder.parent)), folder.name, chat=True)
    return folder


def trainer_logprobs(folder: Path, tokens: list[int]) -> list[float]:
    """Log-probability of tokens 1..n-1 under the training core's model with the weights of that export, in float32."""
    import torch
    from safetensors.torch import load_file

    from training.model import Llama

    weights = load_file(folder / "model.safetensors")
    model = Llama(TINY, len(weights["model.embed_tokens.weight"]))
    model.load_state_dict(weights)
    with torch.inference_mode():
        return (-model(torch.tensor([tokens[:-1]]), torch.tensor([tokens[1:]]), reduction="none")[0]).tolist()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model, as `fournil` exports one."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@dataclass(frozen=True)
class Served:
    """A running endpoint: where it is, what `/health` said while it started (None: nobody listened), what the process printed."""

    url: str
    model: Path
    process: subprocess.Popen[bytes]
    health_before: tuple[int | None, ...]
    log: Path
    logs: Path


START_SECONDS = 600
STOP_SECONDS = 60
SERVE = """
import sys
from pathlib import Path
from serving.app import serve_forever
from serving.config import ServeConfig

model, logs, config = sys.argv[1:]
serve_forever(model, ServeConfig.model_validate_json(config), Path(logs), lambda line: print(line, flush=True))
"""


@pytest.fixture(scope="session")
def served(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The one endpoint of the test run, in a process and a private Ray of its own, so that `ray_session` keeps its cores.

    Its queue is short (4 running, 4 waiting) and it computes in float32, so that numbers can be compared with transformers.
    """
    from serving.app import free_port
    from serving.config import ServeConfig

    folder = tmp_path_factory.mktemp("served")
    port = free_port("127.0.0.1")
    config = ServeConfig(port=port, dtype="float32", kv_cache_gib=0.25, max_ongoing_requests=4, max_queued_requests=4)
    command = [sys.executable, "-c", SERVE, str(tiny_model), str(folder / "logs"), config.model_dump_json()]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    url = f"http://127.0.0.1:{port}"
    try:
        seen = _health_until_ready(url, process, folder / "output")
        yield Served(url, tiny_model, process, seen, folder / "output", folder / "logs")
    finally:
        stop_cleanly(process)


def stop_cleanly(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then wait until the process and everything it started are gone; what is left after a minute is killed and an error."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        code = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        code = None
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for child in left:
        child.kill()
    assert code == 0
    assert not left


def _health_until_ready(url: str, process: subprocess.Popen[bytes], output: Path) -> tuple[int | None, ...]:
    seen: list[int | None] = []
    deadline = time.monotonic() + START_SECONDS
    while not seen or seen[-1] != 200:
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        try:
            seen.append(httpx.get(f"{url}/health", timeout=5).status_code)
        except httpx.TransportError:
            seen.append(None)
        time.sleep(0.2)
    return tuple(seen)
