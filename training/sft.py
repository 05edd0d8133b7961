"""Supervised fine-tuning: the base model and chat examples to a chat model, with the loop of pretraining.

Writes `packed/` (`training/packing.py`), and as pretraining does `checkpoints/`, `metrics.jsonl`, `export/` (with the chat
template and the end-of-turn token) and `summary.json`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import RequestError
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder
from training.config import FineTuneConfig, ModelConfig, SftConfig
from training.pretrain import check_context, identity
from training.worker import train_on_ray

if TYPE_CHECKING:
    from training.data import HeldOut, Rows, TrainingData
    from training.job import Job

VERSION = "2"

TRAIN, HELDOUT = "train", "heldout"


def run(context: StageContext) -> dict[str, Any]:
    """Pack the instructions artifact and fine-tune the pretrained weights on it; returns the summary and the counts."""
    from training.packing import PackSplit

    config = context.config
    assert isinstance(config, SftConfig)
    job = fine_tuning_job(context, config, context.input("anneal", "pretrain").folder, PackedInput(context.out, config))
    split = PackSplit(context.inputs["instructions"].folder, job.tokenizer, context.out, config.seq_len)
    parts = [{"name": TRAIN, "weights": config.source_weights}, {"name": HELDOUT}]
    counts = dict(zip((TRAIN, HELDOUT), map_parts(parts, split, context), strict=True))
    if not counts[TRAIN]["rows"]:
        raise RequestError("there is no chat example to train on; raise instructions.max_examples or sft.seq_len in the recipe")
    return {**train_on_ray(job, context), "examples": counts}


def fine_tuning_job(context: StageContext, config: FineTuneConfig, base: Folder, data: Callable[[], TrainingData]) -> Job:
    """A chat model's run that begins with the weights of the training artifact `base`. Refused where rows are longer than its
    positions."""
    from training.checkpoint import newest_state
    from training.job import Job

    facts = newest_state(base)
    model = ModelConfig.model_validate(facts["model"])
    check_context(model.max_position_embeddings, config)
    return Job(
        model=model,
        vocab_size=facts["vocab_size"],
        settings=config,
        data=data,
        tokenizer=context.inputs["tokenizer"].folder,
        out=context.out,
        identity=identity(context),
        attempt="",
        initial=base,
        chat=True,
        threads=max(1, int(context.resources.cpus_per_worker)),
        lora=config.lora,
    )


@dataclass(frozen=True)
class PackedInput:
    """Opens the packed examples on a worker."""

    folder: Folder
    settings: SftConfig

    def __call__(self) -> TrainingData:
        from training.data import HeldOut
        from training.packing import ARRAYS, PACKED, WEIGHTS, PackedRows

        settings, root = self.settings, self.folder.local_path(PACKED)
        weighted = bool(settings.source_weights)
        rows = PackedRows(root, TRAIN, settings.seq_len, weighted=weighted)

        def heldout(limit: int | None = None) -> dict[str, HeldOut]:
            rows = PackedRows(root, HELDOUT, settings.seq_len, limit)
            return {"chat": HeldOut(rows, None)} if len(rows) else {}

        return packed_data(settings, root, (*ARRAYS, WEIGHTS) if weighted else ARRAYS, rows, heldout)


def packed_data(
    settings: FineTuneConfig, root: Path, arrays: Sequence[str], rows: Rows, heldout: Callable[..., dict[str, HeldOut]]
) -> TrainingData:
    """Packed rows in their order. `arrays` are the files that say what is learnt; `heldout` takes the number of rows to read."""
    from training.data import DataFingerprint, TrainingData, content_hash
    from training.order import Order

    total_rows = None if settings.tokens is None else math.ceil(settings.tokens / settings.seq_len)
    order = Order([len(rows)], [settings.epochs], settings.batch_tokens // settings.seq_len, settings.seed, total_rows)
    content = content_hash([settings.epochs], [root / f"{TRAIN}.{name}.npy" for name in arrays])
    fingerprint = DataFingerprint(content, settings.seq_len, order.batch_rows, order.total_rows, settings.seed)
    quick = heldout(max(1, settings.eval_tokens // settings.seq_len))
    return TrainingData(rows, order, quick, heldout(), fingerprint)
