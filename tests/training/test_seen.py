"""What a run's stages were trained on, counted again from their artifacts: exact for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.artifacts import Artifact
from cluster.config import Section
from cluster.storage import Folder
from pipelines.config import MixConfig
from pipelines.mix import make_mix
from pipelines.tokens import load_tokenizer
from tests.training.test_anneal import COUNTS
from tests.training.test_dpo import pair, write_preferences
from tests.training.test_sft import conversation, write_instructions
from tests.training.tiny import MODEL, VOCAB, settings, write_chat_tokenizer, write_tokens
from training.anneal import CHAT, CHAT_SOURCE, WriteChat
from training.chat import encode_messages
from training.config import AnnealConfig, AnnealJobConfig, DpoConfig, GoldfishConfig, LoraConfig, PretrainJobConfig, SftConfig
from training.data import open_tokens, token_order
from training.dpo import PackPairs, _answer
from training.packing import PackSplit
from training.seen import count_run, count_targets

SFT = SftConfig(seq_len=64, batch_tokens=128, micro_batch_tokens=64, epochs=2.0)
DPO = DpoConfig(seq_len=128, batch_tokens=128, micro_batch_tokens=128, epochs=3.0)
TALKS = [conversation(number) for number in range(20)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens, a tokenizer, and what each stage packs of chat examples and preference pairs."""
    folder = tmp_path_factory.mktemp("seen")
    tokens, tokenizer = write_tokens(folder / "tokens"), write_chat_tokenizer(Folder(str(folder / "tokenizer")))
    instructions = write_instructions(folder / "instructions", TALKS, TALKS[:1])
    WriteChat(instructions, tokenizer, tokens, Folder(str(folder / "anneal" / CHAT)))({"name": CHAT})
    preferences = write_preferences(Folder(str(folder / "preferences")))
    PackSplit(instructions, tokenizer, Folder(str(folder / "sft")), SFT.seq_len)({"name": "train"})
    PackSplit(instructions, tokenizer, Folder(str(folder / "sft")), SFT.seq_len)({"name": "heldout"})
    PackPairs(preferences, tokenizer, Folder(str(folder / "dpo")), DPO.seq_len)({"name": "train"})
    return folder


def bincount(tokens: Any) -> np.ndarray:
    return np.bincount(tokens, minlength=VOCAB)


def shards(root: Path, source: str) -> np.ndarray:
    """Counts of the tokens in the training shards of a source."""
    return bincount(np.concatenate([np.fromfile(path, "<u2") for path in root.glob(f"train/{source}/*.bin")]))


def artifact(root: Path, stage: str, config: Section, rows: int, batch_rows: int) -> Artifact:
    """A stage's artifact, as if it had gone through so many rows."""
    folder = Folder(str(root / stage))
    folder.write_json("summary.json", {"steps": -(-rows // batch_rows), "shifts": []})
    return Artifact(stage, "h", folder, {"config": config.model_dump(mode="json")})


@pytest.fixture
def artifacts(root: Path) -> dict[str, Artifact]:
    """Those of a run: text once, then one source and the chat examples once, then chat twice, then pairs three times."""
    main = MixConfig.model_validate({"annealing": {"sources": {"alpha": 0}}})
    mix = Folder(str(root / "mix"))
    mix.write_json("mix.json", make_mix(COUNTS, main))
    index = json.loads((root / "tokens/index.json").read_text())
    beta = index["sources"]["beta"]["tokens"]
    chat = json.loads((root / "anneal" / CHAT / "index.json").read_text())["sources"][CHAT_SOURCE]["tokens"]
    text, once = settings(), sum(-(-tokens // 16) for tokens in (beta, chat))
    packed = {stage: len(np.load(root / f"{stage}/packed/train.targets.npy")) for stage in ("sft", "dpo")}
    anneal = AnnealJobConfig(pretrain=text, anneal=AnnealConfig(tokens=16 * once, instructions=1.0))
    return {
        "tokens": Artifact("tokens", "h", Folder(str(root / "tokens")), {}),
        "mix": Artifact("mix", "h", mix, {"config": main.model_dump(mode="json")}),
        "pretrain": artifact(root, "pretrain", PretrainJobConfig(model=MODEL, pretrain=text), token_order(index, text)[1].total_rows, 8),
        "anneal": artifact(root, "anneal", anneal, once, 8),
        "sft": artifact(root, "sft", SFT, 2 * packed["sft"], 2),
        "dpo": artifact(root, "dpo", DPO, 3 * packed["dpo"], 1),
    }


def test_each_stage_is_counted(root: Path, artifacts: dict[str, Artifact]) -> None:
    found = count_run(artifacts)
    assert list(found) == ["pretrain", "anneal", "sft", "dpo"]
    alpha, beta = shards(root / "tokens", "alpha"), shards(root / "tokens", "beta")
    assert (found["pretrain"] >= alpha + beta).all()
    assert (found["pretrain"] <= alpha + 2 * beta).all()

    tokenizer = load_tokenizer(Folder(str(root / "tokenizer")))
    talks = [encode_messages(tokenizer, talk) for talk in TALKS]
    chat = bincount([token for ids, _ in talks for token in [*ids, 0]])
    assert np.array_equal(found["anneal"], beta + chat)
    assistant = [token for ids, mask in talks for token, wanted in zip(ids, mask, strict=True) if wanted]
    assert np.array_equal(found["sft"], 2 * bincount(assistant))
    chosen = [_answer(tokenizer, json.loads(pair(number)["messages"]), pair(number)["chosen"])[1] for number in range(24)]
    assert np.array_equal(found["dpo"], 3 * bincount([token for targets in chosen for token in targets if token >= 0]))


def test_a_stage_that_moves_no_embedding_is_left_out(root: Path, artifacts: dict[str, Artifact]) -> None:
    adapters = SFT.model_copy(update={"lora": LoraConfig(rank=2)})
    without = {name: one for name, one in artifacts.items() if name != "anneal"}
    without["sft"] = artifact(root, "sft", adapters, 1, 1)
    assert list(count_run(without)) == ["pretrain", "dpo"]


def test_shifts_are_gone_through_and_goldfish_targets_left_out(tmp_path: Path) -> None:
    folder, config = write_tokens(tmp_path), settings()
    data = open_tokens(folder, config)

    def count(steps: int, *shifts: tuple[int, int]) -> np.ndarray:
        return count_targets(data, config, {"steps": steps, "shifts": shifts}, VOCAB)

    assert np.array_equal(count(3, (1, 2)), count(1) + count(5) - count(3))
    fewer = config.model_copy(update={"goldfish": GoldfishConfig(k=2, context=2)})
    kept = count_targets(data, fewer, {"steps": 5, "shifts": []}, VOCAB)
    assert (kept <= count(5)).all()
    assert 0.4 < kept.sum() / count(5).sum() < 0.7
