"""Tokens that a small model never saw, found by its embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cluster.errors import RequestError
from cluster.storage import Folder
from tests.training.tiny import MODEL, VOCAB, job, settings, write_tokens
from training import glitch
from training.config import OptimConfig
from training.data import open_tokens
from training.loop import train
from training.seen import count_targets

STEPS = 120
NEVER = sorted(np.random.default_rng(7).choice(np.arange(16, VOCAB), 40, replace=False).tolist())


def write_tokens_without(root: Path, absent: list[int]) -> Folder:
    """`write_tokens` whose training shards have other tokens in place of the absent ones."""
    folder = write_tokens(root, documents=60)
    instead = np.arange(VOCAB)
    instead[absent] = next(token for token in range(16, VOCAB) if token not in absent)
    for shard in root.glob("train/*/*.bin"):
        instead[np.fromfile(shard, "<u2")].astype("<u2").tofile(shard)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied and an untied model after some steps of the real loop."""
    root = tmp_path_factory.mktemp("glitch")
    write_tokens_without(root / "tokens", NEVER)
    config = settings(tokens=128 * STEPS, checkpoint_every=STEPS, eval_every=STEPS, optim=OptimConfig(learning_rate=1e-2))
    train(job(root, "tied", config))
    train(job(root, "untied", config, model=MODEL.model_copy(update={"tie_word_embeddings": False})))
    return root


def scan(root: Path, name: str, **options: Any) -> dict[str, Any]:
    config = settings(tokens=128 * STEPS)
    summary = json.loads((root / name / "summary.json").read_text())
    counts = count_targets(open_tokens(Folder(str(root / "tokens")), config), config, summary, VOCAB)
    return glitch.scan(Folder(str(root / name / "export")), {"pretrain": counts - counts // 3, "sft": counts // 3}, **options)


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_tokens_never_trained_are_found(trained: Path, name: str) -> None:
    report = scan(trained, name, share=len(NEVER) / (VOCAB - 16), seen_below=1, worst=VOCAB)
    assert report["tied"] == (name == "tied")
    assert report["flagged"] == len(NEVER)
    unseen = {row["id"] for row in report["worst"] if row["seen"] == 0}
    assert unseen <= set(NEVER)
    check = report["check"]
    assert check["counted"]["pretrain"] > check["counted"]["sft"] > 0
    assert sum(check["counted"].values()) == json.loads((trained / name / "summary.json").read_text())["tokens"]
    assert check["distance"]["of_all_tokens"] == pytest.approx(len(NEVER) / (VOCAB - 16), abs=1e-4)
    assert check["distance"]["rare_flagged"] == len(unseen) == report["flagged"] * check["distance"]["precision"]
    assert check["distance"]["precision"] > 0.9
    assert check["distance"]["recall"] > 0.9
    assert check["cosine"]["precision"] > 0.9


def test_blocks_of_any_size_and_type_give_what_numpy_gives(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = Folder(str(trained / "tied/export"))
    [stored] = glitch.find_matrices(export, (glitch.INPUT, glitch.OUTPUT)).values()
    assert stored.dtype == "BF16"
    whole = np.concatenate([rows for _, rows in stored.blocks()])
    wide = {glitch.INPUT: whole, "other": np.ones(3, np.float32)}
    for kind in (np.float32, np.float16):
        save_file({key: value.astype(kind) for key, value in wide.items()}, tmp_path / glitch.WEIGHTS)
        assert set(load_file(tmp_path / glitch.WEIGHTS)) == set(wide)
        matrix = glitch.find_matrices(Folder(str(tmp_path)), (glitch.INPUT,))[glitch.INPUT]
        monkeypatch.setattr(glitch, "BLOCK_BYTES", 1000)
        blocks = list(matrix.blocks())
        assert len(blocks) > 10
        assert np.array_equal(np.concatenate([rows for _, rows in blocks]), whole.astype(kind).astype(np.float32))
    reference = [4, 5, 6]
    found = glitch.indicators(stored, stored, reference)
    assert found["distance"] == pytest.approx(np.linalg.norm(whole - whole[reference].mean(0), axis=1), abs=1e-4)
    centred = whole - whole.mean(0)
    near = centred[reference].mean(0)
    expected = 1 - centred @ near / np.linalg.norm(centred, axis=1) / np.linalg.norm(near)
    assert found["cosine"] == pytest.approx(expected, abs=1e-4)


def test_bytes_that_make_no_character_are_written_as_bytes() -> None:
    assert glitch.written("Ġété") != " été"  # é stands for a byte, not for itself
    assert glitch.written("ĠÃ©tÃ©") == " été"
    assert glitch.written("Á") == "\\xc1"


def test_a_model_without_reserved_tokens_or_weights_is_refused(trained: Path, tmp_path: Path) -> None:
    export = trained / "tied/export"
    text = (export / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(RequestError, match=r"has no model\.safetensors"):
        glitch.scan(Folder(str(tmp_path)), None)
    (tmp_path / "tokenizer.json").write_text(text.replace("<|reserved_", "<|spare_"))
    with pytest.raises(RequestError, match="has no tokens"):
        glitch.scan(Folder(str(tmp_path)), None)
