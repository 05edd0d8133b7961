from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cluster.errors import RequestError
from cluster.storage import Folder
from evaluation.engines import HttpEngine, load_tokenizer, model_context
from tests.evaluation.reference import TransformersEngine, ignore, model_of
from tests.served import Served

SEQUENCES = [[0, *range(20, 60)], [2, 30], [0, *range(100, 140)], *([0, n, n + 1] for n in range(20, 40))]


def test_http_engine_agrees_with_transformers(served: Served) -> None:
    """More requests at once than the endpoint lets in: the refused ones are sent again."""
    engine, reference = HttpEngine(served.url), TransformersEngine(served.model)
    try:
        for found, expected in zip(engine.token_logprobs(SEQUENCES), reference.token_logprobs(SEQUENCES), strict=True):
            assert found == pytest.approx(expected, abs=1e-2)
        prompts = [[0, 40, 41, 42], [2, 90, 91]]
        made = engine.generate(prompts, 6, [3])
        assert made == reference.generate(prompts, 6, [3])
        stop = made[0][2]
        assert engine.generate(prompts[:1], 6, [stop]) == [made[0][: made[0].index(stop)]]
    finally:
        engine.close()


def test_endpoint_without_the_model(served: Served) -> None:
    with pytest.raises(RequestError, match="does not serve baguette"):
        HttpEngine(served.url, "baguette")


def test_nobody_answers() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(RequestError, match="nobody answers at"):
            HttpEngine(f"http://127.0.0.1:{bound.getsockname()[1]}")


def test_special_tokens_of_a_chat_model(tiny_model: Path) -> None:
    model = model_of(None, tiny_model)
    assert (model.separator, model.stop_tokens) == (0, [0, 3])
    assert model.encode("<é>") == model.tokenizer.encode("<é>", add_special_tokens=False)


def test_long_text_is_cut_to_the_context(tiny_model: Path) -> None:
    engine = TransformersEngine(tiny_model)
    model = model_of(engine, tiny_model, context=12)
    long, short = model.log_likelihoods(["abcdefghijklmnop", "abcdefghij"], ignore)
    assert long == short


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no tokenizer\.json"):
        load_tokenizer(Folder(str(tmp_path)))
    with pytest.raises(RequestError, match=r"no config\.json"):
        model_context(Folder(str(tmp_path)))


def test_a_folder_elsewhere_is_copied(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    far = Folder("memory://models/tiny")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        far.write_bytes(name, (tiny_model / name).read_bytes())
    assert load_tokenizer(far).get_vocab() == load_tokenizer(Folder(str(tiny_model))).get_vocab()
    assert model_context(far) == 256
