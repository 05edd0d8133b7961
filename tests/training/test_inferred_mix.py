"""The mix of a fit on made text, from its merges and from other documents of the same streams."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest

from tests.corpus import code, prose
from training.inferred_mix import _merged, _replay, count_words, infer_mix
from training.tokenizer import MAX_TOKEN_LENGTH, fit

KINDS = {"fr": lambda seed: prose("fr", seed), "en": lambda seed: prose("en", seed), "code": code}


def texts(stream: str, size: float, seed: int) -> list[str]:
    """Documents of about `size` bytes in all."""
    made: list[str] = []
    while size > 0:
        made.append(KINDS[stream](seed + len(made)))
        size -= len(made[-1].encode())
    return made


@pytest.mark.parametrize("shares", [(0.6, 0.3, 0.1), (0.15, 0.65, 0.2), (0.34, 0.33, 0.33)])
def test_shares_come_back_from_other_documents_of_the_same_streams(shares: tuple[float, ...]) -> None:
    drawn = {stream: texts(stream, 300_000 * share, seed=0) for stream, share in zip(KINDS, shares, strict=True)}
    tokenizer = fit((text for stream in drawn.values() for text in stream), 700)
    samples = {stream: texts(stream, 100_000, seed=50_000) for stream in KINDS}
    found = infer_mix(tokenizer, samples, MAX_TOKEN_LENGTH)
    total = sum(len(text.encode()) for stream in drawn.values() for text in stream)
    for stream, made in drawn.items():
        assert found["shares"][stream] == pytest.approx(sum(len(text.encode()) for text in made) / total, abs=0.04)
    assert sum(found["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert found["merges"] == len(json.loads(tokenizer.to_str())["model"]["merges"])


def test_a_stream_that_was_not_in_the_fit_has_no_share() -> None:
    tokenizer = fit(iter(texts("en", 100_000, seed=0)), 600)
    samples = {stream: texts(stream, 50_000, seed=90_000) for stream in ("fr", "en")}
    assert infer_mix(tokenizer, samples, MAX_TOKEN_LENGTH)["shares"] == pytest.approx({"fr": 0, "en": 1}, abs=0.03)


def test_counts_before_each_merge_are_those_of_the_merged_words() -> None:
    words = {(1, 2, 1, 2, 3): 4, (2, 1, 2): 3, (1, 1, 1): 2}
    rules = [(1, 2, 9), (9, 9, 10), (1, 1, 11)]
    changes = _replay(words, rules, size=2)
    counts: Counter[tuple[int, int]] = Counter()
    texts = {word: list(word) for word in words}
    for change, rule in zip(changes, [*rules, None], strict=True):
        counts.update(change)
        expected: Counter[tuple[int, int]] = Counter()
        for word, n in words.items():
            for pair in pairwise(texts[word]):
                expected[pair] += n / 2
        assert {pair: n for pair, n in counts.items() if n} == pytest.approx(dict(expected))
        if rule:
            texts = {word: _merged(text, *rule) for word, text in texts.items()}
    assert texts == {(1, 2, 1, 2, 3): [10, 3], (2, 1, 2): [2, 9], (1, 1, 1): [11, 1]}


def test_words_are_the_pieces_of_the_pattern() -> None:
    tokenizer = fit(iter(["a b"] * 3), 300)
    assert count_words(tokenizer, ["le pain, le pain"]) == (Counter({"le": 1, "Ġpain": 2, ",": 1, "Ġle": 1}), 16)
