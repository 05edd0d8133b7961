"""Public tokenizers count as their own libraries do; premiums are ratios of sums."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus import code, prose
from training import fertility

TEXTS = [prose("fr", 1), prose("en", 2), code(3), "L’été — 42 % à 3,5 °C ; 東京 🥐\n\n\tfin "]


def test_public_tokenizers_count_as_their_own_package_does() -> None:
    mistral = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer

    data = Path(mistral.__file__).parents[2] / "data"
    found = {one.name: one for one in fertility.public_tokenizers(1_000)}
    assert list(found) == ["mistral-v1", "tekken-240911", "tekken-240911, first 1,000 tokens"]
    assert [one.vocab_size for one in found.values()] == [32_000, 130_072, 1_000]
    theirs = {
        "mistral-v1": SentencePieceTokenizer(str(data / fertility.SENTENCEPIECE)),
        "tekken-240911": mistral.Tekkenizer.from_file(data / fertility.TEKKEN),
    }
    for name, peer in theirs.items():
        assert [found[name].count(text) for text in TEXTS] == [len(peer.encode(text, bos=False, eos=False)) for text in TEXTS]
    assert all(found["tekken-240911"].count(text) < found["tekken-240911, first 1,000 tokens"].count(text) for text in TEXTS)


def test_no_package_no_public_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fertility.util, "find_spec", lambda _: None)
    assert fertility.public_tokenizers(1_000) == []


def test_english_is_what_others_are_compared_with() -> None:
    row = {"lang": "en", "translation_lang": "fr", "text": "the bread", "translation": "le pain"}
    assert fertility._sides(row) == {"fr/en:en": "the bread", "fr/en:fr": "le pain"}
    other = {"lang": "fr", "translation_lang": "de", "text": "le pain", "translation": "das Brot"}
    assert set(fertility._sides(other)) == {"de/fr:fr", "de/fr:de"}
    assert fertility._sides({**row, "translation": None}) == {}


def test_a_premium_is_sums_by_sums() -> None:
    sides = {"fr/en:fr": {"bytes": 30, "x": 9}, "fr/en:en": {"bytes": 20, "x": 6}, "de/fr:de": {"bytes": 5}}
    assert fertility._premiums(sides, "bytes") == {"fr/en": 1.5}
    assert fertility._premiums(sides, "x") == {"fr/en": 1.5}
    assert fertility._premiums({}, "x") == {}
