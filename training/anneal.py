"""Annealing: pretraining goes on from its last checkpoint while the learning rate falls, on a mix of its own.

Good and instruction-like text teaches most while the rate falls (MiniCPM, Hu et al. 2024, arXiv 2404.06395, section 5). The
optimizer's moments come along, so the first step is the one that pretraining would have made next, but for its rows.
Writes what pretraining writes, and `chat/` (chat examples as a token shard) where the recipe mixes them in.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.artifacts import Artifact
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder
from pipelines.config import MixConfig
from pipelines.mix import MIX, annealing_ratios
from pipelines.parts import read_batches
from training.config import AnnealConfig, AnnealJobConfig, ModelConfig, PretrainConfig
from training.pretrain import TokensInput, identity, pretrain_objective
from training.schedule import learning_rate
from training.worker import train_on_ray

if TYPE_CHECKING:
    from training.job import Job

VERSION = "1"

CHAT, CHAT_SOURCE = "chat", "instructions@chat"


def run(context: StageContext) -> dict[str, Any]:
    """Anneal the pretrained model; returns the summary."""
    return train_on_ray(make_job(context), context)


def make_job(context: StageContext) -> Job:
    """The stage's training run, its chat shard written if it has one."""
    from training.checkpoint import newest_state
    from training.job import Branch, Job

    config = context.config
    assert isinstance(config, AnnealJobConfig)
    assert config.anneal is not None
    base, tokens = context.inputs["pretrain"], context.inputs["tokens"].folder
    facts = newest_state(base.folder)
    settings = anneal_settings(config.pretrain, config.anneal, facts["step"])
    data = annealing_input(config.anneal, settings, context.inputs, context.out)
    if data.added is not None:
        write = WriteChat(context.inputs["instructions"].folder, context.inputs["tokenizer"].folder, tokens, data.added)
        map_parts([{"name": CHAT}], write, context)
    return Job(
        model=ModelConfig.model_validate(facts["model"]),
        vocab_size=facts["vocab_size"],
        settings=settings,
        data=data,
        tokenizer=context.inputs["tokenizer"].folder,
        out=context.out,
        identity=identity(context),
        attempt="",
        branch=Branch(base.folder, same_data=False),
        threads=max(1, int(context.resources.cpus_per_worker)),
        objective=pretrain_objective(settings, context.inputs["tokenizer"].folder),
    )


def anneal_settings(pretrain: PretrainConfig, anneal: AnnealConfig, steps: int) -> PretrainConfig:
    """Pretraining's settings with the annealing's tokens, seed and schedule: no warm-up, and a decay over all steps from the
    rate of the last of the `steps` of pretraining."""
    decay = {
        "learning_rate": learning_rate(steps - 1, steps, pretrain.optim),
        "min_lr_ratio": anneal.min_lr_ratio,
        "schedule": "wsd",
        "warmup_ratio": 0.0,
        "decay_ratio": 1.0,
        "decay_shape": anneal.decay_shape,
    }
    optim = pretrain.optim.model_copy(update=decay)
    return pretrain.model_copy(update={"tokens": anneal.tokens, "seed": anneal.seed, "optim": optim})


def annealing_input(anneal: AnnealConfig, settings: PretrainConfig, inputs: Mapping[str, Artifact], out: Folder) -> TokensInput:
    """The tokens at the ratios of the annealing's mix, and of the chat examples in the stage's folder where it has them."""
    tokens, mix = inputs["tokens"], inputs["mix"]
    ratios = annealing_ratios(mix.folder.read_json(MIX), MixConfig.model_validate(mix.manifest["config"]), anneal.mix)
    if not anneal.instructions:
        return TokensInput(tokens.folder, settings, ratios)
    return TokensInput(tokens.folder, settings, {**ratios, CHAT_SOURCE: anneal.instructions}, out / CHAT)


@dataclass(frozen=True)
class WriteChat:
    """Writes the training chat examples as documents of tokens in the chat template, and their `index.json`."""

    instructions: Folder
    tokenizer: Folder
    tokens: Folder
    out: Folder

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        from pipelines.tokens import INDEX, load_tokenizer
        from training.chat import encode_messages

        tokenizer, index = load_tokenizer(self.tokenizer), self.tokens.read_json(INDEX)
        name, documents, tokens = "train/chat.bin", 0, 0
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(scratch) / "chat.bin"
            with local.open("wb") as file:
                for batch in read_batches(self.instructions, "train.parquet", ["messages"]):
                    for messages in batch.column("messages").to_pylist():
                        ids = [*encode_messages(tokenizer, json.loads(messages))[0], index["eos"]]
                        file.write(np.array(ids, np.dtype(index["dtype"]).newbyteorder("<")).tobytes())
                        documents, tokens = documents + 1, tokens + len(ids)
            self.out.add_file(name, local)
        counts = {"tokens": tokens, "documents": documents}
        source = {"stream": CHAT, "ratio": 0.0, **counts, "shards": [{"path": name, **counts}]}
        self.out.write_json(INDEX, {"sources": {CHAT_SOURCE: source}})
        return {**part, **counts}
