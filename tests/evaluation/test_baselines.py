from __future__ import annotations

import gzip
import lzma
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.baselines import ByteNgram, TranslationMemory, WordFrequency, compressor_bits_per_byte


def test_compressors_read_exactly_the_bytes() -> None:
    texts = ["Le pain est prêt. " * 30, "The bread is ready. " * 30]
    data = "".join(texts).encode()
    found = compressor_bits_per_byte(texts)
    assert found["xz -9"] == 8 * len(lzma.compress(data, format=lzma.FORMAT_XZ, preset=9)) / len(data)
    assert found["gzip -9"] == 8 * len(gzip.compress(data, compresslevel=9, mtime=0)) / len(data)
    assert set(found) == {"xz -9", "xz -9e", "gzip -9"}


def test_bigram_by_hand() -> None:
    """Trained on "abab": a a b b; unigrams a 2, b 2, 2 types; after NUL a, after a b b, after b a."""
    model = ByteNgram(2).fit(["abab"])
    uniform = 1 / 256
    a = (2 + 2 * uniform) / (4 + 2)
    first = (1 + 1 * a) / (1 + 1)
    b_after_a = (2 + 1 * a) / (2 + 1)
    c = (0 + 2 * uniform) / (4 + 2)
    c_after_b = (0 + 1 * c) / (1 + 1)
    assert model.train_bytes == 4
    assert model.bits(["ab", "abc"]) == pytest.approx([-math.log2(first * b_after_a), -math.log2(first * b_after_a * c_after_b)])


def witten_bell(train: list[str], history: bytes, symbol: int, order: int) -> Fraction:
    """The recursion written down literally, from a list of (history, symbol) events."""
    if order == 0:
        return Fraction(1, 256)
    followers: Counter[int] = Counter()
    context = history[len(history) - (order - 1) :]
    for text in train:
        data = bytes(7) + text.encode()
        for place in range(7, len(data)):
            if data[place - (order - 1) : place] == context:
                followers[data[place]] += 1
    total, types = sum(followers.values()), len(followers)
    lower = witten_bell(train, history, symbol, order - 1)
    return lower if total == 0 else (followers[symbol] + types * lower) / Fraction(total + types)


@given(st.lists(st.text("abé", max_size=12), min_size=1, max_size=4), st.text("abéz", max_size=6), st.integers(1, 8))
def test_ngram_agrees_with_the_literal_recursion(train: list[str], text: str, order: int) -> None:
    data = bytes(7) + text.encode()
    expected = sum(-math.log2(witten_bell(train, data[:place], data[place], order)) for place in range(7, len(data)))
    assert ByteNgram(order).fit(train).bits([text])[0] == pytest.approx(expected)


def test_untrained_ngram_is_uniform_and_training_helps() -> None:
    text = "Le pain est prêt."
    size = len(text.encode())
    assert ByteNgram(6).fit([]).bits([text])[0] == pytest.approx(8 * size)
    assert ByteNgram(6).fit([text] * 5).bits([text])[0] < size
    assert np.array_equal(ByteNgram(3).fit(["ab"]).bits([]), np.zeros(0))


def test_probabilities_sum_to_one() -> None:
    model = ByteNgram(4).fit(["banana bandana", "cabane"])
    history = "ban"
    base = model.bits([history])[0]
    total = sum(2 ** -(model.bits([history + chr(code)])[0] - base) for code in range(128))
    assert 1 - 128 / 256 < total < 1  # the other 128 byte values are no text on their own
    assert total == pytest.approx(1 - 128 * 2 ** -(unseen_bits(model, history) - base))


def unseen_bits(model: ByteNgram, history: str) -> float:
    """Bits of `history` and a byte that training text never held (all such bytes are equally likely)."""
    return float(model.bits([history + "~"])[0])


@pytest.mark.parametrize("order", [0, 9])
def test_order_out_of_range(order: int) -> None:
    with pytest.raises(ValueError, match="order"):
        ByteNgram(order)


def test_word_frequency_by_hand() -> None:
    model = WordFrequency(Counter({"le": 3, "la": 1}))
    assert model.log_probability("Le le pain") == pytest.approx(math.log(1 / 7) + math.log(4 / 7) + math.log(1 / 7))
    assert model.log_probability("le four") > model.log_probability("la four")


def test_translation_memory_finds_the_nearest_pair() -> None:
    pairs = [("le pain est chaud", "the bread is hot"), ("le four est froid", "the oven is cold"), ("un croissant", "a croissant")]
    memory = TranslationMemory(pairs)
    assert memory.translate("le four est chaud et froid") == "the oven is cold"
    assert memory.translate("Un croissant !") == "a croissant"
    assert memory.translate("zut") == ""
    assert TranslationMemory([]).translate("le pain") == ""
