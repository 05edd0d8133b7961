"""Chat examples assembled from clean documents: real text, asked for with one of several prompts (`prompts.py`).

`train.parquet` comes from the training split and `heldout.parquet` from the held-out one, so a held-out page stays held
out. Columns: `id` (xxh3-128 of the messages), `task`, `lang` (of the last answer), `source`, `messages` (a JSON list of
`{role, content}`). Tasks:

faq question -> answer · translate one segment, either way · define a word · summarise a long package description as
its short one · explain the title of a page · composed_translate several segments of one page over several turns ·
composed_faq question, answer, "translate your answer", the same answer in the other language. What begins with
`composed` is put together from real pieces; nobody ever had that conversation.

Each task gives at most `max_examples`, half of them in French: those whose content hashes lowest, which is a random
sample that does not depend on how the corpus is cut into parts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import pyarrow as pa
import xxhash

from cluster.errors import WorkError
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder
from pipelines.config import InstructionsConfig
from pipelines.langid import identify
from pipelines.mix import HELDOUT, TRAIN, corpus_parts
from pipelines.parts import read_batches
from pipelines.prompts import AGAIN, DEFINE, EXPLAIN, SUMMARISE, TRANSLATE, TRANSLATE_ANSWER, pick

VERSION = "1"

LANGS = ("fr", "en")
SEGMENTS_PER_PAGE = 4
SEGMENT_CHARS = (20, 400)
MIN_ANSWER_CHARS = 20
DEFINITION_CHARS = 600
PIECE_TASKS = ("faq", "translate", "composed_faq", "composed_translate")
LANGID_CHARS = 40
"""Shorter answers say too little of their language."""

EXAMPLE = pa.schema([(name, pa.string()) for name in ("id", "task", "lang", "source", "messages")])
CANDIDATE = pa.schema([pa.field("key", pa.uint64()), *EXAMPLE])
FAQ_PAGE = pa.schema([("key", pa.uint64()), *((name, pa.string()) for name in ("id", "page", "lang", "source", "pairs"))])

_CHAPTER = re.compile(r"^(?:(?:Chapitre|Chapter|Annexe|Appendix)\s+)?(?:\d+(?:\.\d+)*|[A-Z])\.\s+")
_QUOTATION = re.compile(r",\s(?:[A-ZÀ-ÖØ-Þ.'’-]{2,}|Id\.|ID\.|ib\.)[\s,.]")
"""How Littré credits what he quotes: `, SCARRON, Roman com.`, `, LA BRUY., VIII.`"""


def run(context: StageContext) -> dict[str, Any]:
    """Collect candidates part by part, then keep each task's share of both splits."""
    config = context.config
    assert isinstance(config, InstructionsConfig)
    clean = context.inputs["clean"]
    parts = [
        {"name": f"{split}/{part['name']}", "path": part["path"]}
        for split, place in (("train", TRAIN), ("heldout", HELDOUT))
        for part in corpus_parts(clean, place)
    ]
    receipts = map_parts(parts, _Collect(clean.folder, context.out, config), context)
    names = {split: [part["name"] for part in parts if part["name"].startswith(f"{split}/")] for split in ("train", "heldout")}
    (chosen,) = map_parts([{"name": "choose", "names": names}], _Choose(context.out, config), context, unit="merges")
    if not chosen["train"]["examples"]:
        raise WorkError("no chat example can be made of this corpus: it has no FAQ, dictionary, description, help or parallel pages")
    context.out.delete("candidates")
    context.out.delete("faq")
    skipped: Counter[str] = Counter()
    for receipt in receipts:
        skipped.update(receipt["skipped"])
    return {**chosen, "skipped": dict(sorted(skipped.items()))}


@dataclass(frozen=True)
class Example:
    """One conversation. `core` is what it teaches, without the prompt's wording: equal cores are duplicates."""

    task: str
    lang: str
    core: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]
    """(what the person says, what the assistant answers)"""

    def messages(self) -> list[dict[str, str]]:
        return [
            {"role": role, "content": content} for turn in self.turns for role, content in zip(("user", "assistant"), turn, strict=True)
        ]

    def answers(self) -> Iterator[tuple[str, str]]:
        """Each answer with the language it must be in: the last one's, but for the first half of composed_faq."""
        for number, (_, answer) in enumerate(self.turns):
            asked_back = self.task == "composed_faq" and number == 0
            yield answer, LANGS[1 - LANGS.index(self.lang)] if asked_back else self.lang

    def chars(self) -> int:
        return sum(len(asked) + len(answer) for asked, answer in self.turns)


