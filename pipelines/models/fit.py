"""Fitting one model of the survey on its sample, and measuring it on the half of the sample it has not read."""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage import Folder
from pipelines.models import samples
from pipelines.models.classifier import QualityClassifier, accuracy, auc
from pipelines.models.config import SurveyConfig
from pipelines.models.distribution import UnigramDistribution
from pipelines.models.lexicon import Lexicon
from pipelines.models.ngram import ByteNgram
from pipelines.models.samples import FOLDS, read_sample, stream_sample
from pipelines.models.signals import ADEQUACY, DIVERGENCE, PERPLEXITY, QUALITY, model_file

CHECK_LINES = 20_000
"""Lines of parallel text that a translation table is checked on."""

_MODEL_OF_GROUP = {
    samples.PERPLEXITY: PERPLEXITY,
    samples.DISTRIBUTION: DIVERGENCE,
    samples.POSITIVE: QUALITY,
    samples.NEGATIVE: QUALITY,
    samples.ADEQUACY: ADEQUACY,
}


def models_to_fit(groups: Iterable[str]) -> list[dict[str, Any]]:
    """One part of `map_parts` for each model that the sampled groups (`<kind>-<language>`) allow."""
    kinds: dict[tuple[str, str], set[str]] = defaultdict(set)
    for group in groups:
        kind, _, name = group.partition("-")
        kinds[_MODEL_OF_GROUP[kind], name].add(kind)
    parts = []
    for (model, name), found in sorted(kinds.items()):
        if model == QUALITY and len(found) < 2:
            continue
        halves = (None,) if model == DIVERGENCE else FOLDS
        parts += [{"name": f"fit-{model}-{name}-{half}", "model": model, "for": name, "half": half} for half in halves]
    return parts


@dataclass(frozen=True)
class FitModel:
    """Fits one model and writes its file; the receipt says on how much, and how it does on what it has not read.

    `parts` are those that have some of a group's sample, below `samples`. `fitted` is false where the sample was too small for a
    model, and then there is no file.
    """

    out: Folder
    samples: str
    parts: Mapping[str, Sequence[str]]
    config: SurveyConfig

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        model, name, half = part["model"], part["for"], part["half"]
        fit = {PERPLEXITY: self._ngram, DIVERGENCE: self._distribution, QUALITY: self._classifier, ADEQUACY: self._lexicon}[model]
        data, receipt = fit(name, half)
        if data is not None:
            self.out.write_bytes(model_file(model, name, half), data)
        return {"model": model, "for": name, "half": half, "fitted": data is not None} | receipt

    def _stream(self, group: str, half: int | None = None) -> Iterator[pa.Array]:
        """The texts of a group's sample, or of a half of it, some at a time: for models that only count."""
        for rows in stream_sample(self.out, f"{self.samples}/{group}", self.parts[group], half):
            yield _texts(rows)

    def _halves(self, group: str, half: int) -> tuple[pa.Table, pa.Table]:
        """The half of a group's sample to read, and the other one."""
        mine, other = (read_sample(self.out, f"{self.samples}/{group}", self.parts[group], one) for one in (half, 1 - half))
        return mine, other

    def _ngram(self, lang: str, half: int) -> tuple[bytes | None, dict[str, Any]]:
        group = f"{samples.PERPLEXITY}-{lang}"
        read = (text for texts in self._stream(group, half) for text in texts.to_pylist())
        model = ByteNgram(self.config.perplexity.order).fit(read)
        unread = [(_bytes(texts), model.bits(texts).tolist()) for texts in self._stream(group, 1 - half)]
        size = sum(size for size, _ in unread)
        bits = math.fsum(each for _, some in unread for each in some)  # exact, so the same however parts were cut
        receipt = {"documents": model.train_texts, "bytes": model.train_bytes, "unread_bytes": size}
        return model.dump(), receipt | {"bits_per_byte": bits / size if size else None}

    def _distribution(self, lang: str, _: int | None) -> tuple[bytes | None, dict[str, Any]]:
        model = UnigramDistribution(self.config.distribution.prior_words)
        documents, size = 0, 0
        for texts in self._stream(f"{samples.DISTRIBUTION}-{lang}"):
            model.fit(texts)
            documents, size = documents + len(texts), size + _bytes(texts)
        return model.dump(), {"documents": documents, "bytes": size, "words": int(model.counts.sum())}

    def _classifier(self, lang: str, half: int) -> tuple[bytes | None, dict[str, Any]]:
        (good, unread_good), (bad, unread_bad) = (
            [_texts(rows) for rows in self._halves(f"{side}-{lang}", half)] for side in (samples.POSITIVE, samples.NEGATIVE)
        )
        receipt: dict[str, Any] = {"documents": 2 * min(len(good), len(bad)), "bytes": _bytes(good) + _bytes(bad)}
        model = QualityClassifier.fit(good, bad, self.config.classifier)
        if model is None:
            return None, receipt
        scores = model.scores(unread_good), model.scores(unread_bad)
        receipt |= {"unread_documents": len(unread_good) + len(unread_bad), "max_chars": self.config.classifier.max_chars}
        return model.dump(), receipt | {"accuracy": _number(accuracy(*scores)), "auc": _number(auc(*scores))}

    def _lexicon(self, pair: str, half: int) -> tuple[bytes | None, dict[str, Any]]:
        mine, other = self._halves(f"{samples.ADEQUACY}-{pair}", half)
        settings = self.config.adequacy
        model = Lexicon.fit(_texts(mine), _texts(mine, "translation"), settings.vocabulary, settings.iterations)
        receipt = {"documents": mine.num_rows, "bytes": _bytes(_texts(mine)) + _bytes(_texts(mine, "translation"))}
        return model.dump(), receipt | {"auc_against_shuffled": _number(shuffled_auc(model, other))}


