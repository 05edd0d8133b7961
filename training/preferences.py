"""Preference pairs from real comparisons: one prompt with a better and a worse answer.

`train.parquet` and `heldout.parquet` come from the same splits of the instructions artifact. Columns: `id` (xxh3-128 of prompt
and answers), `kind`, `lang`, `source`, `messages` (JSON list of `{role, content}`, up to the question), `chosen` (the gold
answer) and `rejected`, which is, by `kind`:

other_sentence  the translation of the most similar other sentence · changed_number  the translation with a number changed that
the sentence has too · left_out  the translation without one of its sentences · model_answer  what the fine-tuned model says

Of each kind half the pairs may be in each language: those whose content hashes lowest. The held-out split has a tenth as many.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from cluster.errors import RequestError
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder
from pipelines.instructions import LANGS, content_key
from training.config import PreferencesConfig
from training.sft import HELDOUT, TRAIN

VERSION = "1"

KINDS = ("other_sentence", "changed_number", "left_out")
MODEL_ANSWER = "model_answer"
DEFAULT_MAX_PAIRS = 500
HELDOUT_SHARE = 10
PART_PROMPTS = 64
ANSWERS = "answers"

TOO_SIMILAR = 0.9
"""Cosine from which another sentence's translation may be right for this one too."""
WORD_BUCKETS = 1 << 18
SIMILAR_ROWS = 64
MIN_WORDS_LEFT_OUT = 3

PAIR = pa.schema([(name, pa.string()) for name in ("id", "kind", "lang", "source", "messages", "chosen", "rejected")])
ANSWER = pa.schema([("id", pa.string()), ("answer", pa.string())])

_NUMBER = re.compile(r"\d+")
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+(?=[A-ZÀ-ÖØ-Þ«“])")
_WORD = re.compile(r"\w+")

Row = dict[str, Any]


def run(context: StageContext) -> dict[str, Any]:
    """Let the fine-tuned model answer, then make the pairs of both splits; returns their counts."""
    config = context.config
    assert isinstance(config, PreferencesConfig)
    instructions = context.inputs["instructions"].folder
    limits = {TRAIN: config.answers.max_pairs, HELDOUT: math.ceil(config.answers.max_pairs / HELDOUT_SHARE)}
    parts: list[Row] = [
        {"name": f"{ANSWERS}/{split}/{number}", "split": split, "number": number, "limit": limit}
        for split, limit in limits.items()
        for number in range(math.ceil(limit / PART_PROMPTS))
    ]
    answer = _Answer(instructions, context.inputs["sft"].folder / "export", context.out, config)
    asked = context.resources
    map_parts(parts, answer, context, unit="batches of answers", cpus=asked.cpus_per_worker, gpus=asked.gpus_per_worker)
    names = {split: [part["name"] for part in parts if part["split"] == split] for split in limits}
    splits = [{"name": split, "answers": names[split]} for split in limits]
    counts = dict(zip(limits, map_parts(splits, _Assemble(instructions, context.out, config), context, unit="splits"), strict=True))
    if not counts[TRAIN]["pairs"]:
        raise RequestError("no preference pair can be made of the chat examples; raise preferences.max_pairs or instructions.max_examples")
    context.out.delete(ANSWERS)
    return counts