def examples_of(row: dict[str, Any], meta: dict[str, Any], seed: int) -> Iterator[Example]:
    """The examples one document gives by itself (all tasks but composed_faq)."""
    lang = row["lang"]
    if row["translation"] is not None:
        if {lang, row["translation_lang"]} == set(LANGS):
            sides = {lang: row["text"].split("\n"), row["translation_lang"]: row["translation"].split("\n")}
            yield from _translations(list(zip(sides["fr"], sides["en"], strict=True)), row["page"], seed)
    elif lang in LANGS:
        kind = meta.get("kind")
        if kind == "faq":
            for pair in meta["pairs"]:
                yield Example("faq", lang, (pair["question"], pair["answer"]), ((pair["question"], pair["answer"]),))
        elif kind == "definition":
            yield from _definition(lang, meta["headword"], row["text"], seed)
        elif kind == "description":
            yield from _summary(lang, meta["short"], row["text"], seed)
        elif kind == "page":
            yield from _explanation(lang, meta["title"], row["text"], seed)


def _translations(pairs: list[tuple[str, str]], page: str, seed: int) -> Iterator[Example]:
    """A few segments of a page, each in one direction, and one conversation over segments that follow one another."""
    good = [number for number, pair in enumerate(pairs) if _is_good_pair(*pair)]
    keys = {number: content_key(("segment", *pairs[number]), seed) for number in good}
    for number in sorted(good, key=lambda number: (keys[number], number))[:SEGMENTS_PER_PAGE]:
        yield _translation("translate", [pairs[number]], keys[number])
    key = content_key(("turns", page), seed)
    runs = [number for number in good if number + 1 in keys]
    if runs:
        first = runs[key % len(runs)]
        count = 3 if key & 1 and first + 2 in keys else 2
        yield _translation("composed_translate", pairs[first : first + count], key >> 2)


def _translation(task: str, pairs: list[tuple[str, str]], key: int) -> Example:
    target = pick(LANGS, key, "target")
    person = pick(LANGS, key, "person")
    ordered = [(fr, en) if target == "en" else (en, fr) for fr, en in pairs]
    asked = [pick(TRANSLATE[person, target], key, "prompt"), *(pick(AGAIN[person], key, f"again{n}") for n in range(1, len(pairs)))]
    turns = tuple((prompt.format(text=one), other) for prompt, (one, other) in zip(asked, ordered, strict=True))
    return Example(task, target, tuple(text for pair in pairs for text in pair), turns)


def _is_good_pair(fr: str, en: str) -> bool:
    shortest, longest = SEGMENT_CHARS
    lengths = sorted((len(fr), len(en)))
    return shortest <= lengths[0] and lengths[1] <= min(longest, 2 * lengths[0]) and len(en.split()) >= 4 and fr != en


def _definition(lang: str, headword: str, text: str, seed: int) -> Iterator[Example]:
    """Whole lines of the article before its first appendix (a title in capitals), up to `DEFINITION_CHARS`; French ones
    without their quotations."""
    word = headword.split(",")[0].strip()
    head, *lines = [line for line in text.split("\n") if line]
    lines = list(takewhile(lambda line: not line.isupper(), lines))
    if lang == "fr":
        lines = [line for number, line in enumerate(lines) if number == 0 or not _QUOTATION.search(line)]
    kept = _leading(lines, DEFINITION_CHARS)
    if word and sum(map(len, kept)) >= MIN_ANSWER_CHARS:
        answer = "\n".join([head, *kept])
        key = content_key(("define", lang, word), seed)
        yield Example("define", lang, (word, answer), ((pick(DEFINE[lang], key, "prompt").format(word=word), answer),))


def _leading(lines: list[str], limit: int) -> list[str]:
    """The first lines that fit into `limit` characters together; the first one in any case."""
    kept = lines[:1]
    size = sum(map(len, kept))
    for line in lines[1:]:
        size += len(line)
        if size > limit:
            break
        kept.append(line)
    return kept


def _summary(lang: str, short: str, text: str, seed: int) -> Iterator[Example]:
    _, _, body = text.partition("\n")
    if len(body) >= 2 * len(short) and len(short) >= MIN_ANSWER_CHARS // 2:
        key = content_key(("summarise", body), seed)
        yield Example("summarise", lang, (body,), ((pick(SUMMARISE[lang], key, "prompt").format(text=body), short),))


