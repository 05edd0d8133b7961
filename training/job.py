"""What one training run is told: the same for pretraining, annealing, fine-tuning and preference optimisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.storage import Folder
from training.config import LoopConfig, LoraConfig, ModelConfig, WatchConfig
from training.data import TrainingData
from training.distributed import World
from training.model import Llama
from training.objectives import Objective, next_token


@dataclass(frozen=True)
class Branch:
    """A run that goes on from another: with the weights and the optimizer's state of step `step` (None: the newest) of the
    checkpoints of the artifact `base`, and with `same_data` with the rows that would have come next there. It counts its own
    steps from 0, and its schedule is its own: `wsd` without warm-up and with `decay_ratio` 1 is a cool-down."""

    base: Folder
    step: int | None = None
    same_data: bool = True


@dataclass(frozen=True)
class Job:
    """One training run, in a form that travels to its workers.

    `data` opens the training data where it is called; the first weights are fresh, or (`initial`) those of an artifact's
    newest checkpoint, or (`branch`) come with the optimizer's state; `identity` names the recipe and inputs and must be
    equal on resume; `attempt` is new for each start and names unfinished files; `after` says what ended the attempt before.
    `prepare` is given the model with its first weights and the rows of a micro-batch, before the first step; with `lora`,
    adapters alone are trained.
    `logs` is where trackers write and where the profiler is asked for (None: with the results, and never).
    """

    model: ModelConfig
    vocab_size: int
    settings: LoopConfig
    data: Callable[[], TrainingData]
    tokenizer: Folder
    out: Folder
    identity: dict[str, Any]
    attempt: str
    initial: Folder | None = None
    branch: Branch | None = None
    chat: bool = False
    threads: int | None = None
    objective: Objective = next_token
    prepare: Callable[[Llama, World, int], None] | None = None
    lora: LoraConfig | None = None
    after: str | None = None
    watch: WatchConfig = field(default_factory=WatchConfig)
    logs: Path | None = None
