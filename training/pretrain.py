"""Pretraining: packed tokens to a base model.

Writes `checkpoints/` (`training/checkpoint.py`), `metrics.jsonl` (`training/metrics.py`), `export/` (`training/export.py`)
and, last, `summary.json`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.artifacts import canonical_json
from cluster.errors import RequestError
from cluster.stage import StageContext
from cluster.storage import Folder
from training.config import LoopConfig, PretrainConfig, PretrainJobConfig
from training.worker import train_on_ray

if TYPE_CHECKING:
    from training.data import TrainingData
    from training.objectives import Objective

VERSION = "2"


def run(context: StageContext) -> dict[str, Any]:
    """Train the recipe's model on the tokens artifact; returns the summary."""
    from training.job import Job

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
        objective=pretrain_objective(config.pretrain, context.inputs["tokenizer"].folder),
    )
    return train_on_ray(job, context)


def pretrain_objective(settings: PretrainConfig, tokenizer: Folder) -> Objective:
    """Cross-entropy, or distillation where the recipe has a teacher."""
    from training.distil import distillation
    from training.objectives import next_token

    distil = settings.distil
    return next_token if distil is None else distillation(settings, distil, tokenizer)


@dataclass(frozen=True)
class TokensInput:
    """Opens the tokens artifact on a worker: see `data.open_tokens`."""

    folder: Folder
    settings: LoopConfig
    ratios: Mapping[str, float] | None = None
    added: Folder | None = None
    cache: Path | None = None

    def __call__(self) -> TrainingData:
        from training.data import open_tokens

        return open_tokens(self.folder, self.settings, ratios=self.ratios, added=self.added, cache=self.cache)


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
