"""Several vocabulary sizes on one sample, measured beside public tokenizers: `fournil tokenizer RECIPE --sizes ...`.

One fit at the largest size gives all smaller ones (`training/tokenizer.cut_tokenizer`). Files: those of the tokenizer stage for
the largest size, `sizes/<size>/` for each, and `sweep.json`: `fertility.json`'s content with `mix`, the shares of the sample
as the recipe asks for them, as they were drawn, and as the merges tell (`training/inferred_mix.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from pydantic import Field

from cluster.stage import StageContext
from cluster.storage import Folder
from pipelines.parts import read_batches
from pipelines.tokens import load_tokenizer
from training.config import ModelConfig, TokenizerConfig, VocabSize
from training.fertility import measure
from training.flops import flops_per_token, parameter_count
from training.inferred_mix import infer_mix
from training.tokenizer import MAX_TOKEN_LENGTH, SPECIAL_TOKENS, cut_tokenizer, sample_and_fit, write_tokenizer

VERSION = "1"
SWEEP = "sweep.json"
INFER_BYTES = 4_000_000
"""Text of one stream that the mix is inferred from: about 5 s of one core and 200 MB of memory."""


class SweepConfig(TokenizerConfig):
    """The recipe's tokenizer section with the sizes to fit in place of its own."""

    sizes: tuple[VocabSize, ...] = Field(min_length=1)


def run(context: StageContext) -> dict[str, Any]:
    """Fit the largest size, cut the others from it, measure them all and infer the mix back."""
    config = context.config
    assert isinstance(config, SweepConfig)
    made = sample_and_fit(context, config)
    largest = load_tokenizer(context.out)
    folders = {size: context.out / f"sizes/{size}" for size in sorted({min(size, made.vocab_size) for size in config.sizes})}
    for size, folder in folders.items():
        write_tokenizer(folder, cut_tokenizer(largest, size))
    ours = {f"fournil {size:,}": folder for size, folder in folders.items()}
    report = measure(context, context.inputs["clean"], ours, made.keys, max(folders) - len(SPECIAL_TOKENS))
    context.progress.start(None, "")
    context.progress.note("inferring the mix from the merges")
    samples = {stream: _sample(context.out, made.sample_paths, stream, INFER_BYTES) for stream in made.sample_bytes}
    inferred = infer_mix(largest, samples, MAX_TOKEN_LENGTH)
    report["mix"] = compare_shares(config.shares, made.sample_bytes, inferred)
    context.out.write_json(SWEEP, report)
    return {"sizes": list(folders), "sample_bytes": made.sample_bytes, "mix": report["mix"], "warnings": made.warnings}


def _sample(folder: Folder, paths: list[str], stream: str, limit: int) -> Iterator[str]:
    """Texts of one stream in the sample, an even part of every file, about `limit` bytes in all."""
    total = sum(len(text.encode()) for text in _texts(folder, paths, stream))
    seen, taken = 0, 0
    for text in _texts(folder, paths, stream):
        seen += len(text.encode())
        if taken * total <= seen * limit:
            taken += len(text.encode())
            yield text


def _texts(folder: Folder, paths: list[str], stream: str) -> Iterator[str]:
    tables = chain.from_iterable(read_batches(folder, path, ["stream", "text"]) for path in paths)
    return (text for table in tables for name, text in zip(*table.to_pydict().values(), strict=True) if name == stream)


def compare_shares(wanted: dict[str, float], drawn: dict[str, int], inferred: dict[str, Any]) -> dict[str, Any]:
    """Shares of the sample's bytes by stream: `asked`, `drawn` and `inferred`, and the largest gap between the last two."""
    whole, total = sum(wanted.values()), sum(drawn.values())
    streams = {
        stream: {"asked": round(wanted.get(stream, 0) / whole, 4), "drawn": round(size / total, 4), "inferred": inferred["shares"][stream]}
        for stream, size in drawn.items()
    }
    gap = max(abs(entry["drawn"] - entry["inferred"]) for entry in streams.values())
    return {"streams": streams, "largest_gap": round(gap, 4), "merges": inferred["merges"], "bytes": inferred["bytes"]}


def model_cost(model: ModelConfig, vocab_size: int, seq_len: int, tokens_per_byte: float) -> dict[str, float]:
    """What a vocabulary costs the model: parameters of the embeddings (input, and output where untied), their share of all
    parameters, and the training FLOPs of one byte of the mix, which fall with longer tokens and rise with a larger output."""
    embeddings = (1 if model.tie_word_embeddings else 2) * vocab_size * model.hidden_size
    parameters = parameter_count(model, vocab_size)
    return {
        "embedding_parameters": embeddings,
        "parameters": parameters,
        "embedding_share": round(embeddings / parameters, 4),
        "flops_per_byte": round(flops_per_token(model, vocab_size, seq_len) * tokens_per_byte),
    }