def _explanation(lang: str, title: str, text: str, seed: int) -> Iterator[Example]:
    """A page by its title; a title of one word says too little to be answered."""
    topic = _CHAPTER.sub("", title).strip()
    first, _, body = text.partition("\n")
    answer = (body if first.strip() in (title, topic) else text).strip()
    if len(topic.split()) >= 2 and len(answer) >= MIN_ANSWER_CHARS:
        key = content_key(("explain", lang, topic), seed)
        yield Example("explain", lang, (topic, answer), ((pick(EXPLAIN[lang], key, "prompt").format(title=topic), answer),))


def translated_faq(pages: dict[str, list[dict[str, str]]], seed: int) -> Iterator[Example]:
    """Conversations from one FAQ page in both languages: the n-th pairs correspond where both have as many."""
    if len(pages.get("fr", ())) != len(pages.get("en", ())):
        return
    for fr, en in zip(pages.get("fr", ()), pages.get("en", ()), strict=True):
        key = content_key(("composed_faq", fr["question"], en["question"]), seed)
        for lang, asked, answered, other in (("en", fr, fr["answer"], en["answer"]), ("fr", en, en["answer"], fr["answer"])):
            person = "fr" if lang == "en" else "en"
            turns = ((asked["question"], answered), (pick(TRANSLATE_ANSWER[person], key, person), other))
            yield Example("composed_faq", lang, (asked["question"], answered, other), turns)


def content_key(content: Iterable[str], seed: int) -> int:
    """The hash (64 bits) that samples and orders examples."""
    return xxhash.xxh3_64_intdigest("\0".join(content).encode(), seed=seed)


@dataclass
class _Lowest:
    """Keep the rows with the lowest keys, at most `limit(group)` of each group, one of each key."""

    limits: dict[str, int]
    default: int
    rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, group: tuple[str, str], row: dict[str, Any]) -> None:
        kept = self.rows.setdefault(group, {})
        if row["key"] in kept:
            self.dropped["duplicate"] += 1
            if (row["id"], row["source"]) >= (kept[row["key"]]["id"], kept[row["key"]]["source"]):
                return
        kept[row["key"]] = row
        limit = self.limits.get(group[0], self.default)
        if len(kept) > 2 * limit + 100:
            self.rows[group] = self._cut(group, limit)

    def finish(self) -> list[dict[str, Any]]:
        """All rows kept, by group and key."""
        return [row for group in sorted(self.rows) for row in self._cut(group, self.limits.get(group[0], self.default)).values()]

    def _cut(self, group: tuple[str, str], limit: int) -> dict[int, dict[str, Any]]:
        kept = self.rows[group]
        self.dropped["over_quota"] += max(0, len(kept) - limit)
        return {key: kept[key] for key in sorted(kept)[:limit]}


