from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.errors import WorkError
from pipelines import instructions
from pipelines.config import InstructionsConfig
from pipelines.document import DOCUMENT
from pipelines.instructions import Example, balanced, examples_of, translated_faq
from tests.clean_corpus import bilingual, document, write_clean
from tests.corpus import sentences

FAQ = {
    "fr": [{"question": "Comment faire lever la pâte ?", "answer": "Il faut la laisser deux heures près du four."}],
    "en": [{"question": "How do I make the dough rise?", "answer": "Leave it for two hours near the oven."}],
}


def entry(lang: str, number: int) -> dict[str, Any]:
    word = f"{'mot' if lang == 'fr' else 'word'}{number}"
    body = "Chose que l'on range au fournil avec le numéro" if lang == "fr" else "A thing kept in the bakehouse under number"
    return document(f"dictionary-{lang}", lang, f"{word}, n.\n{body} {number}.", kind="definition", headword=word)


def faq_page(lang: str, page: str, number: int = 0) -> dict[str, Any]:
    pairs = [{side: f"{text} ({number})" for side, text in pair.items()} for pair in FAQ[lang]]
    return document(f"faq-{lang}", lang, "\n".join(pairs[0].values()), page=page, kind="faq", pairs=pairs)


def description(lang: str, number: int) -> dict[str, Any]:
    short = f"outil de pesée numéro {number}" if lang == "fr" else f"weighing tool number {number}"
    body = (
        "Ce logiciel pèse la farine et le beurre sans jamais se tromper."
        if lang == "fr"
        else "This software weighs flour and butter, always."
    )
    return document(f"packages-{lang}", lang, f"{short}\n{body} {number}", kind="description", package=f"balance{number}", short=short)


def page(lang: str, title: str, text: str) -> dict[str, Any]:
    return document(f"help-{lang}", lang, f"{title}\n\n{text}", kind="page", title=title)


def corpus(count: int, start: int = 0) -> list[dict[str, Any]]:
    numbers = range(start, start + count)
    rows = [make(lang, number) for make in (entry, description) for lang in ("fr", "en") for number in numbers]
    rows += [faq_page(lang, f"faq{number}", number) for lang in ("fr", "en") for number in numbers]
    return rows + bilingual(count, seed=start)


def made(row: dict[str, Any]) -> list[Example]:
    return list(examples_of(row, json.loads(row["meta"]), 1))


def read(context: Any, split: str) -> list[dict[str, Any]]:
    rows = context.out.read_table(f"{split}.parquet").to_pylist()
    return [{**row, "messages": json.loads(row["messages"])} for row in rows]


def test_definition_drops_quotations_and_appendices():
    senses = "1° Aliment fait de farine pétrie.\nIl vit de pain, DUPONT, Contes, 3.\n\n2° Nourriture en général."
    text = f"pain, s. m.\n{senses}\n\nREMARQUE\nOn écrit pain."
    (example,) = made(document("littre", "fr", text, kind="definition", headword="pain, e"))
    assert example.turns[0][1] == "pain, s. m.\n1° Aliment fait de farine pétrie.\n2° Nourriture en général."
    assert "pain" in example.turns[0][0]
    assert "pain, e" not in example.turns[0][0]


def test_long_definitions_end_at_a_whole_line():
    text = "bread, n.\n" + "\n".join(f"{n}. " + "a kind of food made of flour " * 5 for n in range(1, 20))
    (example,) = made(document("dict", "en", text, kind="definition", headword="bread"))
    lines = example.turns[0][1].split("\n")
    assert 1 < len(lines) < 10
    assert set(lines) <= set(text.split("\n"))


def test_summary_and_page():
    (example,) = made(description("fr", 3))
    asked, answer = example.turns[0]
    assert answer == "outil de pesée numéro 3"
    assert "Ce logiciel pèse la farine" in asked
    assert answer not in asked
    (example,) = made(page("en", "Chapter 2. Feeding the leaven", "Add as much flour as water, then wait."))
    assert "Feeding the leaven" in example.turns[0][0]
    assert "Chapter" not in example.turns[0][0]
    assert made(page("en", "General", "Too vague a title for this text.")) == []


def test_translations_go_both_ways_and_are_bounded_by_page():
    tasks: Counter[tuple[str, str]] = Counter()
    for number in range(40):
        pairs = sentences(9, number)
        row = document("pages", "fr", "\n".join(p["fr"] for p in pairs), "\n".join(p["en"] for p in pairs), page=f"p{number}")
        found = made(row)
        assert Counter(example.task for example in found) == {"translate": 4, "composed_translate": 1}
        for example in found:
            tasks[example.task, example.lang] += 1
            source = "en" if example.lang == "fr" else "fr"
            given_pairs = {pair[source]: pair[example.lang] for pair in pairs}
            for asked, answer in example.turns:
                assert any(one in asked and other == answer for one, other in given_pairs.items())
    assert all(tasks[task, lang] >= 10 for task in ("translate", "composed_translate") for lang in ("fr", "en"))


def test_segments_that_cannot_be_translations_are_left_out():
    fr = ["Fichier", "Le four doit être très chaud avant d'y mettre le pain.", "Une phrase assez longue pour compter vraiment."]
    en = ["File", "Hot ovens first please.", "Une phrase assez longue pour compter vraiment."]
    assert made(document("pages", "fr", "\n".join(fr), "\n".join(en))) == []


def test_other_languages_and_code_give_nothing():
    assert made({**entry("fr", 1), "lang": "de"}) == []
    assert made(document("code", "code", "def f(): pass", kind="code", path="f.py")) == []


