from __future__ import annotations

import pytest

from pipelines.sources.articles import choose_headword, gcide_article, pango_article, unwrap_lines, wordnet_article

GCIDE = """Bread \\Bread\\ (br[e^]d), n. [AS. bre['a]d; akin to
   G. brod. See {Brew}.]
   1. An article of food made from flour or meal by moistening,
      kneading, and {bak*ing}.
      [1913 Webster]

            Give us this day our daily bread.     --Matt. vi. 11.
      [1913 Webster +PJC]

   Note: Raised bread is made with yeast; cr[^e]pes are not. [Obs.]
         [1913 Webster]
"""
WORDNET = """pigeonhole
    n 1: a small compartment [syn: {pigeonhole}, {cubby-
         hole}]
    2: a category; "in {quotes}"
    v 1: put into a category [ant: {mix}]
"""


def test_gcide_article_without_its_notation() -> None:
    assert gcide_article(GCIDE, ("bread",)) == (
        "Bread",
        "Bread, n.\n1. An article of food made from flour or meal by moistening, kneading, and baking.\n"
        "Give us this day our daily bread. — Matt. vi. 11.\nNote: Raised bread is made with yeast; crêpes are not. [Obs.]",
    )


def test_gcide_article_that_says_nothing() -> None:
    assert gcide_article("Nil \\Nil\\, n.\n   [1913 Webster]\n", ("nil",)) == ("Nil", "")
    assert gcide_article("", ("nil",)) == ("nil", "")


def test_wordnet_article_in_words() -> None:
    assert wordnet_article(WORDNET, ("pigeonhole",)) == (
        "pigeonhole",
        'pigeonhole (noun)\n1. a small compartment. Synonym: cubby-hole.\n2. a category; "in quotes".\n(verb)\n'
        "1. put into a category. Antonym: mix.",
    )


def test_littre_article_keeps_senses_and_drops_sections() -> None:
    article = (
        "<i><small>(pin) s. m.</small></i>\n\n<b>1°</b> Aliment. \n"
        '<span foreground="#0000CD">Le pain blanc</span>, <span foreground="#B22222">MOL.</span>, '
        '<span foreground="#556B2F">Av. I.</span>.\n\n'
        "<b><big>REMARQUE</big></b>\n\n    On dit &lt;mie&gt;.\n\n<b><big>HISTORIQUE</big></b>\n\n    XIe s. pan\n"
    )
    headword, text = pango_article(article, ("PAIN.1", "PAIN"), ("HISTORIQUE",))
    assert headword == "pain"
    assert text.split("\n")[:3] == ["pain, s. m.", "1° Aliment.", "Le pain blanc, MOL., Av. I."]
    assert text.endswith("REMARQUE\n\n\nOn dit <mie>.")


@pytest.mark.parametrize(
    ("headwords", "sound", "expected"),
    [
        (("ECOLE", "ÉCOLE"), "é-ko-l'", "école"),
        (("-", "CANCEL", "CHANCEL"), "chan-sèl", "chancel"),
        (("BOUCHETON", "À BOUCHETON"), "a-bou-che-ton", "à boucheton"),
        (("Newton",), "", "Newton"),
        (("A.2",), "", "a"),
    ],
)
def test_headword_of_an_article(headwords: tuple[str, ...], sound: str, expected: str) -> None:
    assert choose_headword(headwords, sound) == expected


def test_lines_broken_at_a_column_are_joined() -> None:
    long = "   A line that was broken because the next word had no room on"
    assert unwrap_lines([long, "   it, and one", "   that was not.", "", "   Last."]) == [
        f"{long.strip()} it, and one",
        "that was not.",
        "Last.",
    ]
