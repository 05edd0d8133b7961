"""The endpoint over real HTTP: one tiny model, served once for the whole run."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.errors import RequestError
from serving.app import deploy
from serving.config import ServeConfig
from tests.served import Served

MESSAGES = [{"role": "user", "content": "Bonjour !"}]


def post(served: Served, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.url}{path}", json={"model": "fournil", **body}, timeout=120)


def test_not_healthy_before_the_first_answer_then_healthy(served: Served) -> None:
    assert 503 in served.health_before
    assert served.health_before[-1] == 200
    assert set(served.health_before[:-1]) <= {None, 404, 503}
    answer = httpx.get(f"{served.url}/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "models": ["fournil"]})


def test_says_what_it_does_and_keeps_chatter_in_log_files(served: Served) -> None:
    lines = served.log.read_text().splitlines()
    assert lines[0] == "starting Ray Serve"
    assert any(line.startswith("loading the model") for line in lines)
    assert f"serving fournil at {served.url}" in lines
    known = ("starting", "loading", "serving", "  chat page", "  terminal", "  OpenAI API", "  logs")
    assert [line for line in lines if not line.startswith(known)] == []
    assert "LlamaForCausalLM" in (served.logs / "vllm.log").read_text()
    assert list(served.logs.glob("replica_*.log"))


def test_lists_its_model(served: Served) -> None:
    assert [card["id"] for card in httpx.get(f"{served.url}/v1/models").json()["data"]] == ["fournil"]
    assert httpx.get(f"{served.url}/v1/models/fournil").json()["id"] == "fournil"


def test_chat_is_what_transformers_generates_from_the_template(served: Served) -> None:
    answer = post(served, "/v1/chat/completions", messages=MESSAGES, max_tokens=12, temperature=0, return_token_ids=True).json()
    choice = answer["choices"][0]
    prompt, expected = greedy_reference(served.model, MESSAGES, 12)
    assert answer["prompt_token_ids"] == prompt
    assert choice["token_ids"] == expected
    assert answer["usage"]["prompt_tokens"] == len(prompt)


def test_streaming_gives_the_same_text_in_pieces(served: Served) -> None:
    whole = post(served, "/v1/chat/completions", messages=MESSAGES, max_tokens=12, temperature=0).json()["choices"][0]["message"]["content"]
    body = {"model": "fournil", "messages": MESSAGES, "max_tokens": 12, "temperature": 0, "stream": True}
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body, timeout=120) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        data = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert data[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in data[:-1]]
    assert "".join(pieces) == whole
    assert len([piece for piece in pieces if piece]) > 3


def test_echoed_logprobs_are_those_of_transformers(served: Served) -> None:
    tokens = [0, *range(20, 90), 250, 17, 130]
    answer = post(served, "/v1/completions", prompt=tokens, max_tokens=0, echo=True, logprobs=1, return_tokens_as_token_ids=True)
    logprobs = answer.json()["choices"][0]["logprobs"]
    assert logprobs["tokens"] == [f"token_id:{token}" for token in tokens]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["token_logprobs"][1:] == pytest.approx(reference_logprobs(served.model, tokens), abs=1e-2)


def test_tokenize_and_back(served: Served) -> None:
    tokens = post(served, "/tokenize", prompt="œuf", add_special_tokens=False).json()["tokens"]
    assert len(tokens) == len("œuf".encode())
    assert post(served, "/detokenize", tokens=tokens).json()["prompt"] == "œuf"


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/v1/chat/completions", {"model": "absent", "messages": MESSAGES}, 404, "invalid_request_error"),
        ("/v1/chat/completions", {"messages": "not a list"}, 400, "invalid_request_error"),
        ("/v1/chat/completions", {"messages": MESSAGES, "temperature": -3}, 400, "invalid_request_error"),
        ("/v1/completions", {"prompt": "a" * 400, "max_tokens": 5}, 400, "invalid_request_error"),
        ("/v1/nowhere", {}, 404, "invalid_request_error"),
        ("/v1/models", {}, 405, "invalid_request_error"),
    ],
)
def test_errors_have_the_shape_of_openai(served: Served, path: str, body: dict[str, Any], status: int, kind: str) -> None:
    answer = post(served, path, **body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["type"] == kind
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_openai_client_works(served: Served) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none")
    answer = client.chat.completions.create(model="fournil", messages=[{"role": "user", "content": "Hello"}], max_tokens=5)
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 5
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="absent", messages=[{"role": "user", "content": "Hello"}])


def test_a_full_queue_answers_429(served: Served) -> None:
    def long_answer(_: int) -> httpx.Response:
        return post(served, "/v1/completions", prompt=[50, 60], max_tokens=250, ignore_eos=True)

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(long_answer, range(32)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert int(refused[0].headers["retry-after"]) > 0
    assert refused[0].json()["error"]["type"] == "rate_limit_error"


def test_chat_page_is_self_contained(served: Served) -> None:
    page = httpx.get(f"{served.url}/")
    script = httpx.get(f"{served.url}/chat.js")
    assert (page.status_code, script.status_code) == (200, 200)
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for text in (page.text, script.text):
        assert "http://" not in text
        assert "https://" not in text
    assert "access-control-allow-origin" not in httpx.get(f"{served.url}/v1/models", headers={"Origin": "http://elsewhere"}).headers


def test_metrics_are_prometheus_text(served: Served) -> None:
    answer = httpx.get(f"{served.url}/metrics", timeout=30)
    assert answer.status_code == 200
    assert "# TYPE ray_" in answer.text


def test_port_in_use_is_refused_before_anything_starts(tiny_model: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=f"127.0.0.1:{port}.*--port"):
            deploy(str(tiny_model), ServeConfig(port=port), tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_what_is_no_model_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no model folder"):
        deploy(str(tmp_path / "absent"), ServeConfig(port=0), tmp_path / "logs")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RequestError, match=r"not a model: tokenizer.json, \*.safetensors missing"):
        deploy(str(tmp_path), ServeConfig(port=0), tmp_path / "logs")
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("")
    with pytest.raises(RequestError, match="not an address of this machine"):
        deploy(str(tmp_path), ServeConfig(port=0, host="no-such-host.invalid"), tmp_path / "logs")


def reference_logprobs(model_folder: Path, tokens: list[int]) -> list[float]:
    """Log-probability of tokens 1..n-1 in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    ids = torch.tensor([tokens])
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(ids).logits[0, :-1], dim=-1)
    return logprobs.gather(1, ids[0, 1:, None])[:, 0].tolist()


def greedy_reference(model_folder: Path, messages: list[dict[str, str]], max_tokens: int) -> tuple[list[int], list[int]]:
    """The templated prompt and its greedy continuation in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    model: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    output = model.generate(torch.tensor([prompt]), max_new_tokens=max_tokens, do_sample=False, use_cache=False)
    return prompt, output[0, len(prompt) :].tolist()