def test_translated_faq_joins_equal_pages_only():
    found = list(translated_faq(FAQ, 1))
    assert [example.lang for example in found] == ["en", "fr"]
    first = found[0].messages()
    assert [message["role"] for message in first] == ["user", "assistant", "user", "assistant"]
    assert first[0]["content"] == FAQ["fr"][0]["question"]
    assert "anglais" in first[2]["content"]
    assert first[3]["content"] == FAQ["en"][0]["answer"]
    assert list(translated_faq({"fr": FAQ["fr"]}, 1)) == []
    assert list(translated_faq({"fr": FAQ["fr"], "en": FAQ["en"] * 2}, 1)) == []


@pytest.mark.usefixtures("ray_session")
def test_splits_tasks_and_languages(storage, stage_context):
    clean = write_clean(storage, corpus(30), corpus(6, start=500))
    context = stage_context("instructions", InstructionsConfig(max_examples={"define": 20}), clean=clean)
    metrics = instructions.run(context)
    train, heldout = read(context, "train"), read(context, "heldout")
    assert metrics["train"]["examples"] == len(train)
    assert {row["task"] for row in train} == {"faq", "translate", "define", "summarise", "composed_faq", "composed_translate"}
    assert Counter(row["lang"] for row in train)["fr"] * 2 == len(train)
    assert sum(row["task"] == "define" for row in train) <= 20
    assert not {row["id"] for row in train} & {row["id"] for row in heldout}
    words = {row["messages"][1]["content"].split(",")[0] for row in heldout if row["task"] == "define"}
    assert words <= {f"{word}{number}" for word in ("mot", "word") for number in range(500, 506)}
    assert words
    for row in train + heldout:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
        assert all(message["content"].strip() for message in row["messages"])
    assert {name.split("/")[0] for name in context.out.names()} == {"train.parquet", "heldout.parquet", "receipts"}


@pytest.mark.usefixtures("ray_session")
def test_the_sample_does_not_depend_on_parts_or_kills(storage, stage_context):
    rows = corpus(30)
    clean = write_clean(storage, rows, [])
    config = InstructionsConfig(default_max_examples=16, balance=False)
    whole = stage_context("instructions", config, clean=clean)
    instructions.run(whole)
    for number, chunk in enumerate((rows[::3], rows[1::3], rows[2::3])):
        clean.folder.write_table(f"corpus/train/cut-{number}.parquet", pa.Table.from_pylist(chunk, schema=DOCUMENT))
    for name in clean.folder.names(under="corpus/train"):
        if "cut-" not in name:
            clean.folder.delete(name)
    cut = stage_context("instructions", config, key="cut", clean=clean)
    instructions.run(cut)
    assert cut.out.read_bytes("train.parquet") == whole.out.read_bytes("train.parquet")
    for lost in ("train.parquet", "receipts/choose.json", "receipts/train/cut-1.json"):
        cut.out.delete(lost)
    cut.out.delete("receipts/train")
    instructions.run(cut)
    assert cut.out.read_bytes("train.parquet") == whole.out.read_bytes("train.parquet")


@pytest.mark.usefixtures("ray_session")
def test_long_and_repeated_examples_are_counted(storage, stage_context):
    rows = [entry("fr", 1), document("again", "fr", entry("fr", 1)["text"], kind="definition", headword="mot1")]
    rows += [page("fr", "Le grand pain", "Il faut de la farine. " * 20)]
    context = stage_context("instructions", InstructionsConfig(max_chars=200), clean=write_clean(storage, rows, []))
    metrics = instructions.run(context)
    assert metrics["train"]["tasks"] == {"define": {"fr": 1, "en": 0}}
    assert metrics["skipped"]["too_long"] == 1
    assert metrics["train"]["skipped"]["duplicate"] == 1


@pytest.mark.usefixtures("ray_session")
def test_answers_in_the_wrong_language_are_counted(storage, stage_context):
    english = "This answer was never translated, and so it stands here in English."
    french = "Cette réponse est bien en français, comme il se doit pour une telle question."
    pairs = [{"question": "Quand lève la pâte ?", "answer": english}, {"question": "Où est le four ?", "answer": french}]
    rows = [document("faq-fr", "fr", "Questions", page="p", kind="faq", pairs=pairs)]
    translated = [{"question": "When does the dough rise?", "answer": english}, {"question": "Where is the oven?", "answer": english}]
    rows.append(document("faq-en", "en", "Answers", page="p", kind="faq", pairs=translated))
    context = stage_context("instructions", InstructionsConfig(balance=False), clean=write_clean(storage, rows, []))
    metrics = instructions.run(context)
    assert metrics["train"]["tasks"] == {"composed_faq": {"fr": 1, "en": 1}, "faq": {"fr": 1, "en": 2}}
    assert metrics["skipped"]["wrong_language"] == 1
    assert metrics["train"]["skipped"]["wrong_language"] == 2


@pytest.mark.usefixtures("ray_session")
def test_a_corpus_without_any_example_is_an_error(storage, stage_context):
    clean = write_clean(storage, [document("livre", "fr", "Rien à demander ici.", kind="text")], [])
    with pytest.raises(WorkError, match="no chat example"):
        instructions.run(stage_context("instructions", InstructionsConfig(), clean=clean))


@given(st.integers(0, 40), st.integers(0, 40))
def test_balanced_evens_out_the_languages(french: int, english: int):
    rows = [{"task": f"t{n % 3}", "lang": lang} for lang, count in (("fr", french), ("en", english)) for n in range(count)]
    counts = Counter(row["lang"] for row in balanced(rows))
    expected = (french, english) if 0 in (french, english) else (min(french, english),) * 2
    assert (counts["fr"], counts["en"]) == expected


def test_unknown_tasks_are_refused():
    with pytest.raises(ValidationError):
        InstructionsConfig.model_validate({"max_examples": {"defines": 3}})
