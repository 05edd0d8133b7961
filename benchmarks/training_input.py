"""What the training benchmarks read: tokens drawn by seed from a Zipf law (labelled synthetic; speed does not depend on them).

A tokens artifact as `pipelines/tokens.py` writes it, the same rows as arrays in the order in which our loop takes them, for
peers, and our first weights as an export, so that all begin alike and their losses can be compared.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus import WORK
from benchmarks.harness import driver
from cluster.storage import Folder
from training.config import PRESETS, ModelConfig, PretrainConfig

SEED, ZIPF = 1, 1.2


def two_cores() -> tuple[int, ...]:
    """The cores that training is measured on; one where there is only one."""
    return tuple(sorted(os.sched_getaffinity(0))[:2])


def under_torchrun(workers: int, script: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a script of `drivers/` on so many workers of this machine."""
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}")
    return (*launch, driver(script)[1], *arguments)


@dataclass(frozen=True)
class TrainingInput:
    """`steps` optimizer steps of `rows` rows of `seq_len` tokens for one of the presets."""

    preset: str
    seq_len: int = 256
    rows: int = 16
    steps: int = 40

    @property
    def folder(self) -> Path:
        return WORK / "train" / f"{self.preset}-{self.rows}x{self.seq_len}x{self.steps}"

    @property
    def model(self) -> ModelConfig:
        return PRESETS[self.preset][0]

    @property
    def vocab_size(self) -> int:
        return PRESETS[self.preset][1]

    @property
    def step_tokens(self) -> int:
        return self.rows * self.seq_len

    def settings(self, **changes: Any) -> PretrainConfig:
        """Every contender's: bf16, a constant rate, no clipping to speak of, one micro-batch a step."""
        optim = {"learning_rate": 1e-3, "min_lr_ratio": 1.0, "warmup_ratio": 0.0}
        base = {"seq_len": self.seq_len, "batch_tokens": self.step_tokens, "micro_batch_tokens": self.step_tokens, "precision": "bf16"}
        ends = {"tokens": self.steps * self.step_tokens, "checkpoint_every": 1_000_000, "eval_every": 1_000_000}
        return PretrainConfig.model_validate({**base, **ends, "optim": optim, **changes})

    def made(self) -> Path:
        """The folder, written when first asked for."""
        if not (self.folder / "done").is_file():
            self._write_tokens()
            self._write_peers_input()
            (self.folder / "done").touch()
        return self.folder

    def _write_tokens(self) -> None:
        tokens = self.folder / "tokens"
        (tokens / "train").mkdir(parents=True, exist_ok=True)
        ranks = np.arange(1, self.vocab_size - 15)
        weights = ranks**-ZIPF / (ranks**-ZIPF).sum()
        count = self.steps * self.step_tokens
        drawn = np.random.default_rng(SEED).choice(ranks + 15, size=count, p=weights).astype("<u2")
        drawn.tofile(tokens / "train/0.bin")
        shard = {"path": "train/0.bin", "tokens": count, "documents": 1, "bytes": 4 * count}
        source = {"stream": "en", "ratio": 1.0, "tokens": count, "shards": [shard]}
        index = {"dtype": "uint16", "vocab_size": self.vocab_size, "eos": 0, "sources": {"synthetic": source}, "heldout": {}}
        (tokens / "index.json").write_text(json.dumps(index), encoding="utf-8")

    def _write_peers_input(self) -> None:
        from training.distributed import build_model, full_state_dict, open_world
        from training.export import export_model
        from training.pretrain import TokensInput
        from training.tokenizer import fit, write_tokenizer

        write_tokenizer(Folder(str(self.folder / "tokenizer")), fit(["un petit texte, a small text"] * 4, 512))
        settings = self.settings()
        data = TokensInput(Folder(str(self.folder / "tokens")), settings)()
        batches = [data.rows.read(data.order.rows(step)) for step in range(self.steps)]
        np.save(self.folder / "tokens.npy", np.stack([batch.tokens for batch in batches]))
        np.save(self.folder / "targets.npy", np.stack([batch.targets for batch in batches]))
        with open_world("fp32") as world:
            weights = full_state_dict(build_model(self.model, self.vocab_size, settings.seed, world, False))
        out, tokenizer = Folder(str(self.folder)), Folder(str(self.folder / "tokenizer"))
        export_model(weights, self.model, self.vocab_size, tokenizer, out, "initial", dtype="float32")
