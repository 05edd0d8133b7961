from __future__ import annotations

import math
from pathlib import Path

import pytest

from evaluation.stats import wilson_interval
from evaluation.tasks.minimal_pairs import RULES, evaluate, prepare, sentences
from tests.evaluation.reference import TransformersEngine, ignore, model_of

FRENCH = ["une maison et un four, la maison, le four, une maison puis un four. Ouvrez la porte pour affiche affiche."]
HELDOUT = [
    ("d1", "Le boulanger de la maison est dans la cour. Il faut un four pour afficher le prix du pain."),
    ("d2", "La maison de l'arbre est sur la route du four.\nCliquez sur la maison pour afficher les prix de la semaine."),
    ("d3", "Les fours de la boulangerie sont dans la maison de la meunière."),
]


def test_sentences_are_prose_of_the_language() -> None:
    text = "Le pain est dans le four de la maison.\nthe bread is in the oven.\nUne liste [1] de liens = rien du tout.\n"
    text += "The bread is in the oven of the house. « Il est dans la cour », dit-elle."
    assert list(sentences(text, "fr")) == ["Le pain est dans le four de la maison."]
    assert list(sentences(text, "en")) == ["The bread is in the oven of the house."]


def test_items_are_spread_and_always_the_same() -> None:
    items = prepare("fr", FRENCH, HELDOUT, 5)
    assert items == prepare("fr", FRENCH, list(reversed(HELDOUT)), 5)
    rows = items.to_pylist()
    assert len(rows) == 5
    assert len({row["good"] for row in rows}) == 5
    assert len({row["phenomenon"] for row in rows}) >= 4
    assert all(row["good"] != row["bad"] and row["phenomenon"] in RULES["fr"] for row in rows)
    assert all(row["good"] in dict(HELDOUT)[row["document"]] for row in rows)


def test_sentences_seen_in_training_are_left_out() -> None:
    seen = "Le boulanger de la maison est dans la cour."
    with_it = prepare("fr", [*FRENCH, seen], HELDOUT, 50)["good"].to_pylist()
    assert seen in prepare("fr", FRENCH, HELDOUT, 50)["good"].to_pylist()
    assert seen not in with_it
    assert with_it


def test_accuracy_by_log_likelihood(tiny_model: Path) -> None:
    engine = TransformersEngine(tiny_model)
    model = model_of(engine, tiny_model)
    items = prepare("fr", FRENCH, HELDOUT, 5)
    (result,), table = evaluate(model, items, ignore)
    right = 0
    for row in table.to_pylist():
        totals = {}
        for side in ("good", "bad"):
            sequence = [0, *model.encode(row[side])]
            totals[side] = -engine.loss(sequence) * (len(sequence) - 1)
            assert row[f"logprob_{side}"] == pytest.approx(totals[side], rel=1e-5)
        right += totals["good"] > totals["bad"]
    assert result.value == pytest.approx(right / 5)
    assert result.interval95 == wilson_interval(right, 5)
    assert (result.subset, result.n, result.chance) == ("fr", 5, 0.5)
    phenomena = result.details["phenomena"]
    assert sum(entry["n"] for entry in phenomena.values()) == 5
    assert math.isclose(sum(entry["accuracy"] * entry["n"] for entry in phenomena.values()), right)


def test_unigram_calls_swapped_words_a_draw() -> None:
    rows = [row for row in prepare("fr", FRENCH, HELDOUT, 50).to_pylist() if row["phenomenon"] == "word_order"]
    assert rows
    assert all(row["unigram_good"] == pytest.approx(row["unigram_bad"]) for row in rows)
