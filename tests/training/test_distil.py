"""Distillation against the textbook formula with all logits, and its teacher from a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cluster.errors import RequestError
from cluster.storage import Folder
from tests.training.tiny import MODEL, VOCAB, job, settings, write_chat_tokenizer
from training.config import LOSS_CHUNK_ELEMENTS, DistilConfig, ModelConfig
from training.distil import Distillation, distil_step, distillation, load_export, teacher_hash
from training.export import export_model, huggingface_config, model_config
from training.loop import train
from training.loss import IGNORE
from training.model import Llama, init_weights
from training.objectives import DeviceBatch

LARGER = MODEL.model_copy(update={"hidden_size": 48, "num_hidden_layers": 3, "tie_word_embeddings": False, "initializer_range": 0.2})


def write_teacher(root: Path, seed: int = 7, config: ModelConfig = LARGER) -> tuple[Llama, Folder]:
    """A larger model with the run's tokenizer, exported to `root/export`."""
    model = Llama(config, VOCAB)
    init_weights(model, seed)
    tokenizer = Folder(str(root.parent / "tokenizer"))
    if not tokenizer.exists():
        write_chat_tokenizer(tokenizer)
    export_model(dict(model.state_dict()), config, VOCAB, tokenizer, Folder(str(root)), dtype="float32")
    return model, Folder(str(root / "export"))


def a_batch() -> DeviceBatch:
    tokens = torch.randint(0, VOCAB, (4, 17), generator=torch.Generator().manual_seed(1))
    targets = tokens[:, 1:].clone()
    targets[:, ::5] = IGNORE
    segments = torch.arange(16).repeat(4, 1) // 6
    return DeviceBatch(tokens[:, :-1], targets, segments, None, {})


def student() -> Llama:
    model = Llama(MODEL.model_copy(update={"initializer_range": 0.2}), VOCAB)
    init_weights(model, 2)
    return model


@pytest.mark.parametrize(("alpha", "temperature"), [(0.3, 2.0), (1.0, 1.0)])
def test_loss_and_gradients_are_those_of_whole_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alpha: float, temperature: float
) -> None:
    monkeypatch.setitem(LOSS_CHUNK_ELEMENTS, "cpu", 7 * VOCAB)  # ten chunks
    teacher, folder = write_teacher(tmp_path / "teacher")
    batch, ours, plain = a_batch(), student(), student()
    loss, counted = Distillation(folder, LARGER, VOCAB, alpha, temperature, "fp32")(ours, batch)
    loss.backward()

    valid = batch.targets != IGNORE
    logits = plain(batch.tokens, segment_ids=batch.segments)[valid]
    with torch.no_grad():
        wanted = teacher(batch.tokens, segment_ids=batch.segments)[valid]
    hard = F.cross_entropy(logits, batch.targets[valid], reduction="sum")
    soft = F.kl_div(F.log_softmax(logits / temperature, -1), F.softmax(wanted / temperature, -1), reduction="sum") * temperature**2
    expected = (1 - alpha) * hard + alpha * soft
    expected.backward()
    assert counted == valid.sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    for (name, mine), (_, theirs) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_a_model_has_nothing_to_learn_from_itself() -> None:
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(3))
    loss, grad = distil_step(logits, logits.clone(), torch.arange(6), 1.0, 3.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert grad.abs().max() < 1e-6


def test_a_run_with_a_teacher_comes_nearer_to_it(tmp_path: Path) -> None:
    """The student's KL from the teacher on training text falls, and more than by learning the text alone."""
    teacher, folder = write_teacher(tmp_path / "teacher")
    distil = DistilConfig(teacher=folder.url, alpha=1.0)
    config = settings(tokens=128 * 25, optim={"learning_rate": 1e-2})
    objective = distillation(config, distil, Folder(str(tmp_path / "tokenizer")))
    train(job(tmp_path, "taught", config, objective=objective))
    train(job(tmp_path, "alone", config))
    tokens = torch.from_numpy(job(tmp_path, "read", config).data().rows.read(np.arange(20)).tokens)
    with torch.no_grad():
        wanted = teacher(tokens).log_softmax(-1)
        fresh = Llama(MODEL, VOCAB)
        init_weights(fresh, config.seed)
        models = {"fresh": fresh, **{name: exported(tmp_path / name / "export") for name in ("taught", "alone")}}
        far = {
            name: F.kl_div(model(tokens).log_softmax(-1), wanted, log_target=True, reduction="batchmean").item()
            for name, model in models.items()
        }
    assert far["taught"] < 0.95 * far["fresh"]
    assert far["taught"] < far["alone"]


def exported(folder: Path) -> Llama:
    place = Folder(str(folder))
    config, vocab_size = model_config(place.read_json("config.json"))
    return load_export(place, config, vocab_size, torch.device("cpu"), torch.float32)


SCALED = {"rope_scaling": {"method": "yarn", "factor": 2.0}, "max_position_embeddings": 128}
LINEAR = {"rope_scaling": {"method": "linear", "factor": 4.0}, "max_position_embeddings": 128}


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "rope_theta": 5e5}, SCALED, LINEAR])
def test_a_config_json_gives_back_the_shape(changes: dict[str, Any]) -> None:
    shape = ModelConfig.model_validate(MODEL.model_dump() | changes)
    assert model_config(huggingface_config(shape, VOCAB, "bfloat16")) == (shape, VOCAB)


def test_other_models_are_refused(tmp_path: Path) -> None:
    theirs = huggingface_config(MODEL, VOCAB, "bfloat16")
    with pytest.raises(RequestError, match="attention_bias"):
        model_config({**theirs, "attention_bias": True})
    with pytest.raises(RequestError, match="head_dim"):
        model_config({**theirs, "head_dim": 64})
    with pytest.raises(RequestError, match=r"has no config\.json"):
        teacher_hash(DistilConfig(teacher=str(tmp_path)))
    _, folder = write_teacher(tmp_path / "teacher")
    named, tokenizer = DistilConfig(teacher=folder.url), Folder(str(tmp_path / "tokenizer"))
    with pytest.raises(RequestError, match="fewer than seq_len"):
        distillation(settings(seq_len=128, micro_batch_tokens=128), named, tokenizer)
    before = teacher_hash(named)
    write_teacher(tmp_path / "teacher", seed=8)
    assert teacher_hash(named) != before
    folder.write_json("tokenizer.json", {"other": True})
    with pytest.raises(RequestError, match="another tokenizer"):
        distillation(settings(), named, tokenizer)


def test_the_objective_travels_without_the_teacher(tmp_path: Path) -> None:
    import pickle

    _, folder = write_teacher(tmp_path / "teacher")
    made = distillation(settings(), DistilConfig(teacher=folder.url), Folder(str(tmp_path / "tokenizer")))
    assert len(pickle.dumps(made)) < 5_000
    assert replace(made, alpha=0.1).alpha == 0.1
