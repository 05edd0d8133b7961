from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import RequestError
from serving.config import ServeConfig
from serving.engine import engine_kwargs
from tests.serving.test_app import greedy_reference, reference_logprobs

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
            assert logprobs == pytest.approx(reference_logprobs(tiny_model, tokens), abs=1e-2)
        ray.get(engine.close.remote())
    finally:
        ray.kill(engine)
    assert "LlamaForCausalLM" in log.read_text()


def test_options_follow_the_recipe(tiny_model: Path) -> None:
    cpu = engine_kwargs(ServeConfig(kv_cache_gib=0.5, max_model_len=64), str(tiny_model))
    assert (cpu["kv_cache_memory_bytes"], cpu["max_model_len"], cpu["trust_remote_code"]) == (1 << 29, 64, False)
    gpu = engine_kwargs(ServeConfig(accelerator="gpu", tensor_parallel=2), str(tiny_model))
    assert gpu["tensor_parallel_size"] == 2
    assert "kv_cache_memory_bytes" not in gpu


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no model folder"):
        engine_kwargs(ServeConfig(), str(tmp_path / "absent"))
