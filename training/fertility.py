"""What tokenizers make of held-out text: tokens a word, bytes a token, and what the same content costs in each language.

- Fertility: tokens by words, words being what stands between blanks (Rust et al. 2021, arXiv 2012.15613).
- Premium: tokens of one side of the parallel documents by tokens of the other (Petrov et al. 2023, arXiv 2305.15425), sums by
  sums; the same ratio of UTF-8 bytes beside it, which is the premium of a tokenizer without merges.
Public tokenizers come from the package `mistral_common`, which vLLM brings; where it is missing they are left out.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Any

from cluster.artifacts import Artifact
from cluster.stage import StageContext, map_parts
from cluster.storage import Folder
from pipelines.document import render, stream_of
from pipelines.mix import HELDOUT, SourceKeys, corpus_parts
from pipelines.parts import read_batches
from pipelines.tokens import encode_text, load_tokenizer

FERTILITY_BYTES = 4_000_000
"""Held-out text of one part that is measured."""
COLUMNS = ["source", "lang", "translation_lang", "text", "translation"]
TEKKEN, SENTENCEPIECE = "tekken_240911.json", "tokenizer.model.v1"


def measure(context: StageContext, clean: Artifact, ours: Mapping[str, Folder], keys: SourceKeys, cut_to: int) -> dict[str, Any]:
    """Text, tokenizers and premiums of the held-out documents, by stream: the content of `fertility.json`.

    `ours` are tokenizers by name, the public ones come after them; `cut_to` see `public_tokenizers`.
    """
    parts = [{**part, "name": f"fertility/{part['name']}"} for part in corpus_parts(clean, HELDOUT)]
    receipts = map_parts(parts, _Measure(clean.folder, tuple(ours.items()), cut_to, keys), context)
    text = _by_key(receipt["text"] for receipt in receipts)
    sides = _by_key(receipt["sides"] for receipt in receipts)
    sizes = {name: size for receipt in receipts for name, size in receipt["vocab_sizes"].items()}
    rows = []
    for name, size in sorted(sizes.items(), key=lambda item: [*ours, item[0]].index(item[0])):
        tokens = add_counts(receipt["tokens"].get(name, {}) for receipt in receipts)
        streams = {
            stream: {
                "tokens": tokens[stream],
                "tokens_per_word": round(tokens[stream] / max(1, counts["words"]), 4),
                "bytes_per_token": round(counts["bytes"] / max(1, tokens[stream]), 4),
            }
            for stream, counts in text.items()
        }
        rows.append({"name": name, "vocab_size": size, "streams": streams, "premium": _premiums(sides, name)})
    note = "held-out text; words are what stands between blanks" + (
        "" if len(sizes) > len(ours) else "; no public tokenizer is installed here"
    )
    return {"text": text, "tokenizers": rows, "premium_of_bytes": _premiums(sides, "bytes"), "note": note}


@dataclass(frozen=True)
class _Measure:
    """Count bytes, words and every tokenizer's tokens by stream, and by side of parallel documents, over one held-out part."""

    clean: Folder
    ours: tuple[tuple[str, Folder], ...]
    cut_to: int
    keys: SourceKeys

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        tokenizers = [_own_tokenizer(name, folder) for name, folder in self.ours] + public_tokenizers(self.cut_to)
        text: dict[str, Counter[str]] = defaultdict(Counter)
        sides: dict[str, Counter[str]] = defaultdict(Counter)
        tokens: dict[str, Counter[str]] = defaultdict(Counter)
        measured = 0
        for row in (row for batch in read_batches(self.clean, part["path"], COLUMNS) for row in batch.to_pylist()):
            stream = stream_of(row["lang"], row["translation"] is not None)
            if not self.keys.is_seen(row["source"], stream) or measured >= FERTILITY_BYTES:
                continue
            for content in render(row["text"], row["translation"]):
                size = len(content.encode())
                measured += size
                text[stream].update(bytes=size, words=len(content.split()), documents=1)
                for one in tokenizers:
                    tokens[one.name][stream] += one.count(content)
            for side, content in _sides(row).items():
                sides[side].update({"bytes": len(content.encode()), **{one.name: one.count(content) for one in tokenizers}})
        return {"text": text, "sides": sides, "tokens": tokens, "vocab_sizes": {one.name: one.vocab_size for one in tokenizers}}


