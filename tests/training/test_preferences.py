"""Preference pairs: what each kind compares, that it repeats, and the model's own answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.artifacts import Artifact
from cluster.errors import RequestError
from cluster.stage import StageContext
from cluster.storage import Folder
from pipelines.instructions import EXAMPLE
from tests.serving.test_app import greedy_reference
from training import preferences
from training.config import AnswersConfig, PreferencesConfig
from training.preferences import change_number, comparisons, leave_out, most_similar

Make = Callable[..., StageContext]

SENTENCES = {
    "fr": [
        "Le four chauffe à {n} degrés. Le pain lève.",
        "Le four froid reste fermé la nuit.",
        "La pâte repose {n} heures. Elle est prête.",
    ],
    "en": [
        "The oven heats to {n} degrees. The bread rises.",
        "The cold oven stays shut at night.",
        "The dough rests {n} hours. It is ready.",
    ],
}
QUIET = PreferencesConfig(answers=AnswersConfig(max_pairs=0))


def row(number: int, lang: str, task: str = "translate") -> dict[str, str]:
    other = "en" if lang == "fr" else "fr"
    asked, gold = (SENTENCES[side][number % 3].format(n=1000 + 137 * number) for side in (other, lang))
    messages = [{"role": "user", "content": f"Translate: {asked}"}, {"role": "assistant", "content": gold}]
    about = {"id": f"{number:04}{lang}", "task": task, "lang": lang, "source": f"s{number % 2}"}
    return {**about, "messages": json.dumps(messages, ensure_ascii=False)}


ROWS = [row(number, lang) for number in range(12) for lang in ("fr", "en")] + [row(99, "fr", "faq")]


def by_kind(pairs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {kind: [pair for pair in pairs if pair["kind"] == kind] for kind in (*preferences.KINDS, preferences.MODEL_ANSWER)}


def test_each_kind_sets_the_gold_answer_against_a_worse_one() -> None:
    golds = {json.loads(entry["messages"])[1]["content"] for entry in ROWS}
    kinds = by_kind(comparisons(ROWS, {"0003fr": "Bonjour", "0099fr": "non"}, QUIET))
    assert all(pair["chosen"] in golds and pair["chosen"] != pair["rejected"] for pairs in kinds.values() for pair in pairs)
    assert all(pair["rejected"] in golds for pair in kinds["other_sentence"])
    for pair in kinds["changed_number"]:
        assert sum(one != other for one, other in zip(pair["chosen"], pair["rejected"], strict=True)) == 1
    for pair in kinds["left_out"]:
        assert pair["rejected"] in pair["chosen"]
        assert len(pair["rejected"]) < len(pair["chosen"])
    assert [(pair["rejected"], pair["lang"]) for pair in kinds["model_answer"]] == [("Bonjour", "fr"), ("non", "fr")]
    assert {len(kinds["changed_number"]), len(kinds["left_out"])} == {16}
    assert all(json.loads(pair["messages"])[-1]["role"] == "user" for pairs in kinds.values() for pair in pairs)


def test_limits_are_halved_by_language_and_the_choice_repeats() -> None:
    few = QUIET.model_copy(update={"max_pairs": {"changed_number": 6, "left_out": 0}})
    pairs = comparisons(ROWS, {}, few)
    assert [pair["lang"] for pair in by_kind(pairs)["changed_number"]] == ["fr"] * 3 + ["en"] * 3
    assert not by_kind(pairs)["left_out"]
    assert comparisons(list(reversed(ROWS)), {}, few) == pairs
    assert len(by_kind(comparisons(ROWS, {}, few, share=3))["changed_number"]) == 2
    assert comparisons(ROWS, {}, few.model_copy(update={"seed": 2})) != pairs


def test_an_answer_that_says_the_same_is_no_pair() -> None:
    gold = json.loads(ROWS[0]["messages"])[1]["content"]
    assert not by_kind(comparisons(ROWS, {ROWS[0]["id"]: f" {gold.upper()} "}, QUIET))["model_answer"]


@given(st.text(alphabet="a 1290.", max_size=30), st.integers(0, 2**64 - 1))
def test_a_changed_number_is_another_number(text: str, key: int) -> None:
    changed = change_number(text, f"x{text}x", key)
    if any(letter.isdigit() for letter in text):
        assert changed is not None
        assert [len(part) for part in changed.split()] == [len(part) for part in text.split()]
        assert sum(one != other for one, other in zip(text, changed, strict=True)) == 1
    else:
        assert changed is None
    assert change_number(text, "nothing", key) is None


def test_a_sentence_left_out_is_a_whole_one() -> None:
    text = "Il pleut. Le four est déjà chaud ! On cuit le pain ? Oui."
    assert {leave_out(text, key) for key in range(8)} == {"Il pleut. On cuit le pain ? Oui.", "Il pleut. Le four est déjà chaud ! Oui."}
    assert leave_out("Une seule phrase sans suite.", 1) is None
    assert leave_out("All kinds of bread (e.g. rye bread) are sold.", 1) is None


def test_the_most_similar_text_is_neither_itself_nor_a_copy() -> None:
    texts = ["the oven is hot", "the oven is hot", "the oven is cold now", "a cat sleeps here", "zebra"]
    assert most_similar(texts, 5) == [2, 2, 0, None, None]
    assert most_similar(texts, 2) == [2, 2]
    assert most_similar([], 0) == []


@pytest.mark.usefixtures("ray_session")
def test_the_stage_asks_the_fine_tuned_model(stage_context: Make, tmp_path: Path, tiny_model: Path) -> None:
    instructions = Folder(str(tmp_path / "in"))
    long = {
        **row(200, "fr", "faq"),
        "messages": json.dumps([{"role": "user", "content": "a" * 300}, {"role": "assistant", "content": "b"}]),
    }
    splits = {"train": [*ROWS, long], "heldout": [row(number, lang) for number in range(20, 26) for lang in ("fr", "en")]}
    for name, rows in splits.items():
        instructions.write_table(f"{name}.parquet", pa.Table.from_pylist(rows, schema=EXAMPLE))
    shutil.copytree(tiny_model, tmp_path / "sft/export")
    inputs = {
        "instructions": Artifact("instructions", "i", instructions, {}),
        "sft": Artifact("sft", "s", Folder(str(tmp_path / "sft")), {}),
    }
    config = PreferencesConfig(answers=AnswersConfig(max_pairs=100, max_new_tokens=6, batch=8))
    context = stage_context("preferences", config, **inputs)
    counts = preferences.run(context)
    pairs = context.out.read_table("train.parquet").to_pylist()
    assert counts["train"]["pairs"] == len(pairs) == len({pair["id"] for pair in pairs})
    told = [pair for pair in pairs if pair["kind"] == "model_answer"]
    assert len(told) == len(ROWS) - 6  # what is asked four times in a language, word for word, is one pair
    assert not any("aaaa" in pair["messages"] for pair in pairs)
    assert counts["heldout"]["kinds"]["model_answer"] <= 10
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for pair in told[:3]:
        _, expected = greedy_reference(tiny_model, json.loads(pair["messages"]), 6)
        assert pair["rejected"] == tokenizer.decode(expected, skip_special_tokens=True).strip()
    again = stage_context("preferences", config, key="again", **inputs)
    preferences.run(again)
    assert again.out.read_bytes("train.parquet") == context.out.read_bytes("train.parquet")

    nothing = stage_context(
        "preferences",
        PreferencesConfig(answers=AnswersConfig(max_pairs=0), max_pairs=dict.fromkeys(preferences.KINDS, 0)),
        key="no",
        **inputs,
    )
    with pytest.raises(RequestError, match="no preference pair can be made"):
        preferences.run(nothing)
