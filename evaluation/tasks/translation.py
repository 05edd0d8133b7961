"""Translation both ways on held-out parallel pages: chrF and BLEU by sacrebleu, greedy answers of the chat model.

Segments are lines of held-out pages that training text does not hold word for word, 20 to 200 characters, at most
`PER_PAGE` of a page and direction. Intervals resample whole pages, since segments of one page go together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from evaluation.baselines import WORD, TranslationMemory
from evaluation.engines import Model
from evaluation.sample import Sampled, hash_hex
from evaluation.stats import bootstrap_groups
from evaluation.tasks.result import Result
from pipelines.prompts import TRANSLATE

TASK = "translation"
DIRECTIONS = ("fr-en", "en-fr")
REQUESTS = {"fr-en": TRANSLATE["fr", "en"][0], "en-fr": TRANSLATE["en", "fr"][0]}
"""One of the wordings that fine-tuning asked with, the same for all items of a direction."""
MIN_CHARS, MAX_CHARS, MIN_WORDS, PER_PAGE = 20, 200, 3, 4
COPY, MEMORY = "copy of the source", "nearest training pair"

ITEMS = pa.schema(
    [
        ("id", pa.string()),
        ("direction", pa.string()),
        ("page", pa.string()),
        ("source", pa.string()),
        ("reference", pa.string()),
        ("memory", pa.string()),
    ]
)


def prepare(train: Sequence[Sampled], heldout: Iterable[Sampled], count: int) -> pa.Table:
    """Up to `count` items a direction (schema `ITEMS`), with the nearest training pair's answer."""
    rows = []
    candidates = [(document.page, *pair) for document in heldout for pair in segments(document)]
    known_pairs = [pair for document in train for pair in aligned(document)]
    for direction in DIRECTIONS:
        pairs = known_pairs if direction == "fr-en" else [(english, french) for french, english in known_pairs]
        known, memory = {source for source, _ in pairs}, TranslationMemory(pairs)
        turned = [(page, french, english) if direction == "fr-en" else (page, english, french) for page, french, english in candidates]
        for page, source, reference in _choose(turned, known, count):
            key = hash_hex(f"{direction}\0{source}")
            answer = memory.translate(source)
            rows.append({"id": key, "direction": direction, "page": page, "source": source, "reference": reference, "memory": answer})
    return pa.Table.from_pylist(rows, schema=ITEMS)


def aligned(document: Sampled) -> Iterator[tuple[str, str]]:
    """(French, English) lines of a parallel document."""
    lines, others = document.text.split("\n"), (document.translation or "").split("\n")
    yield from zip(lines, others, strict=True) if document.lang == "fr" else zip(others, lines, strict=True)


def segments(document: Sampled) -> Iterator[tuple[str, str]]:
    """The aligned lines worth asking for: of the right length on both sides, words on both, not the same text."""
    for french, english in aligned(document):
        fits = all(MIN_CHARS <= len(side) <= MAX_CHARS and len(WORD.findall(side)) >= MIN_WORDS for side in (french, english))
        if fits and french != english:
            yield french, english


def _choose(candidates: Iterable[tuple[str, str, str]], known: set[str], count: int) -> list[tuple[str, str, str]]:
    """(page, source, reference) in hash order of the source: new ones, each source once, a few of each page."""
    by_source: dict[str, tuple[str, str, str]] = {}
    for candidate in candidates:
        if candidate[1] not in known:
            by_source.setdefault(candidate[1], candidate)
    chosen: list[tuple[str, str, str]] = []
    taken: dict[str, int] = {}
    for source in sorted(by_source, key=lambda text: (hash_hex(text), text)):
        page = by_source[source][0]
        if taken.get(page, 0) < PER_PAGE and len(chosen) < count:
            taken[page] = taken.get(page, 0) + 1
            chosen.append(by_source[source])
    return chosen


def evaluate(
    model: Model, items: pa.Table, max_new_tokens: int, seed: int, advance: Callable[[float], None]
) -> tuple[list[Result], pa.Table]:
    """chrF and BLEU a direction, and the items with prompts and answers."""
    rows = items.to_pylist()
    prompts = [model.chat_prompt(REQUESTS[row["direction"]].format(text=row["source"])) for row in rows]
    answers = model.answer(prompts, max_new_tokens, advance)
    for row, prompt, answer in zip(rows, prompts, answers, strict=True):
        row |= {"model": model.role, "prompt": prompt, "answer": answer, "chrf": sentence_chrf(answer, row["reference"])}
    results: list[Result] = []
    for direction in DIRECTIONS:
        own = [row for row in rows if row["direction"] == direction]
        if own:
            results += [_result(model, direction, metric, own, seed) for metric in ("chrf", "bleu")]
    schema = ITEMS
    for name, kind in (("model", pa.string()), ("prompt", pa.string()), ("answer", pa.string()), ("chrf", pa.float64())):
        schema = schema.append(pa.field(name, kind))
    return results, pa.Table.from_pylist(rows, schema=schema)


def sentence_chrf(answer: str, reference: str) -> float:
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().sentence_score(answer, [reference]).score)


def _result(model: Model, direction: str, metric: str, rows: list[dict[str, Any]], seed: int) -> Result:
    references = [row["reference"] for row in rows]
    scorer = CorpusScore(metric, [row["answer"] for row in rows], references)
    pages: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        pages.setdefault(row["page"], []).append(place)
    stderr, interval = bootstrap_groups(list(pages.values()), scorer.score, seed=seed)
    return Result(
        task=TASK,
        subset=direction,
        model=model.role,
        metric=metric,
        value=scorer.score(range(len(rows))),
        unit="points of 100",
        n=len(rows),
        n_unit="segments",
        stderr=stderr,
        interval95=interval,
        chance=None,
        baselines={
            COPY: CorpusScore(metric, [row["source"] for row in rows], references).score(range(len(rows))),
            MEMORY: CorpusScore(metric, [row["memory"] for row in rows], references).score(range(len(rows))),
        },
        higher_is_better=True,
        details={
            "signature": scorer.signature,
            "pages": len(pages),
            "request": REQUESTS[direction],
            "interval": "bootstrap over pages",
            "decoding": "greedy",
        },
    )


class CorpusScore:
    """A sacrebleu corpus metric whose per-segment statistics are counted once, so that resampling is cheap."""

    def __init__(self, metric: str, answers: Sequence[str], references: Sequence[str]) -> None:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        self._metric = CHRF() if metric == "chrf" else BLEU()
        self._statistics = self._metric._extract_corpus_statistics(answers, [references])
        self.signature = str(self._metric.get_signature())

    def score(self, places: Iterable[int]) -> float:
        """The corpus score of those segments (with repeats)."""
        return float(self._metric._aggregate_and_compute([self._statistics[place] for place in places]).score)
