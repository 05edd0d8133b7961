"""Compiled loops over Arrow string buffers: counts for the quality rules, word shingles, MinHash signatures, Jaccard.

All take `large_string` buffers as they lie in memory: `offsets` int64[n + 1] and `data` uint8[bytes], valid UTF-8.
`buffers` gives both for an Arrow array. Numba compiles each once a machine and keeps the result beside this file.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numba
import numpy as np
import pyarrow as pa

SPACE, LETTER, WORD = 1, 2, 4
"""Bits of a character class: white space, letter, and letter, mark or digit (what words are made of)."""
TABLE_SIZE = 0x32000
"""Code points beyond (private use, unassigned) have no class."""

COUNTS = (
    "chars",
    "words",
    "symbol_words",
    "word_chars",
    "alphabetic_words",
    "lines",
    "bullet_lines",
    "ellipsis_lines",
    "hashes",
    "ellipses",
    "stop_words",
)
"""Columns of what `count_text` returns."""

_HASH_START, _HASH_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX_ONE, _MIX_TWO = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT, _HIGH = np.uint64(33), np.uint64(32)


def buffers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """`offsets` int64[n + 1] and `data` uint8 of a string array without nulls."""
    large = texts.cast(pa.large_string())
    _, offsets, data = large.buffers()
    ends = np.frombuffer(offsets, np.int64)[large.offset : large.offset + len(large) + 1]
    return ends, np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8)


@lru_cache(maxsize=1)
def character_classes() -> tuple[np.ndarray, np.ndarray]:
    """`classes` uint8[TABLE_SIZE] of the bits above and `lower` uint32[TABLE_SIZE], the simple lower case."""
    classes, lower = np.zeros(TABLE_SIZE, np.uint8), np.arange(TABLE_SIZE, dtype=np.uint32)
    for point in range(TABLE_SIZE):
        character = chr(point)
        category = unicodedata.category(character)[0]
        classes[point] = (SPACE if character.isspace() else 0) | (LETTER | WORD if category == "L" else WORD if category in "NM" else 0)
        if category == "L" and len(folded := character.lower()) == 1:
            lower[point] = ord(folded)
    return classes, lower


@numba.njit(cache=True, inline="always")
def _is_apostrophe(point):
    return point == 0x27 or point == 0x2019


@numba.njit(cache=True, inline="always")
def _is_bullet(point):
    """`-`, `*` and the bullets • ‣ ◦ ● ▪."""
    return point == 0x2D or point == 0x2A or point == 0x2022 or point == 0x2023 or point == 0x25E6 or point == 0x25CF or point == 0x25AA


@numba.njit(cache=True)
def _decode(data, start, end, points):
    """UTF-8 bytes to code points; returns how many."""
    count = 0
    i = start
    while i < end:
        byte = np.uint32(data[i])
        if byte < 0x80:
            point, size = byte, 1
        elif byte < 0xE0:
            point, size = byte & np.uint32(0x1F), 2
        elif byte < 0xF0:
            point, size = byte & np.uint32(0x0F), 3
        else:
            point, size = byte & np.uint32(0x07), 4
        for k in range(1, size):
            point = (point << np.uint32(6)) | np.uint32(data[i + k] & 0x3F)
        points[count] = point
        count += 1
        i += size
    return count


@numba.njit(cache=True)
def _hash_points(points, start, end, lower):
    """Hash of a word: case ignored, curly apostrophes straight."""
    value = _HASH_START
    for i in range(start, end):
        point = points[i]
        point = lower[point] if point < TABLE_SIZE else point
        value = (value ^ np.uint64(0x27 if point == 0x2019 else point)) * _HASH_PRIME
    return value


@numba.njit(cache=True)
def _count_token(points, start, end, classes, lower, stops, seen, elide, row):
    """Add one run of non-space characters to `row`: its outer punctuation is dropped, elided words are cut off."""
    while start < end and not (points[start] < TABLE_SIZE and classes[points[start]] & WORD):
        start += 1
    last = end
    while last > start and not (points[last - 1] < TABLE_SIZE and classes[points[last - 1]] & WORD):
        last -= 1
    if start == last:
        row[2] += 1
        return
    while start < last:
        cut = start
        letters = False
        while cut < last:
            point = points[cut]
            letters = letters or (point < TABLE_SIZE and (classes[point] & LETTER) != 0)
            cut += 1
            if elide and _is_apostrophe(point):
                break
        row[1] += 1
        row[3] += cut - start
        row[4] += letters
        value = _hash_points(points, start, cut, lower)
        for k in range(len(stops)):
            if stops[k] == value and not seen[k]:
                seen[k] = True
                row[10] += 1
        start = cut


@numba.njit(cache=True)
def _count_lines(points, count, classes, row):
    """Add the lines that are not blank to `row`, and how they begin and end."""
    blank, dots, ends = True, 0, False
    for i in range(count + 1):
        point = points[i] if i < count else np.uint32(10)
        if point == 10:
            row[5] += not blank
            row[7] += (not blank) and ends
            blank, dots, ends = True, 0, False
            continue
        if point < TABLE_SIZE and classes[point] & SPACE:
            dots = 0
            continue
        if blank:
            row[6] += _is_bullet(point)
            blank = False
        row[8] += point == 0x23
        dots = dots + 1 if point == 0x2E else 0
        ends = point == 0x2026 or dots >= 3
        row[9] += point == 0x2026 or (dots > 0 and dots % 3 == 0)


@numba.njit(cache=True)
def _count_text(offsets, data, classes, lower, stops, elide, out):
    longest = 1
    for n in range(len(offsets) - 1):
        longest = max(longest, offsets[n + 1] - offsets[n])
    points = np.empty(longest, np.uint32)
    seen = np.zeros(max(1, len(stops)), np.bool_)
    for n in range(len(offsets) - 1):
        count = _decode(data, offsets[n], offsets[n + 1], points)
        row = out[n]
        row[0] = count
        seen[:] = False
        start = 0
        for i in range(count + 1):
            if i == count or (points[i] < TABLE_SIZE and classes[points[i]] & SPACE):
                if i > start:
                    _count_token(points, start, i, classes, lower, stops, seen, elide, row)
                start = i + 1
        _count_lines(points, count, classes, row)


def count_text(texts: pa.Array, stop_words: tuple[str, ...] = (), elide: bool = False) -> dict[str, np.ndarray]:
    """The `COUNTS` of n texts, int64[n] each.

    A word is a run of non-space characters without its outer punctuation; a run of punctuation alone is a symbol word.
    `elide` ends a word after each apostrophe (French: `l'eau` is `l'` and `eau`). Lines exclude blank ones.
    `stop_words` counts how many different ones of the list occur, whatever their case.
    """
    classes, lower = character_classes()
    stops = np.zeros(len(stop_words), np.uint64)
    for k, word in enumerate(stop_words):
        points = np.array([ord(character) for character in word], np.uint32)
        stops[k] = _hash_points(points, 0, len(points), lower)
    offsets, data = buffers(texts)
    out = np.zeros((len(texts), len(COUNTS)), np.int64)
    _count_text(offsets, data, classes, lower, stops, elide, out)
    return {name: np.ascontiguousarray(out[:, column]) for column, name in enumerate(COUNTS)}


@numba.njit(cache=True, inline="always")
def mix(value):
    """MurmurHash3's 64-bit finaliser."""
    value = (value ^ (value >> _SHIFT)) * _MIX_ONE
    value = (value ^ (value >> _SHIFT)) * _MIX_TWO
    return value ^ (value >> _SHIFT)


