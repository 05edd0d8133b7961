"""Preference optimisation of the chat model on pairs of a better and a worse answer: DPO or IPO (`objectives.Preference`).

Packs the pairs of a preferences artifact as fine-tuning packs its examples, both answers of a pair in one row: `packed/` as in
`training/packing.py`, but only the last turn is learnt, and `<split>.reference.npy` [rows, most answers of a row] has the
answers' log-probabilities under the starting model, which are computed once, before the first step. Otherwise it writes what
fine-tuning writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import RequestError
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder
from pipelines.parts import read_batches
from training.config import DpoConfig
from training.data import EMPTY_ROW, IGNORE, Batch
from training.packing import ARRAYS, PACKED, Example, PackedRows, fill_rows, pack, write_arrays
from training.sft import HELDOUT, TRAIN, fine_tuning_job, packed_data
from training.worker import train_on_ray

if TYPE_CHECKING:
    from training.data import TrainingData
    from training.distributed import World
    from training.model import Llama

VERSION = "1"

REFERENCE = "reference"


def run(context: StageContext) -> dict[str, Any]:
    """Pack the preference pairs and train the chat model on them; returns the summary and the counts."""
    from training.objectives import Preference

    config = context.config
    assert isinstance(config, DpoConfig)
    job = replace(
        fine_tuning_job(context, config, context.inputs["sft"].folder, PairInput(context.out, config)),
        objective=Preference(config.loss, config.beta),
        prepare=ReferencePass(context.out, config.seq_len),
    )
    packer = PackPairs(context.inputs["preferences"].folder, job.tokenizer, context.out, config.seq_len)
    counts = dict(zip((TRAIN, HELDOUT), map_parts([{"name": TRAIN}, {"name": HELDOUT}], packer, context), strict=True))
    if not counts[TRAIN]["rows"]:
        raise RequestError("no pair of answers fits a row; raise dpo.seq_len in the recipe, or preferences.max_pairs if there are none")
    return {**train_on_ray(job, context), "pairs": counts}


@dataclass(frozen=True)
class PackPairs:
    """Tokenises and packs `<split>.parquet` of a preferences artifact; the receipt counts what was left out."""

    preferences: Folder
    tokenizer: Folder
    out: Folder
    seq_len: int

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        split = part["name"]
        pairs, counts = self._read(f"{split}.parquet")
        members = pack([len(chosen[0]) + len(rejected[0]) for chosen, rejected in pairs], self.seq_len)
        answers = [answer for pair in pairs for answer in pair]
        rows = [[answer for pair in row for answer in (2 * pair, 2 * pair + 1)] for row in members]
        arrays = dict(zip(ARRAYS, fill_rows(answers, rows, self.seq_len), strict=True))
        write_arrays(self.out, split, arrays)
        return {**counts, "rows": len(rows), "target_tokens": int((arrays["targets"] != IGNORE).sum())}

    def _read(self, name: str) -> tuple[list[tuple[Example, Example]], dict[str, int]]:
        from pipelines.tokens import load_tokenizer

        tokenizer = load_tokenizer(self.tokenizer)
        pairs: list[tuple[Example, Example]] = []
        too_long = 0
        for row in (row for batch in read_batches(self.preferences, name, ["messages", "chosen", "rejected"]) for row in batch.to_pylist()):
            prompt = json.loads(row["messages"])
            chosen, rejected = (_answer(tokenizer, prompt, row[side]) for side in ("chosen", "rejected"))
            if len(chosen[0]) + len(rejected[0]) > self.seq_len:
                too_long += 1
            else:
                pairs.append((chosen, rejected))
        return pairs, {"pairs": len(pairs), "too_long": too_long}


def _answer(tokenizer: Any, prompt: list[dict[str, str]], answer: str) -> Example:
    """A conversation whose last turn alone is learnt."""
    from training.chat import encode_messages

    ids, mask = encode_messages(tokenizer, [*prompt, {"role": "assistant", "content": answer}])
    before = len(encode_messages(tokenizer, prompt)[0])
    wanted = np.array(mask[1:]) & (np.arange(1, len(ids)) >= before)
    return np.array(ids[:-1], np.int32), np.where(wanted, ids[1:], IGNORE).astype(np.int32)


class PairRows(PackedRows):
    """Packed pairs with their reference log-probabilities, which must be there by the time a row is read."""

    def __init__(self, root: Path, split: str, seq_len: int, limit: int | None = None) -> None:
        super().__init__(root, split, seq_len, limit)
        self._place = root / f"{split}.{REFERENCE}.npy"
        self._reference: np.ndarray | None = None

    def read(self, rows: np.ndarray) -> Batch:
        known = self._reference if self._reference is not None else np.load(self._place, mmap_mode="r")
        self._reference = known
        there = rows != EMPTY_ROW
        reference = np.zeros((len(rows), known.shape[1]), np.float32)
        reference[there] = known[rows[there]]
        return super().read(rows)._replace(extra={REFERENCE: reference})


@dataclass(frozen=True)
class PairInput:
    """Opens the packed pairs on a worker. Held-out readings: the loss of a pair and the share of pairs ordered rightly."""

    folder: Folder
    settings: DpoConfig

    def __call__(self) -> TrainingData:
        from training.data import HeldOut
        from training.objectives import Preference, Preferred

        settings, root = self.settings, self.folder.local_path(PACKED)
        loss = Preference(settings.loss, settings.beta)

        def heldout(limit: int | None = None) -> dict[str, HeldOut]:
            rows = PairRows(root, HELDOUT, settings.seq_len, limit)
            if not len(rows):
                return {}
            return {
                "pairs": HeldOut(rows, None, loss, "loss_per_pair"),
                "preferred": HeldOut(rows, None, Preferred(loss), "share_of_pairs"),
            }

        return packed_data(settings, root, ARRAYS, PairRows(root, TRAIN, settings.seq_len), heldout)


@dataclass(frozen=True)
class ReferencePass:
    """Writes the log-probabilities of all answers under the model as it starts, unless an earlier attempt did."""

    folder: Folder
    seq_len: int

    def __call__(self, model: Llama, world: World, micro_rows: int) -> None:
        root = self.folder.local_path(PACKED)
        for split in (TRAIN, HELDOUT):
            if not world.from_main((root / f"{split}.{REFERENCE}.npy").exists()):
                log_probs = self._log_probs(model, PackedRows(root, split, self.seq_len), world, micro_rows)
                if world.is_main:
                    write_arrays(self.folder, split, {REFERENCE: log_probs})
                world.wait()

    def _log_probs(self, model: Llama, rows: PackedRows, world: World, micro_rows: int) -> np.ndarray:
        """fp32 [rows, most answers of a row], whole on every worker."""
        import torch

        from training.heldout import whole_pass
        from training.objectives import answer_log_probs

        answers = rows.most_segments
        mine = [np.zeros((0, micro_rows, answers), np.float32)]
        model.eval()
        with torch.no_grad():
            for batch in whole_pass(rows, world, micro_rows):
                mine.append(answer_log_probs(model, batch, answers)[0].float().cpu().numpy()[None])
        parts = np.stack(world.gathered(np.concatenate(mine)), axis=1)
        return parts.reshape(-1, answers)[: len(rows)]