def _lowest(config: InstructionsConfig) -> _Lowest:
    """Half of each task's examples may be in each language."""
    return _Lowest({task: most // 2 for task, most in config.max_examples.items()}, config.default_max_examples // 2)


@dataclass(frozen=True)
class _Collect:
    """The candidates of one part, never more than the whole run may keep, and its FAQ pages."""

    clean: Folder
    out: Folder
    config: InstructionsConfig

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        lowest, faq, skipped = _lowest(self.config), _lowest(self.config), Counter()
        columns = ["id", "text", "lang", "translation", "translation_lang", "source", "page", "meta"]
        for batch in read_batches(self.clean, part["path"], columns):
            for row in batch.to_pylist():
                meta = json.loads(row["meta"])
                examples = [(row["source"], example) for example in examples_of(row, meta, self.config.seed)]
                _offer(lowest, examples, self.config, skipped)
                if meta.get("kind") == "faq" and row["lang"] in LANGS:
                    key = content_key(("page", row["page"]), self.config.seed)
                    pairs = json.dumps(meta["pairs"], ensure_ascii=False)
                    page = {"key": key, "id": row["id"], "page": row["page"], "lang": row["lang"], "source": row["source"], "pairs": pairs}
                    faq.add(("composed_faq", row["lang"]), page)
        self.out.write_table(f"candidates/{part['name']}.parquet", pa.Table.from_pylist(lowest.finish(), schema=CANDIDATE))
        self.out.write_table(f"faq/{part['name']}.parquet", pa.Table.from_pylist(faq.finish(), schema=FAQ_PAGE))
        return {"skipped": dict(sorted((skipped + lowest.dropped).items()))}


def _offer(lowest: _Lowest, examples: list[tuple[str, Example]], config: InstructionsConfig, skipped: Counter[str]) -> None:
    """Put (source, example)s forward, but for those that are too long or answer in the wrong language."""
    short = [(source, example) for source, example in examples if example.chars() <= config.max_chars]
    skipped["too_long"] += len(examples) - len(short)
    wrong = _in_wrong_language([example for _, example in short])
    skipped["wrong_language"] += sum(wrong)
    for (source, example), is_wrong in zip(short, wrong, strict=True):
        if is_wrong:
            continue
        messages = json.dumps(example.messages(), ensure_ascii=False)
        row = {
            "key": content_key((example.task, example.lang, *example.core), config.seed),
            "id": xxhash.xxh3_128_hexdigest(messages.encode()),
            "task": example.task,
            "lang": example.lang,
            "source": source,
            "messages": messages,
        }
        lowest.add((example.task, example.lang), row)


def _in_wrong_language(examples: list[Example]) -> list[bool]:
    """Which examples have an answer that is more likely in the other language. Only pieces of documents are looked at:
    whole documents were checked by cleaning."""
    wrong = [False] * len(examples)
    answers = [
        (number, answer, lang)
        for number, example in enumerate(examples)
        if example.task in PIECE_TASKS
        for answer, lang in example.answers()
        if len(answer) >= LANGID_CHARS
    ]
    if answers:
        others = [LANGS[1 - LANGS.index(lang)] for _, _, lang in answers]
        scores = identify(pa.array([answer for _, answer, _ in answers], pa.string()), others).declared_scores
        for (number, _, _), score in zip(answers, scores, strict=True):
            wrong[number] |= bool(score >= 0.5)
    return wrong


@dataclass(frozen=True)
class _Choose:
    """Merge the candidates of all parts, compose FAQ conversations, balance the languages, write both splits."""

    out: Folder
    config: InstructionsConfig

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        report: dict[str, Any] = {}
        trained: set[int] = set()
        for split in ("train", "heldout"):
            names: list[str] = part["names"][split]
            lowest, skipped = _lowest(self.config), Counter()
            for name in names:
                for batch in read_batches(self.out, f"candidates/{name}.parquet"):
                    for row in batch.to_pylist():
                        lowest.add((row["task"], row["lang"]), row)
            _offer(lowest, list(self._composed(names)), self.config, skipped)
            rows = [row for row in lowest.finish() if row["key"] not in trained]
            rows = balanced(rows) if self.config.balance else rows
            trained |= {row["key"] for row in rows}
            rows.sort(key=lambda row: row["id"])
            self.out.write_table(f"{split}.parquet", pa.Table.from_pylist(rows, schema=CANDIDATE).select(EXAMPLE.names))
            report[split] = {**_counts(rows), "skipped": dict(sorted((skipped + lowest.dropped).items()))}
        return report

    def _composed(self, names: list[str]) -> Iterator[tuple[str, Example]]:
        """FAQ pages of all parts, joined by page."""
        lowest = _lowest(self.config)
        for name in names:
            for row in self.out.read_table(f"faq/{name}.parquet").to_pylist():
                lowest.add(("composed_faq", row["lang"]), row)
        pages: dict[str, dict[str, dict[str, Any]]] = {}
        for row in lowest.finish():
            pages.setdefault(row["page"], {})[row["lang"]] = row
        for versions in pages.values():
            pairs = {lang: json.loads(row["pairs"]) for lang, row in versions.items()}
            for example in translated_faq(pairs, self.config.seed):
                yield versions[example.lang]["source"], example


def balanced(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many examples in one language as in the other: every task of the larger language gives up the same share.

    Rows come and go by task, language and key. Nothing changes where one language has no example at all.
    """
    counts = Counter(row["lang"] for row in rows)
    if len(counts) < 2:
        return rows
    smaller = min(counts.values())
    kept: list[dict[str, Any]] = []
    seen: Counter[str] = Counter()
    for row in rows:
        seen[row["lang"]] += 1
        number, total = seen[row["lang"]], counts[row["lang"]]
        if number * smaller // total > (number - 1) * smaller // total:
            kept.append(row)
    return kept


def _counts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    tasks: dict[str, dict[str, int]] = {}
    for row in rows:
        tasks.setdefault(row["task"], dict.fromkeys(LANGS, 0))[row["lang"]] += 1
    langs = Counter(row["lang"] for row in rows)
    return {"examples": len(rows), "langs": {lang: langs[lang] for lang in LANGS}, "tasks": dict(sorted(tasks.items()))}
