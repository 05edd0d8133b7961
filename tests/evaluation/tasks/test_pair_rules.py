from __future__ import annotations

from collections import Counter

import pytest

from evaluation.tasks.pair_rules import RULES, Lexicon, english_lexicon, french_lexicon, tokenise

FRENCH = Lexicon(words=Counter({"affiche": 4}), gender={"maison": "f", "four": "m", "arbre": "m"})
ENGLISH = Lexicon(singulars={"file", "package"})


def broken(lang: str, phenomenon: str, sentence: str, lexicon: Lexicon) -> list[str]:
    tokens = tokenise(sentence)
    assert "".join(tokens) == sentence
    forms = (RULES[lang][phenomenon](tokens, place, lexicon) for place in range(len(tokens)) if tokens[place][0].isalpha())
    return ["".join(form) for form in forms if form is not None]


@pytest.mark.parametrize(
    ("phenomenon", "sentence", "expected"),
    [
        ("determiner_gender", "La maison et un four.", ["Le maison et un four.", "La maison et une four."]),
        ("determiner_gender", "Il la maison et le voit.", ["Il le maison et le voit."]),
        ("determiner_gender", "Cette maison-là.", ["Ce maison-là."]),
        ("determiner_number", "La maison.", ["Les maison."]),
        ("determiner_number", "Les fours.", ["Le fours."]),
        ("determiner_number", "Les zut.", []),
        ("verb_number", "Le four est chaud.", ["Le four sont chaud."]),
        ("verb_number", "C'est chaud.", []),
        ("elision", "L'arbre n’est pas aujourd'hui.", ["Le arbre n’est pas aujourd'hui.", "L'arbre ne est pas aujourd'hui."]),
        ("verb_form", "Il faut pour être prêt.", ["Il faut pour est prêt."]),
        ("verb_form", "Cliquez pour afficher.", ["Cliquez pour affiche."]),
        ("verb_form", "Il vient pour hiver.", []),
        ("word_order", "Le pain chaud.", ["Le chaud pain."]),
    ],
)
def test_french(phenomenon: str, sentence: str, expected: list[str]) -> None:
    assert broken("fr", phenomenon, sentence, FRENCH) == expected


@pytest.mark.parametrize(
    ("phenomenon", "sentence", "expected"),
    [
        ("article", "An oven and a baker.", ["A oven and a baker.", "An oven and an baker."]),
        ("article", 'Plan A is a "test".', []),
        ("verb_number", "The bread is hot and they can have it.", ["The bread are hot and they can have it."]),
        ("demonstrative_number", "This file and those packages.", ["These file and those packages.", "This file and that packages."]),
        ("demonstrative_number", "This is it.", []),
        ("noun_number", "Open a file, not the file.", ["Open a files, not the file."]),
        ("verb_form", "It can be used to be.", ["It can is used to be.", "It can be used to is."]),
        ("word_order", "A warm warm bread.", ["A warm bread warm."]),
    ],
)
def test_english(phenomenon: str, sentence: str, expected: list[str]) -> None:
    assert broken("en", phenomenon, sentence, ENGLISH) == expected


def test_french_gender_needs_unambiguous_evidence() -> None:
    text = "un four, un four, le four; une maison et une maison; un livre, une livre, un livre; une fois. "
    text += "La tour, une tour, une tour, le tour."
    assert french_lexicon([text], Counter()).gender == {"four": "m", "maison": "f"}


def test_english_singulars_are_seen_both_ways() -> None:
    text = "a file, a file, a file; an apple, an apple, an apple; a new, a new, a new"
    lexicon = english_lexicon([text], Counter({"files": 3, "apples": 2, "news": 9}))
    assert lexicon.singulars == {"file", "new"}
