from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from cluster.artifacts import Artifact
from cluster.errors import WorkError
from cluster.storage import Folder
from pipelines import mix, tokens
from pipelines.config import MixConfig, TokensConfig
from pipelines.document import render
from tests.clean_corpus import bilingual, document, write_clean
from training.tokenizer import fit, write_tokenizer

pytestmark = pytest.mark.usefixtures("ray_session")

TRAIN = [*bilingual(30), document("book", "en", "The string <|im_end|> is text here, and so is <|endoftext|>.")]
HELDOUT = [*bilingual(12, seed=900), document("livre", "fr", "Une page de plus, pour l’ordre.")]


@pytest.fixture
def inputs(storage, stage_context, finish) -> dict[str, Artifact]:
    clean = write_clean(storage, TRAIN, HELDOUT)
    mixing = stage_context("mix", MixConfig(ratios={"fr": 2.5}, sources={"programs": 0}), clean=clean)
    mixed = finish(mixing, mix.run(mixing))
    fitting = stage_context("tokenizer", TokensConfig())
    write_tokenizer(fitting.out, fit((row["text"] for row in TRAIN), 600))
    return {"clean": clean, "mix": mixed, "tokenizer": finish(fitting, {})}


def read_documents(out: Folder, path: str, dtype: str) -> list[list[int]]:
    """The documents of a shard as lists of ids, cut at the offsets of its index."""
    ids = np.frombuffer(out.read_bytes(path), dtype=dtype)
    ends = np.load(io.BytesIO(out.read_bytes(path.replace(".bin", ".idx.npy"))))
    assert ends.dtype == np.int64
    assert ends[-1] == len(ids)
    return [ids[begin:end].tolist() for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def decoded(tokenizer: Any, documents: list[list[int]]) -> list[str]:
    assert all(document[-1] == 0 and 0 not in document[:-1] for document in documents)
    return [tokenizer.decode(document[:-1], skip_special_tokens=False) for document in documents]


def test_every_training_text_comes_back_in_order(inputs, stage_context):
    context = stage_context("tokens", TokensConfig(), **inputs)
    metrics = tokens.run(context)
    index = context.out.read_json(tokens.INDEX)
    tokenizer = tokens.load_tokenizer(inputs["tokenizer"].folder)
    assert (index["dtype"], index["eos"], index["vocab_size"]) == ("uint16", 0, tokenizer.get_vocab_size())
    assert list(index["sources"]) == ["book", "livre", "pages"]
    assert index["sources"]["livre"]["ratio"] == 2.5
    for name, entry in index["sources"].items():
        (shard,) = entry["shards"]
        assert shard["path"] == f"train/{name}/{name}-0.bin"
        documents = read_documents(context.out, shard["path"], index["dtype"])
        texts = [text for row in TRAIN if row["source"] == name for text in render(row["text"], row["translation"])]
        assert decoded(tokenizer, documents) == texts
        sums = {"tokens": sum(map(len, documents)), "documents": len(texts), "bytes": sum(len(t.encode()) for t in texts)}
        assert {field: entry[field] for field in sums} == {field: shard[field] for field in sums} == sums
    assert metrics["streams"]["fr"]["tokens_seen"] == round(2.5 * metrics["streams"]["fr"]["tokens"])
    assert "pieces" not in {name.split("/")[0] for name in context.out.names()}


def test_heldout_is_joined_in_hash_order(inputs, stage_context):
    context = stage_context("tokens", TokensConfig(), **inputs)
    tokens.run(context)
    index = context.out.read_json(tokens.INDEX)
    tokenizer = tokens.load_tokenizer(inputs["tokenizer"].folder)
    assert set(index["heldout"]) == {"fr", "en", "parallel"}
    for stream, source in (("fr", "livre"), ("en", "book"), ("parallel", "pages")):
        entry = index["heldout"][stream]
        found = decoded(tokenizer, read_documents(context.out, entry["path"], index["dtype"]))
        texts = [text for row in HELDOUT if row["source"] == source for text in render(row["text"], row["translation"])]
        assert sorted(found) == sorted(texts)
        assert found != texts
        sizes = np.load(io.BytesIO(context.out.read_bytes(f"heldout/{stream}.bytes.npy")))
        assert sizes.tolist() == [len(text.encode()) for text in found]
        assert entry["bytes"] == sizes.sum()


def test_heldout_order_does_not_depend_on_how_parts_are_cut(inputs, storage, stage_context):
    first = stage_context("tokens", TokensConfig(), **inputs)
    tokens.run(first)
    folder = storage / "artifacts/clean/test"
    table = folder.read_table("corpus/heldout/livre-0.parquet")
    folder.write_table("corpus/heldout/livre-0.parquet", table.slice(0, 5))
    folder.write_table("corpus/heldout/livre-1.parquet", table.slice(5))
    second = stage_context("tokens", TokensConfig(), key="cut", **inputs)
    tokens.run(second)
    for name in ("heldout/fr.bin", "heldout/fr.idx.npy", "heldout/fr.bytes.npy"):
        assert first.out.read_bytes(name) == second.out.read_bytes(name)


def test_a_killed_stage_goes_on_to_the_same_bytes(inputs, stage_context):
    whole, killed = (stage_context("tokens", TokensConfig(), key=key, **inputs) for key in ("whole", "killed"))
    tokens.run(whole)
    tokens.run(killed)
    for lost in ("index.json", "receipts/train/livre-0.json", "train/livre"):
        killed.out.delete(lost)
    tokens.run(killed)
    assert killed.out.names() == whole.out.names()
    for name in whole.out.names():
        assert killed.out.read_bytes(name) == whole.out.read_bytes(name), name


def test_a_missing_document_is_noticed(inputs, storage, stage_context):
    folder = storage / "artifacts/clean/test"
    table = folder.read_table("corpus/train/livre-0.parquet")
    folder.write_table("corpus/train/livre-0.parquet", table.slice(1))
    context = stage_context("tokens", TokensConfig(), **inputs)
    with pytest.raises(WorkError, match="source livre: the corpus has 30 documents"):
        tokens.run(context)
    assert not context.out.exists(tokens.INDEX)


def test_no_heldout_documents(inputs, storage, stage_context):
    (storage / "artifacts/clean/test").delete("corpus/heldout")
    context = stage_context("tokens", TokensConfig(), **inputs)
    tokens.run(context)
    assert context.out.read_json(tokens.INDEX)["heldout"] == {}


def test_token_types():
    assert tokens.token_dtype(65_535).name == "uint16"
    assert tokens.token_dtype(65_536).name == "uint32"
