"""A byte n-gram model with interpolated Witten-Bell smoothing (Witten and Bell 1991; Chen and Goodman 1998, section 2.6).

p(b | h) = (c(hb) + t(h) p(b | h')) / (c(h) + t(h)), where h' drops h's oldest byte, c(h) counts the bytes seen after h,
t(h) the different ones, and the empty context falls back on 1/256. Each document starts from a context of NUL bytes.

A gram is packed exactly into 64 bits, its newest byte highest, so `order` is at most 8 and there are no hash collisions.
The counts of the longest grams say everything: a shorter gram is a prefix of their keys, and they alone are stored. For
scoring the recursion is turned inside out (as KenLM does, Heafield 2011): each seen gram has its code length in bits, each
seen context the bits of backing off from it, so a byte costs one look-up where its longest gram is known.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.kernels.text import buffers

CHUNK_BYTES = 1 << 20
"""Least text counted at a time (some 30 bytes of memory for each of its bytes); as much as there are different grams, if more."""
UNIFORM_BITS = 8.0

Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Texts = Iterable[str] | pa.Array

_SLOT = np.dtype([("key", np.uint64), ("cost", np.float32), ("back", np.float32)])
_EMPTY, _CONTEXT = np.float32(-1), np.float32(-2)
"""A slot's `cost` when it is free, and when its key was seen as a context only (a run of NUL bytes)."""
_FIBONACCI = np.uint64(0x9E3779B97F4A7C15)
_BYTE = np.uint64(8)


class ByteNgram:
    """Fit on texts, then ask for their code length; `dump` and `load` keep a model as NumPy arrays."""

    def __init__(self, order: int = 6) -> None:
        if not 1 <= order <= 8:
            raise ValueError(f"order must be 1 to 8, not {order}")
        self.order = order
        self.train_texts = self.train_bytes = 0
        self._keys: Keys = np.zeros(0, np.uint64)
        self._counts: Counts = np.zeros(0, np.int64)
        self._tables: tuple[np.ndarray, np.ndarray, np.ndarray, float] | None = None

    def fit(self, texts: Texts) -> ByteNgram:
        """Count a corpus; memory grows with its different grams, not with its bytes. A second fit starts anew."""
        self._keys, self._counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self.train_texts = 0
        waiting: list[str] = []
        size = 0
        for text in _strings(texts):
            waiting.append(text)
            size += len(text)
            if size >= max(CHUNK_BYTES, len(self._keys)):
                self._count(waiting)
                waiting, size = [], 0
        self._count(waiting)
        self.train_bytes = int(self._counts.sum())
        self._tables = None
        return self

    def _count(self, texts: list[str]) -> None:
        offsets, data = buffers(_array(texts))
        keys = np.empty(int(offsets[-1] - offsets[0]), np.uint64)
        _grams(offsets, data, self.order, keys)
        found, counts = np.unique(keys, return_counts=True)
        self._keys, self._counts = _merge(self._keys, self._counts, found, counts)
        self.train_texts += len(texts)

    def bits(self, texts: Sequence[str] | pa.Array) -> npt.NDArray[np.float64]:
        """Bits of each text (its code length under the model), float64[n]."""
        if self._tables is None:
            self._tables = _tables(self._keys, self._counts, self.order)
        slots, starts, shifts, root = self._tables
        offsets, data = buffers(_array(texts))
        out = np.zeros(len(offsets) - 1)
        _score(offsets, data, slots, starts, shifts, self.order, root, out)
        return out

    def perplexity(self, texts: pa.Array) -> npt.NDArray[np.float64]:
        """Perplexity per byte, 2 to the power of bits per byte, float64[n]: 1 to 256 and more; NaN for empty texts."""
        offsets, _ = buffers(texts)
        sizes = np.diff(offsets).astype(np.float64)
        return np.exp2(np.divide(self.bits(texts), sizes, out=np.full(len(sizes), np.nan), where=sizes > 0))

    def dump(self) -> bytes:
        """The model as an .npz file: order, keys, counts. Equal models give equal bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, order=np.int64(self.order), keys=self._keys, counts=self._counts.astype(np.uint32))
        return buffer.getvalue()

    @classmethod
    def load(cls, data: bytes) -> ByteNgram:
        """The model that `dump` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            model = cls(int(arrays["order"]))
            model._keys, model._counts = arrays["keys"], arrays["counts"].astype(np.int64)
        model.train_bytes = int(model._counts.sum())
        return model


def _strings(texts: Any) -> Iterable[str]:
    return texts.to_pylist() if isinstance(texts, pa.Array) else texts


def _array(texts: Sequence[str] | pa.Array) -> pa.Array:
    return texts if isinstance(texts, pa.Array) else pa.array(list(texts), pa.large_string())


def _merge(keys: Keys, counts: Counts, more_keys: Keys, more_counts: Counts) -> tuple[Keys, Counts]:
    """Two sorted counts as one."""
    if not len(keys):
        return more_keys, more_counts.astype(np.int64)
    together = np.concatenate([keys, more_keys])
    order = np.argsort(together, kind="stable")
    return _sum_runs(together[order], np.concatenate([counts, more_counts])[order])