@numba.njit(cache=True)
def _space_size(data, i, end):
    """Bytes of the white-space character at `i` (Unicode White_Space), 0 when there is none."""
    byte = data[i]
    if byte < 0x80:
        return 1 if byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31 else 0
    if byte == 0xC2 and i + 1 < end:
        return 2 if data[i + 1] == 0x85 or data[i + 1] == 0xA0 else 0
    if i + 2 < end:
        one, two = data[i + 1], data[i + 2]
        if byte == 0xE2 and one == 0x80 and (0x80 <= two <= 0x8A or two == 0xA8 or two == 0xA9 or two == 0xAF):
            return 3
        if (byte == 0xE2 and one == 0x81 and two == 0x9F) or (byte == 0xE3 and one == 0x80 and two == 0x80):
            return 3
        if byte == 0xE1 and one == 0x9A and two == 0x80:
            return 3
    return 0


@numba.njit(cache=True)
def _shingles(data, start, end, size, ring, out):
    """Hashes of all runs of `size` words into `out`, in text order; returns how many. Words are runs of non-space
    bytes, ASCII letters in lower case."""
    words, count = 0, 0
    value, inside = _HASH_START, False
    i = start
    while i <= end:
        step = _space_size(data, i, end) if i < end else 1
        if step == 0:
            byte = data[i]
            value = (value ^ np.uint64(byte + 32 if 65 <= byte <= 90 else byte)) * _HASH_PRIME
            inside = True
            step = 1
        elif inside:
            ring[words % size] = mix(value)
            words += 1
            if words >= size:
                shingle = _HASH_START
                for k in range(words - size, words):
                    shingle = mix(shingle ^ ring[k % size]) * _HASH_PRIME
                out[count] = shingle
                count += 1
            value, inside = _HASH_START, False
        i += step
    return count


