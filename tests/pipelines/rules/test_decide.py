from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.config import CleanConfig
from pipelines.rules.decide import SIGNALS, decide
from pipelines.rules.gopher import COLUMNS
from pipelines.score import signals_schema

GOOD = dict(zip(COLUMNS, (100, 5.0, 0, 0, 0, 0, 0.95, 6), strict=True))


def signals(*rows: dict) -> pa.Table:
    blank = {"lang": "fr", "stream": "fr", "langid": "fr", "declared_score": 0.9, "translation_lang": None, "translation_langid": None}
    blank |= {"translation_declared_score": None, "identical_sides": 0.0, "length_ratio": 0.0} | GOOD
    schema = pa.schema([field for field in signals_schema(8) if field.name in SIGNALS])
    return pa.Table.from_pylist([blank | row for row in rows], schema=schema)


PARALLEL = {
    "stream": "parallel",
    "translation_lang": "en",
    "translation_langid": "en",
    "translation_declared_score": 0.9,
    "length_ratio": 1.2,
}


def reasons(*rows: dict, config: CleanConfig | None = None) -> list[str]:
    return decide(signals(*rows), config or CleanConfig()).reasons.tolist()


def test_the_first_failing_rule_is_the_reason_with_its_value_and_threshold():
    verdicts = decide(signals({"words": 12, "stop_words": 0}, {"stop_words": 1}, {}), CleanConfig(languages={"fr": {"min_words": 20}}))
    assert verdicts.steps.tolist() == ["quality", "quality", ""]
    assert verdicts.reasons.tolist() == ["too_few_words", "too_few_stop_words", ""]
    assert verdicts.values[:2].tolist() == [12, 1]
    assert verdicts.thresholds[:2].tolist() == [20, 2]
    assert np.isnan(verdicts.values[2])


def test_language_comes_before_quality():
    wrong = {"langid": "en", "declared_score": 0.1, "words": 3}
    assert reasons(wrong, {"declared_score": 0.6}, {"lang": "de", "stream": "de"}) == [
        "wrong_language",
        "unsure_language",
        "unlisted_language",
    ]


def test_thresholds_are_those_of_the_documents_language():
    row = {"mean_word_length": 10.5}
    english = {"lang": "en", "stream": "en", "langid": "en"}
    assert reasons(row, row | english) == ["", "words_too_long"]


def test_code_skips_language_and_quality():
    assert reasons({"lang": "code", "stream": "code", "langid": None, "declared_score": None, "words": 1}) == [""]


def test_parallel_documents_are_checked_on_both_sides_and_by_bitext_rules():
    other = {"translation_langid": "de", "translation_declared_score": 0.0}
    rows = [PARALLEL, PARALLEL | other, PARALLEL | {"identical_sides": 1.0}, PARALLEL | {"length_ratio": 3.5}, PARALLEL | {"words": 4}]
    assert reasons(*rows) == ["", "translation_wrong_language", "identical_sides", "length_ratio", ""]


def test_a_language_that_the_recipe_adds_needs_no_stop_words():
    german = {"lang": "de", "stream": "de", "langid": "de", "stop_words": 0}
    assert reasons(german, config=CleanConfig(languages={"de": {}})) == [""]
