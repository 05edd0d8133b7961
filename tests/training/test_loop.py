from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cluster.errors import RequestError, WorkError
from tests.training.tiny import MODEL, VOCAB, SlowInput, job, settings, write_tokens
from training.average import average_checkpoints
from training.checkpoint import checkpoint_folder, checkpoint_path
from training.config import GoldfishConfig, OptimConfig, SpikesConfig
from training.data import IGNORE, Batch, Rows, TokenRows, TrainingData
from training.dcp import read_checkpoint
from training.job import Branch
from training.loop import train
from training.metrics import progress_reading, read_metrics
from training.model import Llama, init_weights
from training.objectives import DeviceBatch, next_token
from training.optim import build_optimizer
from training.schedule import learning_rate


def weights(root: Path, name: str) -> bytes:
    return (root / name / "export/model.safetensors").read_bytes()


def lines(root: Path, name: str, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(root / name / "metrics.jsonl") if line["kind"] == kind]


def plain_training(root: Path, config: Any, places: list[int], skipped: tuple[int, ...] = ()) -> tuple[Llama, list[float]]:
    """The same run without sharding, micro-batches or checkpoints: the loop's meaning in a dozen lines.

    `places` are the steps whose rows are read, one after another; those of `skipped` change nothing.
    """
    data = job(root, "plain", config).data()
    model = Llama(MODEL, VOCAB)
    init_weights(model, config.seed)
    optimizer = build_optimizer(model, config.optim)
    losses = []
    for step, place in enumerate(places):
        batch = data.rows.read(data.order.rows(step, place - step))
        loss = model(torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)) / (batch.targets != IGNORE).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, data.order.steps, config.optim)
        if place not in skipped:
            optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


def test_loop_is_plain_training_whatever_the_micro_batch(tmp_path: Path) -> None:
    config = settings(tokens=128 * 6)
    model, losses = plain_training(tmp_path, config, list(range(6)))
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
    assert summary["tokens"] == sum(
        int((data.rows.read(data.order.rows(step)).targets != IGNORE).sum()) for step in range(data.order.steps)
    )


@pytest.mark.parametrize(("fail_at", "optimizer"), [(1, "adamw"), (7, "muon"), (19, "adamw")])
def test_a_failed_run_goes_on_to_the_same_weights(tmp_path: Path, fail_at: int, optimizer: str) -> None:
    config = settings(checkpoint_every=4, optim=OptimConfig(optimizer=optimizer), spikes=SpikesConfig(window=6))
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


@dataclass(frozen=True)
class PoisonedInput:
    """Opens what `input` opens, with a mark on the rows that some steps take of the first source."""

    input: Callable[[], TrainingData]
    steps: tuple[int, ...]

    def __call__(self) -> TrainingData:
        data = self.input()
        assert isinstance(data.rows, TokenRows)
        rows = np.concatenate([data.order.rows(step) for step in self.steps])
        return replace(data, rows=_PoisonedRows(data.rows, rows[rows < data.rows.counts[0]]))


class _PoisonedRows:
    def __init__(self, rows: Rows, bad: np.ndarray) -> None:
        self.rows, self.bad, self.seq_len = rows, bad, rows.seq_len

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: np.ndarray) -> Batch:
        return self.rows.read(rows)._replace(extra={"bad": np.isin(rows, self.bad)})


