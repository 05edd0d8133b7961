"""Deciding is a query over signals: no text is read, so thresholds can be tried again without scoring again."""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import CleanConfig, LanguageThresholds
from pipelines.ledger import LANGUAGE, QUALITY
from pipelines.rules import bitext, gopher

UNLISTED, WRONG, UNSURE = "unlisted_language", "wrong_language", "unsure_language"

SIGNALS = [
    *("lang", "translation_lang", "stream", "langid", "declared_score", "translation_langid", "translation_declared_score"),
    *("identical_sides", "length_ratio", *gopher.COLUMNS),
]
"""The columns that `decide` reads."""


@dataclass
class Verdicts:
    """For n documents: the step that removes each ('' for kept), its reason, value and threshold (NaN for none), and
    the document kept in its place ('' for none). The first removal of a document stands."""

    steps: np.ndarray
    reasons: np.ndarray
    values: np.ndarray
    thresholds: np.ndarray
    survivors: np.ndarray

    @classmethod
    def none_of(cls, n: int) -> Verdicts:
        blank = [np.full(n, "", object) for _ in range(3)]
        return cls(blank[0], blank[1], np.full(n, np.nan), np.full(n, np.nan), blank[2])

    @property
    def kept(self) -> np.ndarray:
        """bool[n]"""
        return self.steps == ""

    def remove(self, where: np.ndarray, step: str, reason: str, values: np.ndarray, threshold: float = np.nan) -> None:
        """Remove those of `where` (bool[n]) that are still kept; `values` is float[n]."""
        rows = where & self.kept
        self.steps[rows], self.reasons[rows] = step, reason
        self.values[rows], self.thresholds[rows] = values[rows], threshold

    def replace(self, row: int, step: str, reason: str, value: float, threshold: float, survivor: str) -> None:
        """Remove one document in favour of another."""
        self.steps[row], self.reasons[row], self.survivors[row] = step, reason, survivor
        self.values[row], self.thresholds[row] = value, threshold


def decide(signals: pa.Table, config: CleanConfig) -> Verdicts:
    """The language and quality steps for n documents (a table with the columns `SIGNALS`)."""
    verdicts = Verdicts.none_of(signals.num_rows)
    streams, langs = _strings(signals["stream"]), _strings(signals["lang"])
    parallel = streams == "parallel"
    _decide_language(verdicts, signals, "", streams != "code", langs, config.languages)
    _decide_language(verdicts, signals, "translation_", parallel, _strings(signals["translation_lang"]), config.languages)
    for lang, thresholds in config.languages.items():
        _decide_quality(verdicts, signals, (streams == lang) & ~parallel, thresholds)
    identical, ratio = _numbers(signals["identical_sides"]), _numbers(signals["length_ratio"])
    verdicts.remove(parallel & (identical > 0), QUALITY, bitext.IDENTICAL, identical, 0.0)
    verdicts.remove(parallel & (ratio > config.max_length_ratio), QUALITY, bitext.LENGTH_RATIO, ratio, config.max_length_ratio)
    return verdicts


def _decide_language(
    verdicts: Verdicts, signals: pa.Table, side: str, where: np.ndarray, langs: np.ndarray, languages: Mapping[str, LanguageThresholds]
) -> None:
    """One side of the documents `where`: the language is listed, and its score reaches the cut."""
    scores, best = _numbers(signals[f"{side}declared_score"]), _strings(signals[f"{side}langid"])
    verdicts.remove(where & ~np.isin(langs, list(languages)), LANGUAGE, UNLISTED, scores)
    for lang, thresholds in languages.items():
        low = where & (langs == lang) & (scores < thresholds.langid_min)
        verdicts.remove(low & (best != lang), LANGUAGE, f"{side}{WRONG}", scores, thresholds.langid_min)
        verdicts.remove(low, LANGUAGE, f"{side}{UNSURE}", scores, thresholds.langid_min)


def _decide_quality(verdicts: Verdicts, signals: pa.Table, where: np.ndarray, thresholds: LanguageThresholds) -> None:
    for rule in gopher.RULES:
        values, threshold = _numbers(signals[rule.column]), float(getattr(thresholds, rule.threshold))
        verdicts.remove(where & rule.fails(values, threshold), QUALITY, rule.reason, values, threshold)


def _strings(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column, "").to_numpy().astype(object)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy()