def comparisons(rows: Sequence[Row], answers: dict[str, str], config: PreferencesConfig, share: int = 1) -> list[Row]:
    """The pairs that instruction rows give, by kind and key; `share` divides the most of each kind."""
    singles = [row for row in rows if row["task"] == "translate"]
    asked = {row["id"]: (*_turns(row), content_key((row["id"],), config.seed)) for row in rows}

    def corrupted(row: Row, kind: str) -> str | None:
        prompt, gold, key = asked[row["id"]]
        return change_number(gold, prompt[-1]["content"], key) if kind == "changed_number" else leave_out(gold, key)

    found: dict[str, Row] = {}
    for kind in KINDS:
        limit = config.max_pairs.get(kind, DEFAULT_MAX_PAIRS) // share
        for lang in LANGS:
            there = sorted((row for row in singles if row["lang"] == lang), key=lambda row: asked[row["id"]][2])
            if kind == "other_sentence":
                texts = [asked[row["id"]][1] for row in there]
                others = most_similar(texts, min(len(texts), limit // 2))
                worse = iter(None if other is None else texts[other] for other in others)
            else:
                worse = (corrupted(row, kind) for row in there)
            pairs = (_pair(row, kind, *asked[row["id"]][:2], text) for row, text in zip(there, worse, strict=False) if text is not None)
            _add(found, pairs, limit // 2)
    told = (_pair(row, MODEL_ANSWER, *asked[row["id"]][:2], answers[row["id"]]) for row in rows if answers.get(row["id"]))
    _add(found, told, len(rows))
    return list(found.values())


def _turns(row: Row) -> tuple[list[dict[str, str]], str]:
    """A conversation up to its last question, and the gold answer to that."""
    *prompt, last = json.loads(row["messages"])
    return prompt, last["content"]


def _pair(row: Row, kind: str, prompt: list[dict[str, str]], chosen: str, rejected: str) -> Row | None:
    """A pair, or None where the answers say the same."""
    if " ".join(chosen.split()).casefold() == " ".join(rejected.split()).casefold():
        return None
    messages = json.dumps(prompt, ensure_ascii=False)
    name = xxhash.xxh3_128_hexdigest("\0".join((messages, chosen, rejected)).encode())
    about = {"id": name, "kind": kind, "lang": row["lang"], "source": row["source"]}
    return {**about, "messages": messages, "chosen": chosen, "rejected": rejected}


def _add(found: dict[str, Row], pairs: Iterator[Row | None], limit: int) -> None:
    """Take so many of the pairs, by id: two kinds may make the same one."""
    for pair in pairs:
        if limit <= 0:
            break
        if pair is not None and pair["id"] not in found:
            found[pair["id"]] = pair
            limit -= 1


def change_number(text: str, source: str, key: int) -> str | None:
    """The text with one digit changed of a number that the source has too; None where there is no such number."""
    known = set(_NUMBER.findall(source))
    shared = [found for found in _NUMBER.finditer(text) if found.group() in known]
    if not shared:
        return None
    found = shared[key % len(shared)]
    place = found.start() + (key >> 8) % len(found.group())
    # Never the same digit, and never 0, which might lead.
    digit = 1 + (int(text[place]) + (key >> 16) % 8) % 9
    return f"{text[:place]}{digit}{text[place + 1 :]}"


def leave_out(text: str, key: int) -> str | None:
    """The text without one of its sentences; None where there are not two."""
    sentences = _SENTENCE_END.split(text)
    long = [place for place, sentence in enumerate(sentences) if len(sentence.split()) >= MIN_WORDS_LEFT_OUT]
    if len(sentences) < 2 or not long:
        return None
    gone = long[key % len(long)]
    return " ".join(sentence for place, sentence in enumerate(sentences) if place != gone)


def most_similar(texts: Sequence[str], first: int) -> list[int | None]:
    """For each of the `first` texts the other one whose words are most like its own, but not too like; None where none shares a word.

    Cosine of TF-IDF over words; the first of equals.
    """
    from scipy.sparse import csr_matrix

    words = [[xxhash.xxh3_64_intdigest(word.encode()) % WORD_BUCKETS for word in _WORD.findall(text.lower())] for text in texts]
    ends = np.cumsum([0, *map(len, words)])
    columns = np.fromiter((word for text in words for word in text), np.int64, ends[-1])
    counts = csr_matrix((np.ones(len(columns), np.float32), columns, ends), (len(texts), WORD_BUCKETS))
    counts.sum_duplicates()
    holding = np.bincount(counts.indices, minlength=WORD_BUCKETS)
    weighted = counts.multiply(np.log((1 + len(texts)) / (1 + holding))[None, :]).tocsr()
    norms = np.sqrt(weighted.multiply(weighted).sum(axis=1)).A1
    rows = weighted.multiply((1 / np.maximum(norms, 1e-9))[:, None]).tocsr()
    others: list[int | None] = []
    for start in range(0, first, SIMILAR_ROWS):
        cosines = (rows[start : min(first, start + SIMILAR_ROWS)] @ rows.T).toarray()
        cosines[cosines >= TOO_SIMILAR] = 0.0
        best = cosines.argmax(axis=1)
        others += [int(other) if cosines[place, other] > 0 else None for place, other in enumerate(best)]
    return others


@dataclass(frozen=True)
class _Assemble:
    """Writes `<split>.parquet`; the receipt counts pairs by kind and language."""

    instructions: Folder
    out: Folder
    config: PreferencesConfig

    def __call__(self, part: Row) -> Row:
        split = part["name"]
        told = [row for name in part["answers"] for row in self.out.read_table(f"{name}.parquet").to_pylist()]
        rows = self.instructions.read_table(f"{split}.parquet").to_pylist()
        answers = {row["id"]: row["answer"] for row in told}
        pairs = comparisons(rows, answers, self.config, HELDOUT_SHARE if split == HELDOUT else 1)
        pairs.sort(key=lambda pair: pair["id"])
        self.out.write_table(f"{split}.parquet", pa.Table.from_pylist(pairs, schema=PAIR))
        kinds = Counter(pair["kind"] for pair in pairs)
        langs = Counter(pair["lang"] for pair in pairs)
        same = sum(bool(answer) for answer in answers.values()) - kinds[MODEL_ANSWER]
        return {"pairs": len(pairs), "kinds": dict(sorted(kinds.items())), "langs": dict(sorted(langs.items())), "answered_as_gold": same}


@dataclass(frozen=True)
class _Answer:
    """Answers of the exported model to a slice of a split's prompts, in batches of like lengths; an empty one where the prompt
    and the answer do not fit the model's positions. Written as `<part>.parquet`."""

    instructions: Folder
    model: Folder
    out: Folder
    config: PreferencesConfig

    def __call__(self, part: Row) -> Row:
        rows = self._prompts(part)
        answers = self._generate([_turns(row)[0] for row in rows], seed=content_key((part["name"],), self.config.seed))
        written = [{"id": row["id"], "answer": answer} for row, answer in zip(rows, answers, strict=True)]
        self.out.write_table(f"{part['name']}.parquet", pa.Table.from_pylist(written, schema=ANSWER))
        return {"answers": len(rows)}

    def _prompts(self, part: Row) -> list[Row]:
        """The part's share of the rows whose content hashes lowest, half of them in each language."""
        rows = self.instructions.read_table(f"{part['split']}.parquet", ["id", "lang", "messages"]).to_pylist()
        chosen: list[Row] = []
        for lang in LANGS:
            there = [row for row in rows if row["lang"] == lang]
            there.sort(key=lambda row: content_key((MODEL_ANSWER, row["id"]), self.config.seed))
            chosen += there[: part["limit"] // 2]
        return chosen[part["number"] * PART_PROMPTS :][:PART_PROMPTS]

    def _generate(self, prompts: list[list[dict[str, str]]], seed: int) -> list[str]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        config, folder = self.config.answers, str(self.model.local_path())
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        model.to(device).eval()
        torch.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
        sampling = {"do_sample": True, "temperature": config.temperature, "top_k": 0} if config.temperature else {"do_sample": False}
        encoded = [tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"] for prompt in prompts]
        room = model.config.max_position_embeddings - config.max_new_tokens
        order = sorted((place for place, ids in enumerate(encoded) if len(ids) <= room), key=lambda place: (len(encoded[place]), place))
        answers = [""] * len(prompts)
        for start in range(0, len(order), config.batch):
            places = order[start : start + config.batch]
            batch = tokenizer.pad({"input_ids": [encoded[place] for place in places]}, return_tensors="pt").to(device)
            made = model.generate(**batch, max_new_tokens=config.max_new_tokens, **sampling)[:, batch["input_ids"].shape[1] :]
            for place, answer in zip(places, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True):
                answers[place] = answer.strip()
        return answers
