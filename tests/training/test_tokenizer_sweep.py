"""Several sizes from one fit, measured and costed."""

from __future__ import annotations

import pytest

from pipelines import mix
from pipelines.config import MixConfig
from pipelines.tokens import load_tokenizer
from tests.clean_corpus import bilingual, write_clean
from training import tokenizer_sweep as sweep
from training.config import PRESETS
from training.flops import flops_per_token, parameter_count
from training.model import Llama
from training.tokenizer import fit


@pytest.mark.usefixtures("ray_session")
def test_all_sizes_come_from_one_sample(storage, stage_context, finish):
    clean = write_clean(storage, bilingual(100), bilingual(5, seed=500))
    mixing = stage_context("mix", MixConfig(), clean=clean)
    mixed = finish(mixing, mix.run(mixing))
    config = sweep.SweepConfig(vocab_size=640, sizes=(512, 560, 640), sample_mb=0.1, shares={"fr": 0.5, "en": 0.3, "code": 0.2})
    context = stage_context("tokenizer_sweep", config, clean=clean, mix=mixed)
    metrics = sweep.run(context)
    assert metrics["sizes"] == [512, 560, 640]
    texts = [text for name in context.out.names(".parquet") for text in context.out.read_table(name)["text"].to_pylist()]
    for size in metrics["sizes"]:
        alone = fit(iter(texts), size)
        alone.encode_special_tokens = True
        assert load_tokenizer(context.out / f"sizes/{size}").to_str() == alone.to_str()
    report = context.out.read_json(sweep.SWEEP)
    ours = [row for row in report["tokenizers"] if row["name"].startswith("fournil")]
    assert [(row["name"], row["vocab_size"]) for row in ours] == [(f"fournil {size}", size) for size in metrics["sizes"]]
    for stream in report["text"]:
        tokens = [row["streams"][stream]["tokens"] for row in ours]
        assert tokens == sorted(tokens, reverse=True)
    assert set(report["mix"]["streams"]) == {"fr", "en", "code"}
    for shares in report["mix"]["streams"].values():
        assert shares["inferred"] == pytest.approx(shares["drawn"], abs=0.05)
    assert report["mix"]["largest_gap"] <= 0.05


def test_shares_are_compared_with_what_was_drawn():
    inferred = {"shares": {"fr": 0.5, "en": 0.5}, "merges": 10, "bytes": {"fr": 1, "en": 1}}
    found = sweep.compare_shares({"fr": 1, "en": 3}, {"fr": 300, "en": 700}, inferred)
    assert found["streams"]["fr"] == {"asked": 0.25, "drawn": 0.3, "inferred": 0.5}
    assert found["largest_gap"] == 0.2


@pytest.mark.parametrize("tied", [True, False])
def test_what_a_vocabulary_costs(tied):
    import torch

    model = PRESETS["3m"][0].model_copy(update={"tie_word_embeddings": tied})
    cost = sweep.model_cost(model, 1_000, 128, 0.25)
    with torch.device("meta"):
        sizes = {name: tensor.numel() for name, tensor in Llama(model, 1_000).named_parameters()}
    tables = sum(size for name, size in sizes.items() if name.startswith(("model.embed_tokens", "lm_head")))
    assert cost["embedding_parameters"] == tables
    assert cost["parameters"] == sum(sizes.values()) == parameter_count(model, 1_000)
    assert cost["embedding_share"] == round(tables / sum(sizes.values()), 4)
    assert cost["flops_per_byte"] == round(flops_per_token(model, 1_000, 128) / 4)


def test_the_part_of_the_sample_that_is_read_is_even(storage):
    import pyarrow as pa

    paths = ["sample/a.parquet", "sample/b.parquet"]
    for path in paths:
        rows = [{"stream": stream, "text": f"{path[7]}{number:03}"} for number in range(50) for stream in ("fr", "en")]
        storage.write_table(path, pa.Table.from_pylist(rows), row_group_size=7)
    taken = list(sweep._sample(storage, paths, "fr", 100))
    assert len(taken) == pytest.approx(25, abs=1)
    assert sum(text.startswith("a") for text in taken) == pytest.approx(12, abs=1)
    assert len(list(sweep._sample(storage, paths, "en", 10_000))) == 100