def poisoned(model: Llama, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
    loss, targets = next_token(model, batch)
    return loss + torch.where(batch.extra["bad"].any(), math.nan, 0.0), targets


def test_bad_rows_are_skipped_then_gone_round_and_a_killed_run_does_the_same(tmp_path: Path) -> None:
    """Steps 10 to 14 are bad: the third one in a row sends the run back to step 8, which reads on where it was."""
    write_tokens(tmp_path / "tokens", documents=100)
    config = settings(checkpoint_every=4, tokens=128 * 20, spikes=SpikesConfig(max_skipped=3))
    data = PoisonedInput(job(tmp_path, "made", config).data, (10, 11, 12, 13, 14))
    marked = data()
    assert [place for place in range(25) if marked.rows.read(marked.order.rows(0, place)).extra["bad"].any()] == [10, 11, 12, 13, 14]
    summary = train(job(tmp_path, "whole", config, data=data, objective=poisoned))
    places = [*range(8), *range(13, 25)]
    _, losses = plain_training(tmp_path, config, places, skipped=(13, 14))
    assert summary["loss"] == pytest.approx(losses[-1], abs=1e-5)
    assert (summary["skipped_steps"], summary["shifts"], summary["steps"]) == (2, [[8, 5]], 20)
    (event,) = [line for line in lines(tmp_path, "whole", "event") if line["event"] == "rewound"]
    assert (event["step"], len(event["skipped"])) == (8, 3)
    assert "step 13 was the last" in event["message"]
    steps = [line["step"] for line in lines(tmp_path, "whole", "event")]
    assert steps == sorted(steps)

    for reads in (12 * 2, 14 * 2, 23 * 2):  # in the first row of bad steps, right after it, behind it
        name = f"broken-{reads}"
        failing = SlowInput(data, fail_at=reads)
        with pytest.raises(OSError, match="disk is gone"):
            train(job(tmp_path, name, config, data=failing, objective=poisoned))
        again = train(job(tmp_path, name, config, attempt="b", data=data, objective=poisoned))
        assert weights(tmp_path, name) == weights(tmp_path, "whole")
        assert again["shifts"] == summary["shifts"]


def test_a_spike_is_skipped_and_logged(tmp_path: Path) -> None:
    def spiking(model: Llama, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        loss, targets = next_token(model, batch)
        return loss * torch.where(batch.extra["bad"].any(), 3.0, 1.0), targets

    write_tokens(tmp_path / "tokens", documents=100)
    config = settings(tokens=128 * 16, spikes=SpikesConfig(window=8))
    data = PoisonedInput(job(tmp_path, "run", config).data, (12,))
    summary = train(job(tmp_path, "run", config, data=data, objective=spiking))
    (event,) = [line for line in lines(tmp_path, "run", "event") if line["event"] == "skipped"]
    assert (event["step"], summary["skipped_steps"]) == (13, 1)


def test_a_branch_at_a_constant_rate_ends_where_the_base_run_does(tmp_path: Path) -> None:
    """Weights, moments and place in the data go over; the same steps then give the same weights."""
    flat = OptimConfig(learning_rate=3e-3, schedule="wsd", warmup_ratio=0, decay_ratio=0)
    config = settings(tokens=128 * 16, keep_checkpoints=4, checkpoint_every=4, optim=flat)
    base = job(tmp_path, "base", config)
    train(base)
    rest = settings(tokens=128 * 8, optim=flat)
    summary = train(job(tmp_path, "rest", rest, branch=Branch(base.out, 8)))
    assert summary["shifts"] == [[0, 8]]
    assert weights(tmp_path, "rest") == weights(tmp_path, "base")
    again = train(job(tmp_path, "again", settings(tokens=128 * 4, optim=flat), branch=Branch(job(tmp_path, "rest", rest).out)))
    assert again["shifts"] == [[0, 16]]
    train(job(tmp_path, "other", rest, branch=Branch(base.out, 8, same_data=False)))
    assert weights(tmp_path, "other") != weights(tmp_path, "base")
    with pytest.raises(RequestError, match="no checkpoint of step 9, only of 4, 8, 12, 16"):
        train(job(tmp_path, "none", rest, branch=Branch(base.out, 9)))
    with pytest.raises(RequestError, match=r"cannot go on with the data.*seed differ"):
        train(job(tmp_path, "seed", rest.model_copy(update={"seed": 2}), branch=Branch(base.out, 8)))


def test_the_goldfish_loss_counts_what_is_left(tmp_path: Path) -> None:
    config = settings(tokens=128 * 3, goldfish=GoldfishConfig(k=2, context=3))
    sizes = {"whole": 8 * 16, "rows": 16}
    summaries = [train(job(tmp_path, name, config.model_copy(update={"micro_batch_tokens": size}))) for name, size in sizes.items()]
    assert summaries[0]["loss"] == pytest.approx(summaries[1]["loss"], abs=1e-5)
    assert summaries[0]["tokens"] == 128 * 3
    plain = train(job(tmp_path, "plain", settings(tokens=128 * 3)))
    assert plain["loss"] != summaries[0]["loss"]
    assert plain["loss"] == pytest.approx(summaries[0]["loss"], abs=0.2)


def test_the_mean_of_the_last_checkpoints_is_exported_and_read(tmp_path: Path) -> None:
    config = settings(tokens=128 * 16, checkpoint_every=4, keep_checkpoints=3, average_last=3, optim=OptimConfig(learning_rate=1e-2))
    made = job(tmp_path, "run", config)
    summary = train(made)
    assert summary["average"]["steps"] == [8, 12, 16]
    exported = [load_file(tmp_path / "run" / name / "model.safetensors") for name in ("export", "export-average")]
    assert any(not torch.equal(exported[0][name], tensor) for name, tensor in exported[1].items())
    parts = []
    for step in (8, 12, 16):  # without a process group
        parts.append({name: torch.empty_like(tensor) for name, tensor in Llama(MODEL, VOCAB).state_dict().items()})
        read_checkpoint({"model": parts[-1]}, checkpoint_path(checkpoint_folder(made.out), step))
    for name, tensor in exported[1].items():
        mean = torch.stack([part[name] for part in parts]).double().mean(0)
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-2, atol=1e-6)
    weights = {name: torch.empty_like(tensor) for name, tensor in parts[0].items()}
    assert average_checkpoints(weights, checkpoint_folder(made.out), 2) == [12, 16]
    torch.testing.assert_close(weights["model.norm.weight"], (parts[1]["model.norm.weight"] + parts[2]["model.norm.weight"]) / 2)


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


def test_the_models_options_reach_it(tmp_path: Path) -> None:
    recomputed, packed = [], []

    def watched(model: Llama, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        recomputed.append({layer.recompute for layer in model.model.layers})
        packed.append(batch.segments is not None)
        return next_token(model, batch)

    plain = settings(tokens=128)
    exact = train(job(tmp_path, "exact", plain, objective=watched))
    again = train(job(tmp_path, "again", plain.model_copy(update={"activation_checkpointing": "full"}), objective=watched))
    masked = train(job(tmp_path, "masked", plain.model_copy(update={"mask_documents": True}), objective=watched))
    assert recomputed == [{"none"}] * 2 + [{"full"}] * 2 + [{"none"}] * 2
    assert packed == [False] * 4 + [True] * 2
    assert again["loss"] == exact["loss"]
    assert masked["heldout"]["fr"]["nats_per_token"] != exact["heldout"]["fr"]["nats_per_token"]
    with pytest.raises(RequestError, match="fp8 needs an NVIDIA GPU"):
        train(job(tmp_path, "fp8", plain.model_copy(update={"fp8": True})))
