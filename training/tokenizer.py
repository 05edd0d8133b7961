"""Byte-level BPE fitted on a sample of the clean corpus with fixed byte shares by stream.

- Lossless on every string: all 256 bytes are tokens and there is no normaliser (documents are NFC since extraction).
- Ids: 16 special tokens (`SPECIAL_TOKENS`), 256 bytes, then merges. Every digit is a token of its own.
- Words are cut for French and English alike (`WORD_PATTERN`).
- The same sample gives the same files, whatever the number of threads.
Files: `tokenizer.json`, `tokenizer_config.json` (with the chat template), `special_tokens_map.json`, `fertility.json` and
`sample/<unit>.parquet`, the texts it was fitted on (id, stream, text).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import xxhash

from cluster.errors import WorkError
from cluster.stage import Resources, StageContext, map_parts
from cluster.storage import Folder
from pipelines.document import render, stream_of
from pipelines.mix import MIX, TRAIN, SourceKeys, corpus_parts, source_keys
from pipelines.parts import PartWriter, read_batches
from pipelines.tokens import encode_text, load_tokenizer
from training.chat import CHAT_TEMPLATE
from training.config import TokenizerConfig
from training.fertility import add_counts, measure

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["SPECIAL_TOKENS", "WORD_PATTERN", "encode_text", "fit", "load_tokenizer", "run", "write_tokenizer"]

VERSION = "1"

END_OF_TEXT, PAD = "<|endoftext|>", "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, "<|im_start|>", "<|im_end|>", *(f"<|reserved_{number}|>" for number in range(12)))

_LETTER = r"[\p{L}\p{M}]"
WORD_PATTERN = "|".join(
    [
        rf" ?(?i:aujourd['’]hui)(?!{_LETTER})",
        rf" ?(?i:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quoiqu|presqu|quelqu)['’](?={_LETTER})(?!s(?!{_LETTER}))",
        rf"['’](?i:s|t|re|ve|m|ll|d)(?!{_LETTER})",
        rf"[ _.\-]?{_LETTER}+",
        r"\p{N}",
        r"[ \u00a0\u202f]?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
"""What BPE never merges across, by alternatives: `aujourd'hui` whole; a French elision with its apostrophe (` l'|homme`,
` qu’|il`); an English ending (` it|'s`); a word with the blank, hyphen, point or underscore before it (` peut|-être`,
`self|.name`); one digit; signs with a (no-break) blank before them; line ends; runs of blanks less the last, which goes
with the word that follows. Both apostrophes count."""

MAX_TOKEN_LENGTH = 32

COLUMNS = ["id", "source", "lang", "copies", "text", "translation"]
SAMPLE = pa.schema([("id", pa.string()), ("stream", pa.string()), ("text", pa.large_string())])


def run(context: StageContext) -> dict[str, Any]:
    """Draw the sample, fit, write the files and measure fertility on held-out text."""
    config = context.config
    assert isinstance(config, TokenizerConfig)
    made = sample_and_fit(context, config)
    ordinary = made.vocab_size - len(SPECIAL_TOKENS)
    fertility = measure(context, context.inputs["clean"], {"fournil": context.out}, made.keys, ordinary)
    context.out.write_json("fertility.json", fertility)
    return {
        "vocab_size": made.vocab_size,
        "sample_bytes": made.sample_bytes,
        "fertility": fertility["tokenizers"],
        "warnings": made.warnings,
    }


class Fitted(NamedTuple):
    """A tokenizer in the stage's folder: its size, the bytes by stream of `sample_paths` that it was fitted on, the mix's keys."""

    vocab_size: int
    sample_bytes: dict[str, int]
    sample_paths: list[str]
    keys: SourceKeys
    warnings: list[str]


def sample_and_fit(context: StageContext, config: TokenizerConfig) -> Fitted:
    """Draw the sample from the inputs `clean` and `mix` and fit on it; what an earlier try left whole is kept."""
    clean, mix = context.inputs["clean"], context.inputs["mix"].folder.read_json(MIX)
    fractions = sample_fractions(mix, config.shares, config.sample_mb * 1e6)
    keys = source_keys(mix)
    parts = [{**part, "name": f"sample/{part['name']}"} for part in corpus_parts(clean, TRAIN)]
    receipts = map_parts(parts, _Sample(clean.folder, context.out, fractions, keys), context)
    sampled = add_counts(receipt["bytes"] for receipt in receipts)
    if not sampled:
        raise WorkError(
            f"no text to fit the tokenizer on: `tokenizer.shares` names {sorted(config.shares)}, the mix has {sorted(mix['streams'])}"
        )
    paths = [receipt["path"] for receipt in receipts]
    vocab_size = _fit_once(context, config, paths)
    return Fitted(vocab_size, sampled, paths, keys, _warnings(config, sampled, vocab_size))


def fit(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens (fewer when the texts have no more pairs).

    Streams its input: the trainer keeps the distinct words with their counts, about 0.8 KB a word at its peak, and nothing
    of the texts. On real French, English and code 8 MB have 63,000 distinct words and 32 MB 208,000 (that many bytes to the
    power of 0.86), so the sample's size, `tokenizer.sample_mb`, bounds the memory: 0.14 GB for 8 MB, 0.26 GB for 32 MB; by the
    same law about 4 GB for 1 GB. The vocabulary's size hardly matters.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    pieces = [
        pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pieces)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=MAX_TOKEN_LENGTH,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def cut_tokenizer(tokenizer: Tokenizer, vocab_size: int) -> Tokenizer:
    """The tokenizer that `fit` makes of the same texts at the smaller `vocab_size`; the same one if it is not smaller.

    Fitting decides each merge from the counts alone and stops once the vocabulary is full, so a smaller fit is a prefix of a
    larger one: the merges up to the one that made token `vocab_size - 1`. (Two merges can make the same token, so merges
    are not counted.)
    """
    from tokenizers import Tokenizer

    content = json.loads(tokenizer.to_str())
    model = content["model"]
    if vocab_size >= len(model["vocab"]):
        return tokenizer
    last = next(token for token, number in model["vocab"].items() if number == vocab_size - 1)
    stop = next(place for place, (left, right) in enumerate(model["merges"]) if left + right == last)
    model["merges"] = model["merges"][: stop + 1]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < vocab_size}
    return Tokenizer.from_str(json.dumps(content))


def write_tokenizer(folder: Folder, tokenizer: Tokenizer) -> None:
    """The files that transformers' AutoTokenizer and vLLM load as they are; `tokenizer.json` last."""
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": END_OF_TEXT,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    folder.write_json("tokenizer_config.json", config)
    folder.write_json("special_tokens_map.json", {name: config[name] for name in ("bos_token", "eos_token", "pad_token")})
    folder.write_text("tokenizer.json", tokenizer.to_str(pretty=True))


