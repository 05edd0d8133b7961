"""A whole bake small enough for a test: four local files, a model of a few thousand parameters, the real engines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.corpus import write_corpus

LANGUAGES = {"fr": {"gopher": {"min_words": 20}, "langid_min": 0.3}, "en": {"gopher": {"min_words": 20}, "langid_min": 0.3}}
LOOP = {"seq_len": 64, "batch_tokens": 2048, "micro_batch_tokens": 2048, "precision": "fp32", "compile": False, "checkpoint_every": 4}


def tiny_recipe(corpus: Path) -> dict[str, object]:
    """The recipe as data, reading `fr.jsonl`, `en.jsonl`, `code.jsonl` and `parallel.jsonl` below `corpus`."""
    sources: list[dict[str, object]] = [
        {
            "name": f"made-{lang}",
            "reader": "jsonl",
            "paths": [str(corpus / f"{lang}.jsonl")],
            "lang": lang,
            "family": family,
            "license": "CC0-1.0",
        }
        for lang, family in (("fr", "culture"), ("en", "culture"), ("code", "code"))
    ]
    parallel: dict[str, object] = {"name": "made-parallel", "reader": "jsonl", "paths": [str(corpus / "parallel.jsonl")], "lang": "fr"}
    parallel |= {"translation_lang": "en", "columns": {"translation": "translation"}, "family": "translation", "license": "CC0-1.0"}
    return {
        "name": "tiny",
        "sources": [*sources, parallel],
        "clean": {"languages": LANGUAGES, "heldout_share": 0.1},
        "tokenizer": {"vocab_size": 512, "sample_mb": 1},
        "model": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 256,
        },
        "pretrain": {**LOOP, "tokens": 24576, "eval_every": 6, "eval_tokens": 2048, "optim": {"schedule": "wsd", "decay_ratio": 0.0}},
        "instructions": {"default_max_examples": 60},
        "anneal": {"tokens": 8192, "instructions": 0.5},
        "sft": {**LOOP, "seq_len": 256, "tokens": 8192},
        "eval": {"heldout_kb": 4, "minimal_pairs": 10, "translation_segments": 3, "max_new_tokens": 8, "train_mb": 0.2},
    }


PREFERENCES = {
    "preferences": {"max_pairs": {"other_sentence": 20}, "answers": {"max_pairs": 6, "max_new_tokens": 8}},
    "dpo": {**LOOP, "seq_len": 256, "lora": {"rank": 4}},
}


def write_tiny(folder: Path, documents: int = 120, more: dict[str, object] | None = None) -> Path:
    """Write corpus and recipe (with the sections `more`) below `folder`; returns the recipe's path."""
    write_corpus(folder / "corpus", documents)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe(folder / "corpus") | (more or {}), sort_keys=False), encoding="utf-8")
    return path


def fournil(*arguments: str, timeout: float = 600, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, in a process of its own."""
    command = [sys.executable, "-m", "fournil.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}, check=False)
