"""What a model must beat: compressors, a byte n-gram model, word frequencies and a translation memory.

All of them are real and cheap. The compressors read exactly the bytes the model is scored on; the others are fitted on a
sample of the training documents, whose size is reported beside their figures.
"""

from __future__ import annotations

import gzip
import lzma
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WORD = re.compile(r"[^\W\d_]+")
UNIFORM_BITS = 8.0

Bytes = npt.NDArray[np.uint8]
Keys = npt.NDArray[np.uint64]


def compressor_bits_per_byte(texts: Iterable[str]) -> dict[str, float]:
    """Bits per byte of `xz -9`, `xz -9e` and `gzip -9` on the texts joined into one file, file headers included."""
    data = "".join(texts).encode()
    sizes = {
        "xz -9": len(lzma.compress(data, preset=9)),
        "xz -9e": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
        "gzip -9": len(gzip.compress(data, 9, mtime=0)),
    }
    return {name: 8 * size / len(data) for name, size in sizes.items()}


@dataclass(frozen=True)
class _Order:
    """Counts of one order: sorted grams (byte in the low 8 bits, older bytes above) and their contexts."""

    grams: Keys
    counts: npt.NDArray[np.int64]
    contexts: Keys
    totals: npt.NDArray[np.int64]
    types: npt.NDArray[np.int64]


class ByteNgram:
    """Byte n-gram model with interpolated Witten-Bell smoothing (Witten and Bell 1991; Chen and Goodman 1998, section 2.6).

    p(b | h) = (c(hb) + t(h) p(b | h')) / (c(h) + t(h)), where h' drops h's oldest byte, t(h) is the number of different
    bytes seen after h, and the empty context falls back on 1/256. Each document starts from a context of NUL bytes.
    A gram is packed exactly into 64 bits, so `order` is at most 8 and there are no hash collisions.
    """

    def __init__(self, order: int = 6) -> None:
        if not 1 <= order <= 8:
            raise ValueError(f"order must be 1 to 8, not {order}")
        self.order = order
        self.train_bytes = 0
        self._orders: list[_Order] = []

    def fit(self, texts: Iterable[str]) -> ByteNgram:
        stream, real = self._pack(texts)
        self.train_bytes = int(real.sum())
        self._orders = []
        for keys in self._keys(stream):
            grams, counts = np.unique(keys[real], return_counts=True)
            contexts, starts = np.unique(grams >> np.uint64(8), return_index=True)
            totals = np.add.reduceat(counts, starts) if len(starts) else counts
            types = np.diff(np.append(starts, len(grams)))
            self._orders.append(_Order(grams, counts, contexts, totals, types))
        return self

    def bits(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Bits of each text (its code length under the model)."""
        stream, real = self._pack(texts)
        probability = np.full(int(real.sum()), 1 / 256)
        for keys, counted in zip(self._keys(stream), self._orders, strict=True):
            grams = keys[real]
            total, types = _find(counted.contexts, grams >> np.uint64(8), counted.totals, counted.types)
            (count,) = _find(counted.grams, grams, counted.counts)
            seen = total > 0
            probability[seen] = (count[seen] + types[seen] * probability[seen]) / (total[seen] + types[seen])
        ends = np.cumsum([0, *(len(text.encode()) for text in texts)])
        summed = np.concatenate(([0.0], np.cumsum(-np.log2(probability))))
        return summed[ends[1:]] - summed[ends[:-1]]

    def _pack(self, texts: Iterable[str]) -> tuple[Bytes, npt.NDArray[np.bool_]]:
        """All texts in one byte array, each after `order - 1` NUL bytes, and which positions are text."""
        pad = bytes(self.order - 1)
        encoded = [text.encode() for text in texts]
        stream = np.frombuffer(b"".join(pad + data for data in encoded), np.uint8)
        real = np.ones(len(stream), np.bool_)
        begin = 0
        for data in encoded:
            real[begin : begin + len(pad)] = False
            begin += len(pad) + len(data)
        return stream, real

    def _keys(self, stream: Bytes) -> Iterator[Keys]:
        """For each order the packed gram that ends at each position."""
        wide = stream.astype(np.uint64)
        keys = wide.copy()
        yield keys
        for size in range(2, self.order + 1):
            keys[size - 1 :] |= wide[: len(wide) - size + 1] << np.uint64(8 * (size - 1))
            yield keys


def _find(keys: Keys, wanted: Keys, *values: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """`values` at `wanted` in the sorted `keys`, 0 where it is missing."""
    if not len(keys):
        return [np.zeros(len(wanted), np.int64) for _ in values]
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = keys[places] == wanted
    return [np.where(found, value[places], 0) for value in values]


class WordFrequency:
    """Unigram word model with add-one smoothing: what minimal pairs look like to a model that only knows how common words are."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._denominator = math.log(sum(counts.values()) + len(counts) + 1)

    def log_probability(self, text: str) -> float:
        """Natural log-probability of the words of `text`, their order ignored."""
        return sum(math.log(self._counts[word] + 1) - self._denominator for word in WORD.findall(text))


class TranslationMemory:
    """Nearest neighbour among training pairs: the translation of the training segment that shares most words.

    Similarity is the Dice coefficient of the two word sets, words weighted by inverse document frequency; equal scores go to
    the earliest pair.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._pairs = pairs
        self._places: dict[str, list[int]] = defaultdict(list)
        words = [_word_set(source) for source, _ in pairs]
        for place, found in enumerate(words):
            for word in found:
                self._places[word].append(place)
        self._mass = [sum(self._weight(word) for word in found) for found in words]

    def translate(self, source: str) -> str:
        """The nearest pair's target side, empty where no word is shared."""
        shared: dict[int, float] = defaultdict(float)
        mass = 0.0
        for word in sorted(_word_set(source)):
            weight = self._weight(word)
            mass += weight
            for place in self._places.get(word, ()):
                shared[place] += weight
        if not shared:
            return ""
        best = max(shared, key=lambda place: (2 * shared[place] / (mass + self._mass[place]), -place))
        return self._pairs[best][1]

    def _weight(self, word: str) -> float:
        return math.log(1 + len(self._pairs) / (1 + len(self._places.get(word, ()))))


def _word_set(text: str) -> set[str]:
    return {word.lower() for word in WORD.findall(text)}
