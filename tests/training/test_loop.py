from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.errors import WorkError
from tests.training.tiny import MODEL, VOCAB, SlowInput, job, settings
from training.config import OptimConfig
from training.data import IGNORE
from training.loop import train
from training.metrics import progress_reading, read_metrics
from training.model import Llama


def weights(root: Path, name: str) -> bytes:
    return (root / name / "export/model.safetensors").read_bytes()


def lines(root: Path, name: str, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(root / name / "metrics.jsonl") if line["kind"] == kind]


def plain_training(root: Path, config: Any, steps: int) -> tuple[Llama, list[float]]:
    """The same run without sharding, micro-batches or checkpoints: the loop's meaning in a dozen lines."""
    from training.model import init_weights
    from training.optim import build_optimizer
    from training.schedule import learning_rate

    data = job(root, "plain", config).data()
    model = Llama(MODEL, VOCAB)
    init_weights(model, config.seed)
    optimizer = build_optimizer(model, config.optim)
    losses = []
    for step in range(steps):
        batch = data.rows.read(data.order.rows(step))
        loss = model(torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)) / (batch.targets != IGNORE).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, data.order.steps, config.optim)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


def test_loop_is_plain_training_whatever_the_micro_batch(tmp_path: Path) -> None:
    config = settings(tokens=128 * 6)
    model, losses = plain_training(tmp_path, config, 6)
    for name, rows in (("one", 1), ("three", 3), ("all", 8)):
        summary = train(job(tmp_path, name, config.model_copy(update={"micro_batch_tokens": rows * 16})))
        assert summary["loss"] == pytest.approx(losses[-1], abs=1e-5)
    data = job(tmp_path, "all", config).data()
    for stream, part in data.heldout.items():
        batch = part.rows.read(np.arange(len(part.rows)))
        with torch.no_grad():
            nats = model(torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)).item()
        assert part.bytes is not None
        assert summary["heldout"][stream]["bits_per_byte"] == pytest.approx(nats / math.log(2) / part.bytes, rel=1e-4)


def test_training_learns_and_writes_what_it_measured(tmp_path: Path) -> None:
    config = settings(tokens=128 * 80, optim=OptimConfig(learning_rate=1e-2))
    summary = train(job(tmp_path, "run", config))
    assert summary["loss"] < 0.7 * math.log(VOCAB)
    assert json.loads((tmp_path / "run/summary.json").read_text()) == summary
    last = lines(tmp_path, "run", "train")[-1]
    assert last["step"] == last["steps"] == summary["steps"]
    assert last["tokens"] == summary["tokens"] <= last["total_tokens"]
    assert {"loss", "lr", "grad_norm", "tokens_per_s", "flops_share", "data_wait", "memory_mb"} <= set(last)
    readings = lines(tmp_path, "run", "eval")
    assert [line["step"] for line in readings] == [*range(10, summary["steps"], 10), summary["steps"]]
    assert set(readings[0]["heldout"]) == {"en", "fr"}
    done, total, unit, message = progress_reading(tmp_path / "run/metrics.jsonl")
    assert (done, total, unit) == (summary["tokens"], last["total_tokens"], "tokens")
    assert message.startswith("exporting the model, held-out en ")


def test_seen_tokens_are_the_mix_exactly_once(tmp_path: Path) -> None:
    config = settings()
    summary = train(job(tmp_path, "run", config))
    data = job(tmp_path, "run", config).data()
    assert summary["tokens"] == sum(data.rows.valid(data.order.rows(step)) for step in range(data.order.steps))


@pytest.mark.parametrize("fail_at", [1, 7, 19])
def test_a_failed_run_goes_on_to_the_same_weights(tmp_path: Path, fail_at: int) -> None:
    config = settings(checkpoint_every=4)
    whole = train(job(tmp_path, "whole", config))
    failing = SlowInput(job(tmp_path, "broken", config).data, fail_at=fail_at)
    with pytest.raises(OSError, match="disk is gone"):
        train(job(tmp_path, "broken", config, data=failing))
    assert not (tmp_path / "broken/summary.json").exists()
    summary = train(job(tmp_path, "broken", config, attempt="b"))
    assert weights(tmp_path, "broken") == weights(tmp_path, "whole")
    assert summary["heldout"] == whole["heldout"]
    steps = [line["step"] for line in lines(tmp_path, "broken", "eval")]
    assert steps == sorted(set(steps)) == [line["step"] for line in lines(tmp_path, "whole", "eval")]


def test_a_finished_run_trains_no_further(tmp_path: Path) -> None:
    config = settings()
    first = train(job(tmp_path, "run", config))
    (tmp_path / "run/summary.json").unlink()
    again = train(job(tmp_path, "run", config, attempt="b"))
    assert again["seconds"]["train"] == 0
    assert again["heldout"] == first["heldout"]
    assert json.loads(json.dumps(again))["tokens_per_s"] is None


def test_another_recipe_or_other_data_is_not_resumed(tmp_path: Path) -> None:
    config = settings()
    train(job(tmp_path, "run", config))
    with pytest.raises(WorkError, match="another recipe"):
        train(job(tmp_path, "run", config, identity={"recipe": "other"}))
    with pytest.raises(WorkError, match="seed 1 -> 2"):
        train(job(tmp_path, "run", config.model_copy(update={"seed": 2})))


def test_ten_steps_without_a_finite_loss_stop_the_run(tmp_path: Path) -> None:
    config = settings(optim=OptimConfig(learning_rate=1e30, grad_clip=1e30, warmup_ratio=0))
    with pytest.raises(WorkError, match=r"10 steps in a row had no finite loss.*lower optim.learning_rate"):
        train(job(tmp_path, "run", config))
    skipped = [line for line in lines(tmp_path, "run", "event") if line["event"] == "skipped"]
    assert len(skipped) == 10
    assert "gradient norm nan" in skipped[-1]["message"]


def test_fine_tuning_starts_from_the_weights_of_another_run(tmp_path: Path) -> None:
    config = settings(optim=OptimConfig(learning_rate=1e-2))
    base = train(job(tmp_path, "base", config))
    still = settings(tokens=128, optim=OptimConfig(learning_rate=1e-12))
    tuned = train(job(tmp_path, "tuned", still, initial=job(tmp_path, "base", config).out))
    assert tuned["heldout"]["fr"]["bits_per_byte"] == pytest.approx(base["heldout"]["fr"]["bits_per_byte"], rel=1e-5)


def test_compiled_and_bf16_training_agree_with_eager_fp32(tmp_path: Path) -> None:
    config = settings(tokens=128 * 6)
    exact = train(job(tmp_path, "exact", config))
    compiled = train(job(tmp_path, "compiled", config.model_copy(update={"compile": True})))
    narrow = train(job(tmp_path, "narrow", config.model_copy(update={"precision": "bf16"})))
    assert compiled["loss"] == pytest.approx(exact["loss"], abs=1e-4)
    assert narrow["loss"] == pytest.approx(exact["loss"], abs=3e-2)
    assert compiled["compile"]
    assert narrow["precision"] == "bf16"
