"""Minimal pairs: does the model give a real held-out sentence more probability than the same sentence with one fault?

Sentences come from held-out documents, faults from `pair_rules.RULES`; both are chosen by hash, so the items are the same on
every run. A pair is right when log p(sentence) > log p(broken sentence), each scored from the document separator on;
equal scores count half. Chance is 50 %.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from evaluation.baselines import WORD, WordFrequency
from evaluation.engines import Model
from evaluation.sample import hash_hex
from evaluation.stats import share_stderr, wilson_interval
from evaluation.tasks.pair_rules import LEXICONS, RULES, Lexicon, Tokens, tokenise
from evaluation.tasks.result import Result

TASK = "minimal_pairs"
CHANCE = 0.5
LANGUAGES = tuple(RULES)
MIN_CHARS, MAX_CHARS, MIN_WORDS = 20, 200, 5
HELDOUT_BYTES_PER_ITEM = 5_000

ITEMS = pa.schema(
    [
        ("id", pa.string()),
        ("lang", pa.string()),
        ("phenomenon", pa.string()),
        ("good", pa.string()),
        ("bad", pa.string()),
        ("document", pa.string()),
        ("unigram_good", pa.float64()),
        ("unigram_bad", pa.float64()),
    ]
)

FUNCTION_WORDS = {
    "fr": re.compile(
        r"\b(?:aux?|avec|ces?|cette|d|dans|de|des|du|elles?|en|est|et|ils?|l|la|les?|ne|ou|par|pas|pour|que|qui|se|sont?|sur|une?)\b"
    ),
    "en": re.compile(r"\b(?:an?|and|are|as|be|by|can|for|from|if|in|is|it|not|of|on|or|that|the|this|to|which|will|with|you)\b"),
}
_BREAK = re.compile(r"(?<=[.!?…])\s+(?=[A-ZÀ-ÖØ-Þ«\"“])|\n")
_SHAPE = re.compile(r"[A-ZÀ-ÖØ-ÞŒ][^\[\]{}<>|=*/\\_#]*[.!?…]")


def sentences(text: str, lang: str) -> Iterator[str]:
    """Sentences of prose: a capital first, a full stop last, 20 to 200 characters, five words or more, no markup, and more
    function words of `lang` than of the other language."""
    for piece in _BREAK.split(text):
        sentence = piece.strip()
        if MIN_CHARS <= len(sentence) <= MAX_CHARS and _SHAPE.fullmatch(sentence) and len(WORD.findall(sentence)) >= MIN_WORDS:
            counts = {name: len(words.findall(sentence.lower())) for name, words in FUNCTION_WORDS.items()}
            if all(counts[lang] > count for name, count in counts.items() if name != lang):
                yield sentence


def prepare(lang: str, train: Sequence[str], heldout: Iterable[tuple[str, str]], count: int) -> pa.Table:
    """Up to `count` items (schema `ITEMS`), spread over the phenomena as evenly as the text allows.

    `train` are training texts, for the lexicon, the unigram baseline and to leave out sentences seen there word for word;
    `heldout` gives (document id, text).
    """
    words: Counter[str] = Counter()
    known: set[str] = set()
    for text in train:
        words.update(WORD.findall(text))
        known.update(hash_hex(sentence) for sentence in sentences(text, lang))
    lexicon, frequency = LEXICONS[lang](train, words), WordFrequency(words)
    fresh: dict[str, str] = {}
    for document, text in heldout:
        for sentence in sentences(text, lang):
            if hash_hex(sentence) not in known:
                fresh.setdefault(sentence, document)
    ordered = sorted(fresh, key=lambda sentence: (hash_hex(sentence), sentence))
    rows = []
    for phenomenon, sentence, bad in _choose(lang, ordered, lexicon, count):
        rows.append(
            {
                "id": hash_hex(f"{phenomenon}\0{sentence}"),
                "lang": lang,
                "phenomenon": phenomenon,
                "good": sentence,
                "bad": bad,
                "document": fresh[sentence],
                "unigram_good": frequency.log_probability(sentence),
                "unigram_bad": frequency.log_probability(bad),
            }
        )
    return pa.Table.from_pylist(rows, schema=ITEMS)


def _choose(lang: str, ordered: Sequence[str], lexicon: Lexicon, count: int) -> list[tuple[str, str, str]]:
    """(phenomenon, sentence, broken sentence): each phenomenon in turn takes its next sentence; a sentence serves once."""
    waiting = {phenomenon: _candidates(phenomenon, lang, ordered, lexicon) for phenomenon in RULES[lang]}
    chosen: list[tuple[str, str, str]] = []
    used: set[str] = set()
    while waiting and len(chosen) < count:
        for phenomenon in list(waiting):
            found = next((pair for pair in waiting[phenomenon] if pair[0] not in used), None)
            if found is None:
                del waiting[phenomenon]
            elif len(chosen) < count:
                used.add(found[0])
                chosen.append((phenomenon, *found))
    order = list(RULES[lang])
    return sorted(chosen, key=lambda item: order.index(item[0]))


def _candidates(phenomenon: str, lang: str, ordered: Sequence[str], lexicon: Lexicon) -> Iterator[tuple[str, str]]:
    """Each sentence the rule can break, with one broken form (of several, the sentence's hash picks)."""
    rule = RULES[lang][phenomenon]
    for sentence in ordered:
        tokens: Tokens = tokenise(sentence)
        broken = [form for place in range(len(tokens)) if tokens[place][0].isalpha() and (form := rule(tokens, place, lexicon)) is not None]
        if broken:
            yield sentence, "".join(broken[int(hash_hex(f"{phenomenon}\0{sentence}"), 16) % len(broken)])


def evaluate(model: Model, items: pa.Table, advance: Callable[[float], None]) -> tuple[list[Result], pa.Table]:
    """One result a language (phenomena in `details`) and the items with both log-likelihoods."""
    rows = items.to_pylist()
    sentences = [row[side] for row in rows for side in ("good", "bad")]
    scores = model.log_likelihoods(sentences, lambda count: advance(count / 2))
    for row, well, ill in zip(rows, scores[::2], scores[1::2], strict=True):
        row |= {"model": model.role, "logprob_good": well, "logprob_bad": ill, "score": _score(well, ill)}
    results = []
    for lang in LANGUAGES:
        own = [row for row in rows if row["lang"] == lang]
        if own:
            results.append(_result(model, lang, own))
    schema = ITEMS.append(pa.field("model", pa.string()))
    for name in ("logprob_good", "logprob_bad", "score"):
        schema = schema.append(pa.field(name, pa.float64()))
    return results, pa.Table.from_pylist(rows, schema=schema)


def _score(good: float, bad: float) -> float:
    return 1.0 if good > bad else 0.5 if good == bad else 0.0


def _result(model: Model, lang: str, rows: list[dict[str, Any]]) -> Result:
    phenomena = {}
    for phenomenon in RULES[lang]:
        own = [row for row in rows if row["phenomenon"] == phenomenon]
        right = sum(row["score"] for row in own)
        if own:
            phenomena[phenomenon] = {
                "accuracy": right / len(own),
                "n": len(own),
                "interval95": wilson_interval(right, len(own)),
                "unigram": _unigram(own),
                "example": {"good": own[0]["good"], "bad": own[0]["bad"]},
            }
    right, n = sum(row["score"] for row in rows), len(rows)
    return Result(
        task=TASK,
        subset=lang,
        model=model.role,
        metric="accuracy",
        value=right / n,
        unit="share",
        n=n,
        n_unit="pairs",
        stderr=share_stderr(right, n),
        interval95=wilson_interval(right, n),
        chance=CHANCE,
        baselines={"word unigram": _unigram(rows)},
        higher_is_better=True,
        details={"phenomena": phenomena, "construction": "real held-out sentences, one fault each by rule", "interval": "Wilson"},
    )


def _unigram(rows: list[dict[str, Any]]) -> float:
    return sum(_score(row["unigram_good"], row["unigram_bad"]) for row in rows) / len(rows)
