"""How much each training stage will see: counted where the stage before has run, else from the recipe, else guessed from bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from cluster.artifacts import Artifact
from fournil.recipe import Recipe
from pipelines.document import stream_of
from pipelines.mix import MANY_EPOCHS, MIX, annealing_ratios, make_mix
from pipelines.parts import read_batches
from training.anneal import CHAT, CHAT_SOURCE, anneal_settings
from training.config import FineTuneConfig, LoopConfig
from training.data import seen_by_source, token_order
from training.order import Order
from training.plan import scaled
from training.sft import TRAIN

BYTES_PER_TOKEN = 3.5
"""A guess used only until tokens have been counted; French, English and code lie between 2.6 and 4.2."""

GUESSED = f"guessed at {BYTES_PER_TOKEN} bytes per token"
TEXTS = {"instructions": {"messages": 1}, "preferences": {"messages": 2, "chosen": 1, "rejected": 1}}
"""How often a row of training has each column of its examples: both answers of a pair are there with the prompt before them."""
EXAMPLES = {"sft": ("instructions", "examples"), "dpo": ("preferences", "pairs")}
"""The stage that makes a stage's examples, and what its counts call them."""

Ready = Mapping[str, Artifact]
"""What is finished of a recipe, by stage."""


@dataclass(frozen=True)
class Amount:
    """What a stage will see: `tokens` (None while nobody can tell) and where that comes from; where the stage sees examples,
    their number and the tokens of all once, None until they are there."""

    tokens: int | None
    origin: str
    examples: int | None = None
    once: int | None = None


def planned_amounts(recipe: Recipe, ready: Ready) -> dict[str, Amount]:
    """By stage, of the training stages that the recipe asks for."""
    amounts = {"pretrain": Amount(*planned_tokens(recipe, ready))}
    if recipe.anneal:
        amounts["anneal"] = Amount(recipe.anneal.tokens, "anneal.tokens")
    amounts["sft"] = examples_seen("sft", recipe.sft, ready)
    if recipe.dpo:
        amounts["dpo"] = examples_seen("dpo", recipe.dpo, ready)
    return amounts


def planned_tokens(recipe: Recipe, ready: Ready) -> tuple[int | None, str]:
    """Tokens that pretraining will see and where that figure comes from: counted, asked for, or guessed from caps."""
    if recipe.pretrain.tokens:
        return recipe.pretrain.tokens, "pretrain.tokens"
    if "tokens" in ready:
        index = ready["tokens"].folder.read_json("index.json")
        return round(sum(source["tokens"] * source["ratio"] for source in index["sources"].values())), "counted"
    caps = [source.cap_mb for source in recipe.sources]
    if any(cap is None for cap in caps):
        return None, "unknown until the tokens stage has run: a source has no cap_mb and pretrain.tokens is not set"
    return round(sum(cap for cap in caps if cap) * 1e6 / BYTES_PER_TOKEN), f"guessed: caps at {BYTES_PER_TOKEN} bytes per token, seen once"


