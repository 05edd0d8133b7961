"""Chat examples packed into rows of equal length, each example whole and attending only to itself.

`<split>.tokens.npy`, `.targets.npy` and `.segments.npy` are [rows, seq_len]: input ids; the id to predict, or -100 where the
assistant says nothing; and the number of the example in its row (0 for padding). Where sources have weights,
`<split>.weights.npy` [rows, most examples of a row] has those of the examples by their numbers.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.storage import Folder
from pipelines.parts import read_batches
from training.data import EMPTY_ROW, IGNORE, Batch

PACKED = "packed"
ARRAYS: tuple[str, ...] = ("tokens", "targets", "segments")
WEIGHTS = "weights"

Example = tuple[np.ndarray, np.ndarray]
"""Input ids and targets of one conversation, both one shorter than its tokens."""


@dataclass(frozen=True)
class PackSplit:
    """Tokenises and packs `<split>.parquet` of an instructions artifact; the receipt counts what was left out.

    A part is a split and, if its loss is to be weighted, what the examples of each source count (`weights`, 1 if not named).
    """

    instructions: Folder
    tokenizer: Folder
    out: Folder
    seq_len: int

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        split, weights = part["name"], part.get(WEIGHTS, {})
        examples, sources, counts = self._read(f"{split}.parquet", ["messages", "source"] if weights else ["messages"])
        rows = pack([len(tokens) for tokens, _ in examples], self.seq_len)
        arrays = dict(zip(ARRAYS, fill_rows(examples, rows, self.seq_len), strict=True))
        if weights:
            arrays[WEIGHTS] = by_segment(rows, np.array([weights.get(source, 1.0) for source in sources]))
        write_arrays(self.out, split, arrays)
        return {**counts, "rows": len(rows), "target_tokens": int((arrays["targets"] != IGNORE).sum())}

    def _read(self, name: str, columns: list[str]) -> tuple[list[Example], list[str], dict[str, int]]:
        from pipelines.tokens import load_tokenizer
        from training.chat import encode_messages

        tokenizer = load_tokenizer(self.tokenizer)
        examples: list[Example] = []
        sources: list[str] = []
        too_long = without_answer = 0
        for row in (row for batch in read_batches(self.instructions, name, columns) for row in batch.to_pylist()):
            ids, mask = encode_messages(tokenizer, json.loads(row["messages"]))
            tokens = np.array(ids[:-1], np.int32)
            targets = np.where(mask[1:], ids[1:], IGNORE).astype(np.int32)
            if len(tokens) > self.seq_len:
                too_long += 1
            elif not (targets != IGNORE).any():
                without_answer += 1
            else:
                examples.append((tokens, targets))
                sources.append(row.get("source", ""))
        return examples, sources, {"examples": len(examples), "too_long": too_long, "without_answer": without_answer}


def write_arrays(out: Folder, split: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write each array as `packed/<split>.<name>.npy`, whole."""
    with tempfile.TemporaryDirectory(prefix="fournil-pack-") as scratch:
        for name, array in arrays.items():
            path = Path(scratch) / f"{name}.npy"
            np.save(path, array)
            (out / PACKED).add_file(f"{split}.{name}.npy", path)


def pack(lengths: Sequence[int], seq_len: int) -> list[list[int]]:
    """Rows of example numbers whose lengths sum to at most `seq_len`: best fit, longest first, ties in their order.

    Best-fit decreasing needs at most 11/9 of the optimal rows + 1 (Johnson 1974). The free places of the open rows are
    bits of one integer, so that each fit is found without a search.
    """
    rows: list[list[int]] = []
    with_room: defaultdict[int, list[int]] = defaultdict(list)
    rooms = 0
    for example in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        length = lengths[example]
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, row = seq_len, len(rows)
            rows.append([])
        rows[row].append(example)
        left = room - length
        if left:
            with_room[left].append(row)
            rooms |= 1 << left
    return rows


def fill_rows(examples: Sequence[Example], rows: list[list[int]], seq_len: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arrays `ARRAYS` of packed examples."""
    tokens = np.zeros((len(rows), seq_len), np.int32)
    targets = np.full((len(rows), seq_len), IGNORE, np.int32)
    segments = np.zeros((len(rows), seq_len), np.int32)
    for row, members in enumerate(rows):
        place = 0
        for number, example in enumerate(members, start=1):
            ids, wanted = examples[example]
            end = place + len(ids)
            tokens[row, place:end], targets[row, place:end], segments[row, place:end] = ids, wanted, number
            place = end
    return tokens, targets, segments


def by_segment(rows: list[list[int]], values: np.ndarray) -> np.ndarray:
    """What `values` has for each example, by row and its number there: fp32 [rows, most examples of a row], 0 where there is none."""
    table = np.zeros((len(rows), max(map(len, rows), default=0)), np.float32)
    for row, members in enumerate(rows):
        table[row, : len(members)] = values[members]
    return table


def spread(table: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The value of each position's segment [rows, seq_len], 0 in padding."""
    return np.take_along_axis(np.pad(table, ((0, 0), (1, 0))), segments.astype(np.int64), axis=1)


class PackedRows:
    """Packed rows, memory-mapped; `limit` takes the first so many. `weighted` reads the examples' weights too."""

    def __init__(self, root: Path, split: str, seq_len: int, limit: int | None = None, weighted: bool = False) -> None:
        self.seq_len = seq_len
        self._weights = np.load(root / f"{split}.{WEIGHTS}.npy", mmap_mode="r") if weighted else None
        self._tokens, self._targets, self._segments = (np.load(root / f"{split}.{name}.npy", mmap_mode="r")[:limit] for name in ARRAYS)

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def most_segments(self) -> int:
        """The most segments of a row."""
        return int(self._segments.max(initial=0))

    def read(self, rows: np.ndarray) -> Batch:
        there = rows != EMPTY_ROW
        tokens = np.zeros((len(rows), self.seq_len), np.int64)
        targets = np.full((len(rows), self.seq_len), IGNORE, np.int64)
        segments = np.zeros((len(rows), self.seq_len), np.int64)
        tokens[there], targets[there], segments[there] = (array[rows[there]] for array in (self._tokens, self._targets, self._segments))
        weights = None
        if self._weights is not None:
            weights = np.zeros((len(rows), self.seq_len), np.float32)
            weights[there] = spread(self._weights[rows[there]], segments[there])
        return Batch(tokens, targets, segments, weights)
