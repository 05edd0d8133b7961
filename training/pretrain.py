"""Pretraining: packed tokens to a base model.

Writes `checkpoints/` (`training/checkpoint.py`), `metrics.jsonl` (`training/metrics.py`), `export/` (`training/export.py`)
and, last, `summary.json`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.artifacts import canonical_json
from cluster.errors import RequestError
from cluster.stage import StageContext
from cluster.storage import Folder
from training.config import LoopConfig, PretrainJobConfig
from training.worker import train_on_ray

if TYPE_CHECKING:
    from training.data import TrainingData

VERSION = "1"


def run(context: StageContext) -> dict[str, Any]:
    """Train the recipe's model on the tokens artifact; returns the summary."""
    from training.loop import Job

    config = context.config
    assert isinstance(config, PretrainJobConfig)
    check_context(config.model.max_position_embeddings, config.pretrain)
    tokens = context.inputs["tokens"].folder
    job = Job(
        model=config.model,
        vocab_size=tokens.read_json("index.json")["vocab_size"],
        settings=config.pretrain,
        data=TokensInput(tokens, config.pretrain),
        tokenizer=context.inputs["tokenizer"].folder,
        out=context.out,
        identity=identity(context),
        attempt="",
        threads=max(1, int(context.resources.cpus_per_worker)),
    )
    return train_on_ray(job, context)


@dataclass(frozen=True)
class TokensInput:
    """Opens the tokens artifact on a worker."""

    folder: Folder
    settings: LoopConfig
    cache: Path | None = None

    def __call__(self) -> TrainingData:
        from training.data import open_tokens

        settings = self.settings
        return open_tokens(
            self.folder,
            seq_len=settings.seq_len,
            batch_tokens=settings.batch_tokens,
            tokens=settings.tokens,
            seed=settings.seed,
            quick_tokens=settings.eval_tokens,
            cache=self.cache,
        )


def identity(context: StageContext) -> dict[str, Any]:
    """What a checkpoint must agree with to be resumed: the stage's recipe (hashed) and its inputs' hashes."""
    recipe = canonical_json(context.config.model_dump(mode="json"))
    inputs = {name: artifact.hash for name, artifact in sorted(context.inputs.items())}
    return {"recipe": hashlib.sha256(recipe.encode()).hexdigest()[:16], **inputs}


def check_context(positions: int, settings: LoopConfig) -> None:
    """A `RequestError` when the model has no positions for rows as long as the recipe wants them."""
    if settings.seq_len > positions:
        raise RequestError(
            f"seq_len {settings.seq_len} is longer than model.max_position_embeddings {positions}; lower one or raise the other"
        )
