from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import RequestError
from cluster.storage import Folder
from serving.config import ServeConfig
from serving.engine import adapter_rank, engine_kwargs
from tests.served import trainer_logprobs
from tests.serving.test_app import greedy_reference, reference_logprobs
from training.config import LoraConfig

MESSAGES = [{"role": "user", "content": "Bonjour !"}]


@pytest.mark.usefixtures("ray_session")
def test_offline_engine_in_an_actor_agrees_with_transformers(tiny_model: Path, tmp_path: Path) -> None:
    import ray

    from serving.engine import OfflineEngine

    log = tmp_path / "engine.log"
    prompt, expected = greedy_reference(tiny_model, MESSAGES, 12)
    stop = expected[5]
    until_stop = expected[: expected.index(stop)]
    sequences = [[0, *range(20, 90)], [2, 30, 31]]
    engine: Any = ray.remote(num_cpus=1)(OfflineEngine).remote(str(tiny_model), ServeConfig(dtype="float32", kv_cache_gib=0.25), str(log))
    try:
        assert ray.get(engine.generate.remote([prompt, prompt], 12, [])) == [expected, expected]
        assert ray.get(engine.generate.remote([prompt], 12, [stop])) == [until_stop]
        for tokens, logprobs in zip(sequences, ray.get(engine.token_logprobs.remote(sequences)), strict=True):
            assert logprobs == pytest.approx(reference_logprobs(tiny_model, tokens), abs=1e-4)
            assert logprobs == pytest.approx(trainer_logprobs(tiny_model, tokens), abs=1e-4)
        ray.get(engine.close.remote())
    finally:
        ray.kill(engine)
    assert "LlamaForCausalLM" in log.read_text()


@pytest.mark.usefixtures("ray_session")
def test_an_adapter_answers_as_the_model_it_is_merged_into(tiny_model: Path, tmp_path: Path) -> None:
    import ray

    from serving.engine import OfflineEngine

    merged, rank = write_adapter(tiny_model, tmp_path), 4
    prompt, expected = greedy_reference(merged, MESSAGES, 12)
    assert expected != greedy_reference(tiny_model, MESSAGES, 12)[1]
    config, adapter = ServeConfig(dtype="float32", kv_cache_gib=0.25), str(tmp_path / "adapter")
    assert adapter_rank(adapter) == 8 > rank
    engine: Any = ray.remote(num_cpus=1)(OfflineEngine).remote(str(tiny_model), config, str(tmp_path / "engine.log"), adapter)
    try:
        assert ray.get(engine.generate.remote([prompt], 12, [])) == [expected]
        tokens = [0, *range(20, 60)]
        (logprobs,) = ray.get(engine.token_logprobs.remote([tokens]))
        assert logprobs == pytest.approx(reference_logprobs(merged, tokens), abs=1e-2)
        ray.get(engine.close.remote())
    finally:
        ray.kill(engine)


def write_adapter(model: Path, root: Path) -> Path:
    """An adapter of the model in `root/adapter`; returns the folder of the model that it is merged into."""
    import torch

    from training.distil import load_export
    from training.export import export_model, model_config
    from training.lora import add_adapters, export_adapter, init_adapters, merged

    folder, lora = Folder(str(model)), LoraConfig(rank=4, alpha=8.0)
    config, vocab_size = model_config(folder.read_json("config.json"))
    trained = load_export(folder, config, vocab_size, torch.device("cpu"), torch.float32)
    add_adapters(trained, lora)
    init_adapters(trained, 1)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if name.endswith("lora_B.weight"):
                parameter.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(1))
    weights = dict(trained.state_dict())
    export_adapter(weights, lora, str(model), Folder(str(root)))
    export_model(merged(weights, lora), config, vocab_size, folder, Folder(str(root)), "merged", chat=True, dtype="float32")
    return root / "merged"


def test_folder_without_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"adapter_config\.json missing"):
        adapter_rank(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text('{"r": 1000}')
    with pytest.raises(RequestError, match="rank 1000"):
        adapter_rank(str(tmp_path))


def test_options_follow_the_recipe(tiny_model: Path) -> None:
    cpu = engine_kwargs(ServeConfig(kv_cache_gib=0.5, max_model_len=64), str(tiny_model))
    assert (cpu["kv_cache_memory_bytes"], cpu["max_model_len"], cpu["trust_remote_code"]) == (1 << 29, 64, False)
    gpu = engine_kwargs(ServeConfig(accelerator="gpu", tensor_parallel=2), str(tiny_model))
    assert gpu["tensor_parallel_size"] == 2
    assert "kv_cache_memory_bytes" not in gpu


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no model folder"):
        engine_kwargs(ServeConfig(), str(tmp_path / "absent"))