def sample_fractions(mix: dict[str, Any], shares: dict[str, float], sample_bytes: float) -> dict[str, float]:
    """The part of each source (by key of the mix) to fit on, so that stream s gives `shares[s]` of `sample_bytes`.

    Inside a stream the sources weigh what the model will see of them (bytes times ratio) until one is used up; then the
    others fill its place. A stream shorter than its share is taken whole.
    """
    wanted = sum(shares.values())
    fractions: dict[str, float] = {}
    for stream, share in shares.items():
        open_sources = {key: entry for key, entry in mix["sources"].items() if entry["stream"] == stream and entry["ratio"] > 0}
        budget = sample_bytes * share / wanted if wanted else 0.0
        while open_sources:
            scale = budget / max(1, sum(entry["bytes"] * entry["ratio"] for entry in open_sources.values()))
            full = [key for key, entry in open_sources.items() if scale * entry["ratio"] >= 1]
            if not full:
                fractions |= {key: scale * entry["ratio"] for key, entry in open_sources.items()}
                break
            for key in full:
                fractions[key] = 1.0
                budget -= open_sources.pop(key)["bytes"]
    return fractions


@dataclass(frozen=True)
class _Sample:
    """Keep the documents of one part whose id hashes below their source's fraction."""

    clean: Folder
    out: Folder
    fractions: dict[str, float]
    keys: SourceKeys

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        sizes: Counter[str] = Counter()
        path = f"{part['name']}.parquet"
        with PartWriter(self.out, path, SAMPLE) as writer:
            for batch in read_batches(self.clean, part["path"], COLUMNS):
                rows = [row for row in batch.to_pylist() if self._is_drawn(row)]
                texts = [(row["id"], _stream(row), text) for row in rows for text in render(row["text"], row["translation"])]
                for _, stream, text in texts:
                    sizes[stream] += len(text.encode())
                writer.write(pa.Table.from_pylist([dict(zip(SAMPLE.names, text, strict=True)) for text in texts], schema=SAMPLE))
        return {"path": path, "bytes": dict(sorted(sizes.items()))}

    def _is_drawn(self, row: dict[str, Any]) -> bool:
        fraction = self.fractions.get(self.keys.key(row["source"], _stream(row), row["copies"]) or "", 0.0)
        return xxhash.xxh3_64_intdigest(row["id"].encode(), seed=1) < fraction * 2**64


def _stream(row: dict[str, Any]) -> str:
    return stream_of(row["lang"], row["translation"] is not None)


def _fit_once(context: StageContext, config: TokenizerConfig, paths: list[str]) -> int:
    """Fit on a worker unless a run that was killed later did; returns the size of the vocabulary."""
    import ray

    if not context.out.exists("tokenizer.json"):
        context.progress.start(None, "")
        context.progress.note(f"fitting {config.vocab_size:,} tokens")
        threads = _threads(context.resources, [node["Resources"].get("CPU", 0) for node in ray.nodes()])
        ray.get(ray.remote(num_cpus=threads)(_fit_task).remote(context.out, paths, config.vocab_size, threads))
    return load_tokenizer(context.out).get_vocab_size()


def _threads(resources: Resources, nodes: list[float]) -> int:
    """Cores of one worker, which is what one process can use, but no more than the largest of the nodes has."""
    return max(1, int(min(resources.cpus_per_worker, max(nodes, default=1))))


def _fit_task(out: Folder, paths: list[str], vocab_size: int, threads: int) -> None:
    os.environ |= {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(threads)}
    texts = (text for path in paths for batch in read_batches(out, path, ["text"]) for text in batch["text"].to_pylist())
    write_tokenizer(out, fit(texts, vocab_size))


def _warnings(config: TokenizerConfig, sampled: dict[str, int], vocab_size: int) -> list[str]:
    lines = []
    wanted, total = sum(config.shares.values()), sum(sampled.values())
    for stream, share in config.shares.items():
        found = sampled.get(stream, 0) / total
        if share and found < 0.8 * share / wanted:
            lines.append(f"the tokenizer's sample is {found:.0%} {stream} where {share / wanted:.0%} was asked for: the corpus has no more")
    if vocab_size < config.vocab_size:
        lines.append(f"the sample gave {vocab_size:,} tokens where {config.vocab_size:,} were asked for")
    return lines
