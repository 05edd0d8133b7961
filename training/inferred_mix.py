"""The mix that a tokenizer was fitted on, inferred back from its merges (Hayase et al. 2024, arXiv 2407.16607).

When merge t was chosen, no pair p was more frequent than its own pair m_t in the mix. With c_i,p,t the count of p in a sample
of stream i once the merges before t are applied, by byte of the sample, and shares a_i of the bytes,

    sum_i a_i c_i,m_t,t + v_t + u_p  >=  sum_i a_i c_i,p,t    for all t and p,      sum_i a_i = 1,      a, v, u >= 0

and the slacks v and u, summed, are as small as can be: a linear programme. Its constraints are added as they are found
violated, a few for each merge. As a self-check: shares far from those asked for mean that the tokenizer is not what the recipe says.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import WorkError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MERGES = 1_000
"""Merges that are looked at. Later ones add no more than noise: their counts are small."""
ROUNDS = 25
SETTLED = 1e-4
"""Change of a share between two rounds below which they end."""

Pair = tuple[int, int]


def infer_mix(tokenizer: Tokenizer, samples: Mapping[str, Iterable[str]], max_token_length: int, merges: int = MERGES) -> dict[str, Any]:
    """Shares of the streams in the bytes that `tokenizer` was fitted on, from a sample of each.

    `max_token_length` is the one of its fit: longer pairs were never candidates. Returns `shares`, `merges` (how many were
    looked at) and `bytes` of the samples.
    """
    content = json.loads(tokenizer.to_str())["model"]
    vocab = content["vocab"]
    rules = [(vocab[left], vocab[right], vocab[left + right]) for left, right in content["merges"][:merges]]
    lengths = {number: len(token) for token, number in vocab.items()}
    counts: dict[str, int] = {}
    replays = []
    for stream, texts in samples.items():
        words, counts[stream] = count_words(tokenizer, texts)
        replays.append(_replay({tuple(vocab[char] for char in word): n for word, n in words.items()}, rules, counts[stream]))
    history = _join(replays, rules, lengths, max_token_length)
    found = {stream: round(float(share), 4) for stream, share in zip(samples, _solve(history), strict=True)}
    return {"shares": found, "merges": len(rules), "bytes": counts}


def count_words(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[Counter[str], int]:
    """The pieces that the tokenizer never merges across, in its byte alphabet, with their counts; and the UTF-8 bytes read."""
    words: Counter[str] = Counter()
    size = 0
    cutter = tokenizer.pre_tokenizer
    assert cutter is not None
    for text in texts:
        size += len(text.encode())
        words.update(word for word, _ in cutter.pre_tokenize_str(text))
    return words, size


# --- counts of pairs before each merge ---


def _replay(words: Mapping[Sequence[int], int], rules: Sequence[tuple[int, int, int]], size: int) -> list[dict[Pair, float]]:
    """Counts of pairs by byte of one sample: at index 0 before any merge, at t > 0 what merge t - 1 changed."""
    texts, times = [list(word) for word in words], list(words.values())
    start: dict[Pair, float] = defaultdict(float)
    where: dict[Pair, set[int]] = defaultdict(set)
    for number, (word, n) in enumerate(zip(texts, times, strict=True)):
        for pair in pairwise(word):
            start[pair] += n / size
            where[pair].add(number)
    changes = [dict(start)]
    for left, right, made in rules:
        change: dict[Pair, float] = defaultdict(float)
        for number in where.pop((left, right), ()):
            old, n = texts[number], times[number] / size
            texts[number] = new = _merged(old, left, right, made)
            for pair in pairwise(old):
                change[pair] -= n
            for pair in pairwise(new):
                change[pair] += n
                where[pair].add(number)
        changes.append({pair: amount for pair, amount in change.items() if abs(amount) > 1e-15})
    return changes


def _merged(word: list[int], left: int, right: int, made: int) -> list[int]:
    new, place = [], 0
    while place < len(word):
        if word[place] == left and place + 1 < len(word) and word[place + 1] == right:
            new.append(made)
            place += 2
        else:
            new.append(word[place])
            place += 1
    return new


@dataclass(frozen=True)
class _History:
    """Counts of `pairs` pairs, [pair, stream], and how each merge changes them: rows and [row, stream] for each.

    `merged` is the row of each merge's own pair; `barred` tells which pairs are too long to be merged.
    """

    start: np.ndarray
    changes: list[tuple[np.ndarray, np.ndarray]]
    merged: np.ndarray
    barred: np.ndarray


def _join(replays: list[list[dict[Pair, float]]], rules: Sequence[tuple[int, int, int]], lengths: dict[int, int], longest: int) -> _History:
    rows: dict[Pair, int] = {}
    for left, right, _ in rules:
        rows.setdefault((left, right), len(rows))
    steps = []
    for parts in zip(*replays, strict=True):
        for part in parts:
            for pair in part:
                rows.setdefault(pair, len(rows))
        touched = sorted({rows[pair] for part in parts for pair in part})
        place = {row: number for number, row in enumerate(touched)}
        table = np.zeros((len(touched), len(replays)))
        for stream, part in enumerate(parts):
            for pair, amount in part.items():
                table[place[rows[pair]], stream] = amount
        steps.append((np.array(touched, np.int64), table))
    start = np.zeros((len(rows), len(replays)))
    start[steps[0][0]] = steps[0][1]
    barred = np.array([lengths[left] + lengths[right] > longest for left, right in rows])
    return _History(start, steps[1:], np.array([rows[left, right] for left, right, _ in rules], np.int64), barred)


# --- the linear programme ---


def _solve(history: _History) -> np.ndarray:
    """The shares, from even ones on: look for violated constraints, add them, solve, until they settle."""
    streams = history.start.shape[1]
    shares = np.full(streams, 1 / streams)
    known: dict[tuple[int, int], np.ndarray] = {}
    for _ in range(ROUNDS):
        known |= _violations(history, shares)
        if not known:
            break
        before, shares = shares, _minimise(known, streams)
        if np.abs(shares - before).max() < SETTLED:
            break
    return shares


def _violations(history: _History, shares: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """By merge and pair: by how much more of each stream the most frequent pair has where that is not the merge's own."""
    counts = history.start.copy()
    weighted = np.where(history.barred, -np.inf, counts @ shares)
    found = {}
    for step, (own, (rows, change)) in enumerate(zip(history.merged.tolist(), history.changes, strict=True)):
        rival = int(weighted.argmax())
        if weighted[rival] > weighted[own] * (1 + 1e-9):
            found[step, rival] = counts[rival] - counts[own]
        counts[rows] += change
        weighted[rows] = np.where(history.barred[rows], -np.inf, counts[rows] @ shares)
    return found


def _minimise(known: dict[tuple[int, int], np.ndarray], streams: int) -> np.ndarray:
    """The shares with the least slack over the constraints found so far."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, hstack

    excess = np.array(list(known.values()))
    _, steps = np.unique([step for step, _ in known], return_inverse=True)
    _, pairs = np.unique([pair for _, pair in known], return_inverse=True)
    ones, lines = -np.ones(len(known)), np.arange(len(known))
    slack = [coo_array((ones, (lines, places)), shape=(len(known), int(places.max()) + 1)) for places in (steps, pairs)]
    scale = np.abs(excess).max()
    table = hstack([coo_array(excess / scale), *slack])
    width = streams + int(steps.max()) + 1 + int(pairs.max()) + 1
    solved = linprog(
        np.concatenate([np.zeros(streams), np.ones(width - streams)]),
        A_ub=table,
        b_ub=np.zeros(len(known)),
        A_eq=coo_array((np.ones(streams), (np.zeros(streams, int), np.arange(streams))), shape=(1, width)),
        b_eq=[1.0],
        method="highs",
    )
    if not solved.success:
        raise WorkError(f"the linear programme for the shares of the mix was not solved ({solved.message})")
    return solved.x[:streams]