def examples_seen(stage: str, settings: FineTuneConfig, ready: Ready) -> Amount:
    """What fine-tuning (`sft`) or preference optimisation (`dpo`) sees of the examples that the stage before it writes."""
    maker, kind = EXAMPLES[stage]
    examples = once = None
    origin = f"unknown until the {maker} stage has run"
    if stage in ready:
        counts = ready[stage].metrics[kind][TRAIN]
        examples, once, origin = counts[kind], counts["rows"] * settings.seq_len, "counted"
    elif maker in ready:
        examples = ready[maker].metrics[TRAIN][kind]
        once, origin = _guessed_tokens(maker, ready), GUESSED
    if settings.tokens:
        return Amount(settings.tokens, f"{stage}.tokens", examples, once)
    if not once:
        return Amount(None, origin)
    rows = -(-once // settings.seq_len)
    seen = Order([rows], [settings.epochs], settings.batch_tokens // settings.seq_len, settings.seed).total_rows
    return Amount(seen * settings.seq_len, origin, examples, once)


def _guessed_tokens(maker: str, ready: Ready) -> int:
    """Tokens of all training examples of a stage, from the bytes of their texts."""
    texts = TEXTS[maker]
    size = sum(
        times * int(pl.DataFrame(batch)[name].str.len_bytes().sum())
        for batch in read_batches(ready[maker].folder, f"{TRAIN}.parquet", list(texts))
        for name, times in texts.items()
    )
    return round(size / BYTES_PER_TOKEN)


# --- sources ---


def describe_sources(recipe: Recipe, ready: Ready, tokens: int | None) -> dict[str, str]:
    """For each source of the mix the tokens that pretraining will see of it, the epochs and the share: counted once the tokens
    stage has run, from the mix's bytes once that has, before it from the caps."""
    if "tokens" in ready:
        return _source_lines("counted", _counted(ready["tokens"].folder.read_json("index.json"), recipe.pretrain))
    mix, origin = _mix(recipe, ready)
    if mix is None:
        return {"unknown": origin}
    return _source_lines(origin, _spread({name: (_guess(entry), entry["ratio"]) for name, entry in mix["sources"].items()}, tokens))


def describe_annealing(recipe: Recipe, ready: Ready) -> dict[str, str]:
    """The same of annealing, which has a mix of its own and may see the chat examples."""
    anneal = recipe.anneal
    assert anneal is not None
    mix, origin = _mix(recipe, ready)
    if mix is None:
        return {"unknown": origin}
    ratios = annealing_ratios(mix, recipe.mix, anneal.mix)
    chat, note = _chat_tokens(ready) if anneal.instructions else (None, "")
    if chat:
        ratios[CHAT_SOURCE] = anneal.instructions
    if "tokens" in ready:
        index = ready["tokens"].folder.read_json("index.json")
        if chat:
            index["sources"][CHAT_SOURCE] = {"tokens": chat, "shards": [{"path": "", "tokens": chat}]}
        origin, amounts = "counted", _counted(index, anneal_settings(recipe.pretrain, anneal, 1), ratios)
    else:
        sizes = {name: _guess(entry) for name, entry in mix["sources"].items()} | ({CHAT_SOURCE: chat} if chat else {})
        amounts = _spread({name: (size, ratios[name]) for name, size in sizes.items()}, anneal.tokens)
    return _source_lines(origin + note, {name: (size, seen) for name, (size, seen) in amounts.items() if seen})


def _source_lines(origin: str, amounts: dict[str, tuple[float, float]]) -> dict[str, str]:
    total = sum(seen for _, seen in amounts.values())
    lines = {"from": origin}
    for name, (size, seen) in amounts.items():
        epochs = seen / size if size else 0.0
        warning = f", more than {MANY_EPOCHS:g} epochs teach less and less" if epochs > MANY_EPOCHS else ""
        share = 100 * seen / total if total else 0.0
        amount = f"{scaled(seen).rstrip()} tokens of {scaled(size).rstrip()} ({epochs:.3g} epochs)"
        lines[name] = f"{amount}, {share:.1f} % of what is seen{warning}"
    return lines


def _counted(index: dict[str, Any], settings: LoopConfig, ratios: dict[str, float] | None = None) -> dict[str, tuple[float, float]]:
    """Tokens that each source has and those that are seen, exactly as a run on that index sees them."""
    found = seen_by_source(*token_order(index, settings, ratios))
    return {name: (entry["tokens"], found.get(name, {"tokens": 0})["tokens"]) for name, entry in index["sources"].items()}


def _mix(recipe: Recipe, ready: Ready) -> tuple[dict[str, Any] | None, str]:
    """`mix.json`, or what it would be if cleaning removed nothing of the sources' caps; and what the figures come from."""
    if "mix" in ready:
        return ready["mix"].folder.read_json(MIX), f"bytes counted, tokens {GUESSED}"
    if any(source.cap_mb is None for source in recipe.sources):
        return None, "until the mix stage has run: a source has no cap_mb"
    counts = [
        {
            "source": source.name,
            "stream": stream_of(source.lang, bool(getattr(source, "translation_lang", None))),
            "family": source.family,
            "lang": source.lang,
            "copies": 1,
            "documents": 0,
            "bytes": round((source.cap_mb or 0) * 1e6),
        }
        for source in recipe.sources
    ]
    return make_mix(counts, recipe.mix), f"caps, nothing removed, tokens {GUESSED}"


def _guess(entry: dict[str, Any]) -> float:
    return entry["bytes"] / BYTES_PER_TOKEN


def _spread(amounts: dict[str, tuple[float, float]], tokens: int | None) -> dict[str, tuple[float, float]]:
    """Sizes and ratios to sizes and tokens seen, of `tokens` (None: one pass) in all."""
    one_pass = sum(size * ratio for size, ratio in amounts.values())
    passes = tokens / one_pass if tokens and one_pass else 1.0
    return {name: (size, size * ratio * passes) for name, (size, ratio) in amounts.items()}


def _chat_tokens(ready: Ready) -> tuple[int | None, str]:
    """Tokens of the chat examples that annealing mixes in, and what to say of that figure."""
    if "anneal" in ready:
        return ready["anneal"].folder.read_json(f"{CHAT}/index.json")["sources"][CHAT_SOURCE]["tokens"], ""
    if "instructions" in ready:
        return _guessed_tokens("instructions", ready), f"; chat examples {GUESSED}"
    return None, "; without the chat examples, unknown until the instructions stage has run"