def shuffled_auc(model: Lexicon, rows: pa.Table) -> float:
    """How often a line's own translation scores above the one of the line after it; NaN without lines."""
    same = pc.equal(pc.count_substring(rows["text"], "\n"), pc.count_substring(rows["translation"], "\n"))
    one, other = (
        pc.split_pattern(rows.filter(same)[side], "\n").combine_chunks().flatten().slice(0, CHECK_LINES) for side in ("text", "translation")
    )
    moved = other.take(pa.array(np.roll(np.arange(len(other)), -1)))
    true, false = model.adequacy(one, other), model.adequacy(one, moved)
    return auc(true[~np.isnan(true)], false[~np.isnan(false)])


def summary(receipts: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`models.json`: by model and language, the figures of both halves: documents and bytes added up, others averaged.

    A model that one half of its sample was too small for is left out, for half of the documents would have no score.
    """
    halves: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for receipt in receipts:
        halves[receipt["model"], receipt["for"]].append(receipt)
    found: dict[str, dict[str, Any]] = {}
    for (model, name), made in sorted(halves.items()):
        if all(receipt["fitted"] for receipt in made):
            found.setdefault(model, {})[name] = _joined(made)
    return found


def _joined(receipts: list[dict[str, Any]]) -> dict[str, Any]:
    joined = {}
    for key in receipts[0]:
        values = [receipt[key] for receipt in receipts if receipt.get(key) is not None]
        if key in ("model", "for", "half", "fitted") or not values:
            continue
        total = sum(values)
        joined[key] = values[0] if key == "max_chars" else total if isinstance(total, int) else total / len(values)
    return joined


def _texts(rows: pa.Table, side: str = "text") -> pa.Array:
    column = rows[side]
    return column.combine_chunks() if column.num_chunks else pa.array([], pa.large_string())


def _bytes(texts: pa.Array) -> int:
    return int(pc.sum(pc.binary_length(texts)).as_py() or 0)


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value
