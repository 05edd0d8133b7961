"""Tokens that a model has hardly learnt, found by its embeddings alone (Land and Bartolo 2024, arXiv 2405.05417).

Reserved tokens occur nowhere, so their embeddings are where the start and the pull of the softmax left them. Tokens whose
embeddings are like theirs have not been trained either:

- `distance`: L2 distance of the input embedding from the mean of the reserved ones; what tokens are ranked by.
- `cosine`: cosine distance of the output embedding (the same matrix where tied) from that mean, both less the mean of all rows.

The paper also takes the first principal component away. In a small model that component is what tells rare tokens from
frequent ones (docs/training.md), so it stays. NumPy alone reads the weights, a block of rows at a time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cluster.errors import RequestError
from cluster.storage import Folder
from pipelines.tokens import load_tokenizer

WEIGHTS = "model.safetensors"
INPUT, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
BLOCK_BYTES = 1 << 24
DTYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}


@dataclass(frozen=True)
class Matrix:
    """A matrix [rows, width] in a safetensors file, on any filesystem."""

    folder: Folder
    file: str
    offset: int
    dtype: str
    rows: int
    width: int

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rows in fp32, some at a time: the number of the first, [rows, width]."""
        stored = np.dtype(DTYPES[self.dtype])
        row_bytes = self.width * stored.itemsize
        step = max(1, BLOCK_BYTES // row_bytes)
        with self.folder.filesystem.open_input_file(self.folder.at(self.file)) as source:
            for first in range(0, self.rows, step):
                count = min(step, self.rows - first)
                raw = np.frombuffer(source.read_at(count * row_bytes, self.offset + first * row_bytes), stored)
                values = (raw.astype(np.uint32) << 16).view(np.float32) if self.dtype == "BF16" else raw.astype(np.float32)
                yield first, values.reshape(count, self.width)


def find_matrices(folder: Folder, names: Sequence[str]) -> dict[str, Matrix]:
    """Those of the matrices `names` that an export has, one file or sharded; only headers are read."""
    index = f"{WEIGHTS}.index.json"
    if folder.exists(index):
        files = sorted({file for name, file in folder.read_json(index)["weight_map"].items() if name in names})
    else:
        files = [WEIGHTS]
    found = {}
    for file in files:
        if not folder.exists(file):
            raise RequestError(f"{folder} has no {file}; give a run, or a folder with a Hugging Face model")
        with folder.filesystem.open_input_file(folder.at(file)) as source:
            length = int.from_bytes(source.read_at(8, 0), "little")
            header = json.loads(source.read_at(length, 8))
        for name in header.keys() & set(names):
            entry = header[name]
            if entry["dtype"] not in DTYPES:
                raise RequestError(f"{folder}/{file}: {name} is stored as {entry['dtype']}; known are {', '.join(DTYPES)}")
            found[name] = Matrix(folder, file, 8 + length + entry["data_offsets"][0], entry["dtype"], *entry["shape"])
    return found


def indicators(inputs: Matrix, outputs: Matrix, reference: Sequence[int]) -> dict[str, np.ndarray]:
    """`distance` and `cosine` (see above) of every token, fp32 [vocabulary]; `reference` are the tokens never trained."""
    near, _ = _means(inputs, reference)
    distance = np.concatenate([np.linalg.norm(rows - near, axis=1) for _, rows in inputs.blocks()])
    unused, mean = _means(outputs, reference)
    direction = (unused - mean) / max(np.linalg.norm(unused - mean), 1e-12)
    cosine = [1 - (rows - mean) @ direction / np.maximum(np.linalg.norm(rows - mean, axis=1), 1e-12) for _, rows in outputs.blocks()]
    return {"distance": distance, "cosine": np.concatenate(cosine)}


def _means(matrix: Matrix, reference: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the reference rows, mean of all rows."""
    total, unused = np.zeros(matrix.width), np.zeros(matrix.width)
    for first, rows in matrix.blocks():
        total += rows.sum(axis=0, dtype=np.float64)
        unused += rows[[token - first for token in reference if first <= token < first + len(rows)]].sum(axis=0, dtype=np.float64)
    return (unused / len(reference)).astype(np.float32), (total / matrix.rows).astype(np.float32)


def scan(
    export: Folder, counts: Mapping[str, np.ndarray] | None, *, share: float = 0.02, seen_below: int = 10, worst: int = 20
) -> dict[str, Any]:
    """The `share` of the ordinary tokens that are nearest to the reserved ones, nearest first: `flagged`.

    With the `counts` of tokens in training, by stage, `check` says how many of them were seen less than `seen_below` times
    (precision), beside the same for all tokens (what chance would give), and how many of all such tokens were flagged (recall).
    """
    seen = None if counts is None else np.sum(list(counts.values()), axis=0)
    tokenizer = load_tokenizer(export)
    special = sorted(tokenizer.get_added_tokens_decoder())
    reserved = [token for token in special if str(tokenizer.id_to_token(token)).startswith("<|reserved_")]
    if not reserved:
        raise RequestError(f"the tokenizer in {export} has no tokens <|reserved_...|>, which others are compared with")
    found = find_matrices(export, (INPUT, OUTPUT))
    if INPUT not in found:
        raise RequestError(f"the weights in {export} have no {INPUT}; this is no model of Llama's shape")
    values = indicators(found[INPUT], found.get(OUTPUT, found[INPUT]), reserved)
    ordinary = np.setdiff1d(np.arange(tokenizer.get_vocab_size()), special)
    flagged = {
        name: ordinary[np.argsort(value[ordinary], kind="stable")][: math.ceil(share * len(ordinary))] for name, value in values.items()
    }
    rows = [
        {
            "id": int(token),
            "token": written(tokenizer.id_to_token(int(token)) or ""),
            **{name: round(float(value[token]), 4) for name, value in values.items()},
            "seen": None if seen is None else int(seen[token]),
        }
        for token in flagged["distance"]
    ]
    report: dict[str, Any] = {"tokens": len(ordinary), "flagged": len(rows), "tied": OUTPUT not in found, "worst": rows[:worst]}
    if counts is not None and seen is not None:
        checks = {name: _check(seen, ordinary, chosen, seen_below) for name, chosen in flagged.items()}
        report["check"] = {"seen_below": seen_below, "counted": {stage: int(count.sum()) for stage, count in counts.items()}, **checks}
    return report


def written(token: str) -> str:
    """A token of the byte alphabet as text, bytes that make no character as `\\xc1`."""
    return bytes(_byte_alphabet()[char] for char in token).decode("utf-8", "backslashreplace")


@lru_cache(maxsize=1)
def _byte_alphabet() -> dict[str, int]:
    """The byte behind each character of a byte-level vocabulary (GPT-2's: printable Latin-1 stands for itself, the rest follows)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _check(seen: np.ndarray, ordinary: np.ndarray, flagged: np.ndarray, seen_below: int) -> dict[str, float]:
    rare = seen[ordinary] < seen_below
    hits = int((seen[flagged] < seen_below).sum())
    return {
        "rare_flagged": hits,
        "precision": round(hits / max(1, len(flagged)), 4),
        "of_all_tokens": round(float(rare.mean()), 4),
        "recall": round(hits / max(1, int(rare.sum())), 4),
    }
