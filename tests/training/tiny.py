"""Small inputs for the training tests: a token artifact without text, a model of 100,000 parameters, a slow reader."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cluster.storage import Folder
from tests.corpus import prose
from training.config import LoopConfig, ModelConfig, PretrainConfig
from training.data import Batch, Rows, TrainingData
from training.job import Job
from training.pretrain import TokensInput
from training.tokenizer import fit, write_tokenizer

VOCAB = 600
MODEL = ModelConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64
)


def settings(**changes: Any) -> PretrainConfig:
    base = {"seq_len": 16, "batch_tokens": 128, "micro_batch_tokens": 64, "precision": "fp32", "compile": False, "checkpoint_every": 8}
    return PretrainConfig(**{**base, "eval_every": 10, "eval_tokens": 100, **changes})


def write_shard(root: Path, name: str, documents: int, seed: int) -> dict[str, Any]:
    """A shard of documents that count up from a random token, as `pipelines/tokens.py` lays them out."""
    random = np.random.default_rng(seed)
    texts = [(int(random.integers(0, VOCAB)) + np.arange(random.integers(3, 40))) % (VOCAB - 16) + 16 for _ in range(documents)]
    tokens = np.concatenate([part for text in texts for part in (text, [0])]).astype("<u2")
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    tokens.tofile(path)
    stem = str(path).removesuffix(".bin")
    np.save(f"{stem}.idx.npy", np.cumsum([len(text) + 1 for text in texts]))
    np.save(f"{stem}.bytes.npy", np.array([3 * len(text) for text in texts]))
    return {"path": name, "tokens": len(tokens), "documents": documents, "bytes": sum(3 * len(text) for text in texts)}


def write_tokens(root: Path, documents: int = 20) -> Folder:
    """Two sources (three shards, one of them empty) with ratios 1 and 1.5, and held-out text in two streams."""
    alpha = [write_shard(root, f"train/alpha/{place}.bin", documents, place) for place in range(2)]
    beta = [write_shard(root, "train/beta/0.bin", documents, 2)]
    (root / "train/alpha/empty.bin").touch()
    alpha.insert(1, {"path": "train/alpha/empty.bin", "tokens": 0, "documents": 0, "bytes": 0})
    sources = {
        name: {"stream": stream, "ratio": ratio, "tokens": sum(shard["tokens"] for shard in shards), "shards": shards}
        for name, stream, ratio, shards in (("alpha", "fr", 1.0, alpha), ("beta", "en", 1.5, beta))
    }
    heldout = {stream: write_shard(root, f"heldout/{stream}.bin", 6, seed) for seed, stream in enumerate(("en", "fr"), start=3)}
    index = {"dtype": "uint16", "vocab_size": VOCAB, "eos": 0, "sources": sources, "heldout": heldout}
    (root / "index.json").write_text(json.dumps(index))
    return Folder(str(root))


def write_chat_tokenizer(folder: Folder) -> Folder:
    """A tokenizer with exactly `VOCAB` tokens and the chat template."""
    write_tokenizer(folder, fit((prose(lang, seed) for seed in range(40) for lang in ("fr", "en")), VOCAB))
    return folder


def job(root: Path, name: str, config: LoopConfig, **changes: Any) -> Job:
    """A job on the tokens below `root` (made if need be) that writes to `root/<name>`."""
    tokens = Folder(str(root / "tokens")) if (root / "tokens").exists() else write_tokens(root / "tokens")
    tokenizer = Folder(str(root / "tokenizer"))
    if not tokenizer.exists():
        write_chat_tokenizer(tokenizer)
    made = Job(MODEL, VOCAB, config, TokensInput(tokens, config), tokenizer, Folder(str(root / name)), {"recipe": "r"}, "a", threads=1)
    return replace(made, **changes)


@dataclass(frozen=True)
class SlowInput:
    """Opens what `input` opens, but every read takes a while, or fails at a chosen read."""

    input: Callable[[], TrainingData]
    seconds: float = 0.0
    fail_at: int | None = None

    def __call__(self) -> TrainingData:
        data = self.input()
        return replace(data, rows=_SlowRows(data.rows, self.seconds, self.fail_at))


class _SlowRows:
    def __init__(self, rows: Rows, seconds: float, fail_at: int | None) -> None:
        self.rows, self.seconds, self.fail_at, self.seq_len, self.reads = rows, seconds, fail_at, rows.seq_len, 0

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: np.ndarray) -> Batch:
        if self.reads == self.fail_at:
            raise OSError("the disk is gone")
        self.reads += 1
        time.sleep(self.seconds)
        return self.rows.read(rows)
