from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.document import normalise, render
from pipelines.sources.segments import parallel_text


def test_pairs_that_teach_nothing_are_left_out() -> None:
    pairs = [("Un  texte\n", "A text"), ("même", "même"), ("", "x"), ("42", "43"), ("a ||| b", "c"), ("Un texte", "A text")]
    assert parallel_text(pairs) == ("Un texte", "A text")


@given(st.lists(st.tuples(st.text(), st.text())))
def test_sides_always_have_as_many_lines(pairs: list[tuple[str, str]]) -> None:
    text, translation = parallel_text(pairs)
    assert normalise(text) == text
    assert normalise(translation) == translation
    if text:
        assert len(render(text, translation)) == 2
