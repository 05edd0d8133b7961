"""How often each token was a target in a run: exact, by going again through the order of rows of each training stage.

A target is what the loss counts: every token of the text in pretraining and annealing (less what the goldfish loss drops), the
assistant's words in fine-tuning, and in preference optimisation those of the chosen answers. NumPy alone: no model is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.artifacts import Artifact
from training.anneal import anneal_settings, annealing_input
from training.config import AnnealJobConfig, DpoConfig, FineTuneConfig, LoopConfig, PretrainJobConfig, SftConfig
from training.data import IGNORE, Batch, TrainingData
from training.goldfish import drop_targets
from training.packing import ARRAYS, PACKED, PackedRows
from training.pretrain import TokensInput
from training.sft import TRAIN, PackedInput, packed_data

TRAINED_STAGES = ("pretrain", "anneal", "sft", "dpo")


def count_run(artifacts: Mapping[str, Artifact]) -> dict[str, np.ndarray]:
    """Targets of each token (int64 [vocabulary]) in each training stage among a run's `artifacts`, beside which are `tokens` and,
    for annealing, `mix`. A stage that trained adapters alone is left out: no embedding moved in it.
    """
    vocab_size = artifacts["tokens"].folder.read_json("index.json")["vocab_size"]
    found = {}
    for stage in TRAINED_STAGES:
        if stage in artifacts:
            settings, data = _open_stage(artifacts, stage)
            if not (isinstance(settings, FineTuneConfig) and settings.lora):
                found[stage] = count_targets(data, settings, _summary(artifacts[stage]), vocab_size)
    return found


def count_targets(data: TrainingData, settings: LoopConfig, summary: Mapping[str, Any], vocab_size: int) -> np.ndarray:
    """Targets of each token in the steps that the summary tells of, its shifts gone through as the run did."""
    counts = np.zeros(vocab_size, np.int64)
    for step in range(summary["steps"]):
        passed = sum(steps for first, steps in summary.get("shifts", ()) if step >= first)
        batch = data.rows.read(data.order.rows(step, passed))
        targets = (batch if settings.goldfish is None else drop_targets(batch, settings.goldfish)).targets
        counts += np.bincount(targets[targets != IGNORE], minlength=vocab_size)
    return counts


def _open_stage(artifacts: Mapping[str, Artifact], stage: str) -> tuple[LoopConfig, TrainingData]:
    """The settings and the data of a finished training stage, as its artifact and those it was made from have them."""
    folder, declared = artifacts[stage].folder, artifacts[stage].manifest["config"]
    if stage == "pretrain":
        settings = PretrainJobConfig.model_validate(declared).pretrain
        return settings, TokensInput(artifacts["tokens"].folder, settings)()
    if stage == "anneal":
        config = AnnealJobConfig.model_validate(declared)
        assert config.anneal is not None
        settings = anneal_settings(config.pretrain, config.anneal, _summary(artifacts["pretrain"])["steps"])
        return settings, annealing_input(config.anneal, settings, artifacts, folder)()
    if stage == "sft":
        settings = SftConfig.model_validate(declared)
        return settings, PackedInput(folder, settings)()
    settings, root = DpoConfig.model_validate(declared), folder.local_path(PACKED)
    return settings, packed_data(settings, root, ARRAYS, _ChosenRows(root, TRAIN, settings.seq_len), lambda _=None: {})


class _ChosenRows(PackedRows):
    """Packed pairs without the targets of rejected answers: segments 2p - 1 and 2p of a row are the answers of its pair p."""

    def read(self, rows: np.ndarray) -> Batch:
        batch = super().read(rows)
        assert batch.segments is not None
        return batch._replace(targets=np.where(batch.segments % 2 == 1, batch.targets, IGNORE))


def _summary(artifact: Artifact) -> dict[str, Any]:
    return artifact.folder.read_json("summary.json")