@numba.njit(cache=True)
def _sign(offsets, data, size, multipliers, addends, out, signed):
    longest = 1
    for n in range(len(offsets) - 1):
        longest = max(longest, offsets[n + 1] - offsets[n])
    shingles = np.empty(longest // 2 + 2, np.uint64)
    ring = np.empty(size, np.uint64)
    lowest = np.empty(len(multipliers), np.uint64)
    for n in range(len(offsets) - 1):
        count = _shingles(data, offsets[n], offsets[n + 1], size, ring, shingles)
        signed[n] = count > 0
        lowest[:] = np.uint64(0xFFFFFFFF)
        for s in range(count):
            shingle = shingles[s]
            for k in range(len(multipliers)):
                value = (multipliers[k] * shingle + addends[k]) >> _HIGH
                lowest[k] = min(lowest[k], value)
        for k in range(len(multipliers)):
            out[n, k] = np.uint32(lowest[k])


def minhash(texts: pa.Array, shingle_words: int, permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """MinHash signatures uint32[n, permutations] of n texts, and bool[n]: whether the text has a whole shingle.

    A permutation is multiply-add-shift on 64-bit shingle hashes, high 32 bits kept (Dietzfelbinger et al. 1997).
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    multipliers = generator.integers(0, 2**64, permutations, np.uint64) | np.uint64(1)
    addends = generator.integers(0, 2**64, permutations, np.uint64)
    offsets, data = buffers(texts)
    out, signed = np.zeros((len(texts), permutations), np.uint32), np.zeros(len(texts), np.bool_)
    _sign(offsets, data, shingle_words, multipliers, addends, out, signed)
    return out, signed


@numba.njit(cache=True)
def _shingle_sets(offsets, data, size, ends):
    total = 1
    for n in range(len(offsets) - 1):
        total += (offsets[n + 1] - offsets[n]) // 2 + 2
    out = np.empty(total, np.uint64)
    ring = np.empty(size, np.uint64)
    position = 0
    for n in range(len(offsets) - 1):
        count = _shingles(data, offsets[n], offsets[n + 1], size, ring, out[position:])
        hashes = np.sort(out[position : position + count])
        for s in range(count):
            if s == 0 or hashes[s] != hashes[s - 1]:
                out[position] = hashes[s]
                position += 1
        ends[n + 1] = position
    return out[:position].copy()


def shingle_sets(texts: pa.Array, shingle_words: int) -> pa.LargeListArray:
    """The set of word-shingle hashes of each text: sorted, unique uint64 lists."""
    offsets, data = buffers(texts)
    ends = np.zeros(len(texts) + 1, np.int64)
    return pa.LargeListArray.from_arrays(pa.array(ends), pa.array(_shingle_sets(offsets, data, shingle_words, ends)))


@numba.njit(cache=True)
def jaccards(ends, hashes, ones, others):
    """Jaccard index of each pair of sets: `ones[i]` and `others[i]` number lists in `hashes[ends[k] : ends[k + 1]]`."""
    out = np.zeros(len(ones), np.float64)
    for n in range(len(ones)):
        i, i_end = ends[ones[n]], ends[ones[n] + 1]
        j, j_end = ends[others[n]], ends[others[n] + 1]
        total, shared = (i_end - i) + (j_end - j), 0
        while i < i_end and j < j_end:
            if hashes[i] == hashes[j]:
                shared += 1
                i += 1
                j += 1
            elif hashes[i] < hashes[j]:
                i += 1
            else:
                j += 1
        out[n] = shared / (total - shared) if total > shared else 0.0
    return out
