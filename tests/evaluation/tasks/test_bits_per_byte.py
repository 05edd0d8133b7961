from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.metrics import bits_per_byte as lm_eval_bits_per_byte
from lm_eval.utils import get_rolling_token_windows

from evaluation.sample import Sampled
from evaluation.tasks.bits_per_byte import cut, document_bits, evaluate, heldout_texts, training_text, windows
from tests.evaluation.reference import TransformersEngine, ignore, model_of

TEXTS = ["Le pain est prêt.", "The bread is ready, and the oven is hot. " * 5, "é"]


@given(st.lists(st.integers(0, 99), max_size=50), st.integers(2, 20))
def test_windows_score_each_token_once_as_lm_eval_does(tokens: list[int], length: int) -> None:
    ours = [(piece[:-1], piece[-scored:]) for piece, scored in windows([7, *tokens], length)]
    assert ours == list(get_rolling_token_windows(tokens, prefix_token=7, max_seq_len=length - 1, context_len=1))
    assert [token for _, scored in ours for token in scored] == tokens


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    return TransformersEngine(tiny_model)


def test_bits_are_the_loss_of_transformers(engine: TransformersEngine, tiny_model: Path) -> None:
    """One window holds each of these documents, so its bits are transformers' mean loss times its tokens."""
    model = model_of(engine, tiny_model, window=255)
    bits, tokens = document_bits(model, TEXTS, ignore)
    assert tokens == [len(text.encode()) for text in TEXTS]  # the tiny tokenizer is bytes
    for text, found in zip(TEXTS, bits, strict=True):
        sequence = [0, *model.encode(text)]
        assert found == pytest.approx(engine.loss(sequence) * (len(sequence) - 1) / math.log(2), rel=1e-5)


def test_value_is_lm_evals_formula(engine: TransformersEngine, tiny_model: Path) -> None:
    model = model_of(engine, tiny_model, window=32)
    documents = heldout_texts([Sampled(f"{n:x}", "livre", "p", "fr", text, None, 1) for n, text in enumerate(TEXTS)], "fr", 10_000)
    moved: list[float] = []
    (result,), table = evaluate(model, documents, {"fr": {"values": {"xz -9": 9.0}, "fitted": {}}}, 1, moved.append)
    pairs = []
    for text in TEXTS:
        tokens = model.encode(text)
        pieces = list(get_rolling_token_windows(tokens, 0, 31, 1))
        logprobs = engine.token_logprobs([[*context, scored[-1]] for context, scored in pieces])
        summed = sum(sum(values[-len(scored) :]) for values, (_, scored) in zip(logprobs, pieces, strict=True))
        pairs.append((summed, len(text.encode())))
    assert result.value == pytest.approx(lm_eval_bits_per_byte(pairs), rel=1e-6)
    assert (result.n, result.chance, result.baselines, result.higher_is_better) == (3, 8.0, {"xz -9": 9.0}, False)
    assert result.interval95 is not None
    assert result.interval95[0] <= result.value <= result.interval95[1]
    assert sum(moved) == pytest.approx(3)
    assert table["bytes"].to_pylist() == [len(text.encode()) for text in TEXTS]


def test_texts_stop_at_the_wanted_bytes_between_characters() -> None:
    documents = [Sampled(f"{n:x}", "livre", "p", "fr", "été " * 4, None, 24) for n in range(3)]
    table = heldout_texts(documents, "fr", 30)
    assert table["text"].to_pylist() == ["été " * 4, "été "]
    assert table["bytes"].to_pylist() == [24, 6]
    assert cut("é", 1) == ""


def test_one_direction_of_a_parallel_document() -> None:
    one = Sampled("a0", "pages", "p", "fr", "Le pain\nLe four", "The bread\nThe oven", 1)
    other = Sampled("a1", "pages", "p", "fr", "Le pain\nLe four", "The bread\nThe oven", 1)
    assert training_text(one) == "Le pain ||| The bread\nLe four ||| The oven"
    assert training_text(other) == "The bread ||| Le pain\nThe oven ||| Le four"