def _sum_runs(keys: Keys, counts: Counts) -> tuple[Keys, Counts]:
    """Sorted keys without repeats, the counts of equal ones added up."""
    if not len(keys):
        return keys, counts
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(counts, starts)


@numba.njit(cache=True)
def _grams(offsets, data, order, keys):
    """The packed gram that ends at each byte."""
    top, place = np.uint64(8 * (order - 1)), 0
    for n in range(len(offsets) - 1):
        key = np.uint64(0)
        for i in range(offsets[n], offsets[n + 1]):
            key = (key >> _BYTE) | (np.uint64(data[i]) << top)
            keys[place] = key
            place += 1


def _tables(keys: Keys, counts: Counts, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Hash tables of orders 1 to `order`, one after the other: slots, where each starts, how far its hashes are shifted;
    and the bits of backing off to the uniform distribution."""
    grams = [_sum_runs(keys >> np.uint64(8 * (order - size)), counts) for size in range(1, order + 1)]
    bits = [max(4, int(np.ceil(np.log2(1.5 * (len(found) + 1))))) for found, _ in grams]
    starts = np.concatenate([[0], np.cumsum([1 << size for size in bits])]).astype(np.int64)
    shifts = np.array([64 - size for size in bits], np.uint64)
    slots = np.zeros(starts[-1], _SLOT)
    slots["cost"] = _EMPTY
    total, kinds = float(counts.sum()), len(grams[0][0])
    root = -np.log2(kinds / (total + kinds)) if kinds else 0.0
    lower = np.zeros(0)
    for size, (found, seen) in enumerate(grams, start=1):
        here = slots[starts[size - 1] : starts[size]]
        if size == 1:
            probabilities = (seen + kinds / 256) / (total + kinds)
            lower = np.zeros(len(here))
            _insert(here, shifts[0], found, probabilities, lower)
            continue
        below = slots[starts[size - 2] : starts[size - 1]]
        lower = _add_order(below, shifts[size - 2], lower, here, shifts[size - 1], found, seen, np.uint64(8 * (size - 1)))
    return slots, starts, shifts, float(root)


@numba.njit(cache=True, inline="always")
def _place(slots, start, mask, shift, key):
    """Where `key` is in the table, or the free slot where it would go."""
    slot = np.int64((key * _FIBONACCI) >> shift)
    while slots[start + slot].cost != _EMPTY and slots[start + slot].key != key:
        slot = (slot + 1) & mask
    return start + slot


@numba.njit(cache=True)
def _insert(slots, shift, grams, probabilities, by_slot):
    """Enter grams with their code lengths; `by_slot` takes their exact probabilities."""
    mask = len(slots) - 1
    for n in range(len(grams)):
        slot = _place(slots, 0, mask, shift, grams[n])
        slots[slot].key = grams[n]
        slots[slot].cost = -np.log2(probabilities[n])
        by_slot[slot] = probabilities[n]


@numba.njit(cache=True)
def _add_order(below, below_shift, lower, here, shift, grams, counts, context_bits):
    """Enter the grams of one order, given the table of the order below and its exact probabilities by slot."""
    mask, width = len(below) - 1, (np.uint64(1) << context_bits) - np.uint64(1)
    totals, kinds = np.zeros(len(below), np.int64), np.zeros(len(below), np.int64)
    for n in range(len(grams)):
        context = grams[n] & width
        slot = _place(below, 0, mask, below_shift, context)
        if below[slot].cost == _EMPTY:
            below[slot].key, below[slot].cost = context, _CONTEXT
        totals[slot] += counts[n]
        kinds[slot] += 1
    for slot in range(len(below)):
        if totals[slot]:
            below[slot].back = -np.log2(kinds[slot] / (totals[slot] + kinds[slot]))
    probabilities, by_slot = np.empty(len(grams)), np.zeros(len(here))
    for n in range(len(grams)):
        slot = _place(below, 0, mask, below_shift, grams[n] & width)
        shorter = lower[_place(below, 0, mask, below_shift, grams[n] >> _BYTE)]
        probabilities[n] = (counts[n] + kinds[slot] * shorter) / (totals[slot] + kinds[slot])
    _insert(here, shift, grams, probabilities, by_slot)
    return by_slot


@numba.njit(cache=True)
def _score(offsets, data, slots, starts, shifts, order, root, out):
    top = np.uint64(8 * (order - 1))
    for n in range(len(offsets) - 1):
        key, total = np.uint64(0), 0.0
        for i in range(offsets[n], offsets[n + 1]):
            before = key
            key = (key >> _BYTE) | (np.uint64(data[i]) << top)
            for size in range(order, -1, -1):
                if size == 0:
                    total += root + UNIFORM_BITS
                    break
                start = starts[size - 1]
                slot = _place(slots, start, starts[size] - start - 1, shifts[size - 1], key >> np.uint64(8 * (order - size)))
                if slots[slot].cost >= 0:
                    total += slots[slot].cost
                    break
                if size > 1:
                    start = starts[size - 2]
                    context = before >> np.uint64(8 * (order - size + 1))
                    slot = _place(slots, start, starts[size - 1] - start - 1, shifts[size - 2], context)
                    total += slots[slot].back
        out[n] = total