def _sides(row: dict[str, Any]) -> dict[str, str]:
    """Both sides of a parallel document by `language pair:language`; nothing for other documents."""
    if row["translation"] is None:
        return {}
    pair = "/".join(sorted((row["lang"], row["translation_lang"]), key=lambda lang: (lang == "en", lang)))
    return {f"{pair}:{row['lang']}": row["text"], f"{pair}:{row['translation_lang']}": row["translation"]}


def _premiums(sides: dict[str, dict[str, int]], unit: str) -> dict[str, float]:
    """By language pair `a/b` (English second) the units of side a by those of side b."""
    pairs = sorted({side.partition(":")[0] for side in sides})
    found = {pair: tuple(sides.get(f"{pair}:{lang}", {}).get(unit, 0) for lang in pair.split("/")) for pair in pairs}
    return {pair: round(one / other, 4) for pair, (one, other) in found.items() if other}


@dataclass(frozen=True)
class CountingTokenizer:
    """A tokenizer, as far as counting goes: `count` gives the tokens of a text without any added at its ends."""

    name: str
    vocab_size: int
    count: Callable[[str], int]


@lru_cache(maxsize=32)
def _own_tokenizer(name: str, folder: Folder) -> CountingTokenizer:
    tokenizer = load_tokenizer(folder)
    return CountingTokenizer(name, tokenizer.get_vocab_size(), lambda text: len(encode_text(tokenizer, text)))


def public_tokenizers(cut_to: int) -> list[CountingTokenizer]:
    """Tokenizers that installed packages ship: none, or Mistral's of 2023 (SentencePiece) and Tekken (2024), whole and cut.

    Tekken's tokens are ordered as they were merged, so its first `cut_to` make the tokenizer that its fit had at that size.
    """
    spec = util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        return []
    data = Path(spec.origin).parent / "data"
    found = []
    if util.find_spec("sentencepiece") and (data / SENTENCEPIECE).is_file():
        found.append(_sentencepiece(data / SENTENCEPIECE))
    if util.find_spec("tiktoken") and (data / TEKKEN).is_file():
        found += [_tekken(data / TEKKEN, None), _tekken(data / TEKKEN, cut_to)]
    return found


@lru_cache(maxsize=1)
def _sentencepiece(file: Path) -> CountingTokenizer:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(file))  # pyright: ignore[reportCallIssue]
    return CountingTokenizer("mistral-v1", processor.vocab_size(), lambda text: len(processor.encode(text)))


@lru_cache(maxsize=2)
def _tekken(file: Path, cut_to: int | None) -> CountingTokenizer:
    import base64

    import tiktoken

    data = json.loads(file.read_text(encoding="utf-8"))
    size = data["config"]["default_vocab_size"] - data["config"]["default_num_special_tokens"]
    size = size if cut_to is None else min(size, cut_to)
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in data["vocab"][:size]}
    name = "tekken-240911" if cut_to is None else f"tekken-240911, first {size:,} tokens"
    encoding = tiktoken.Encoding(name, pat_str=data["config"]["pattern"], mergeable_ranks=ranks, special_tokens={})
    return CountingTokenizer(name, encoding.n_vocab, lambda text: len(encoding.encode_ordinary(text)))


def add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sums by key, in the order of the keys."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _by_key(counts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """`add_counts` of each inner mapping."""
    listed = list(counts)
    keys = sorted({key for one in listed for key in one})
    return {key: add_counts(one.get(key, {}) for one in listed) for key in keys}
