"""The plan command: figures for a named site, exit code 2 and one line for what cannot be."""

from __future__ import annotations

import json
import sys

import pytest

from cluster.storage import Folder
from fournil.cli import main
from fournil.plan import describe_plan, sites_of
from fournil.recipe import load_recipe


def fournil(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fournil", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_papers_run_on_a_named_site(storage: Folder) -> None:
    recipe = load_recipe("recipes/croissant-1b.yaml")
    sites = sites_of(recipe, "a100", None, mfu=0.24, pue=None, grams_per_kwh=None)
    assert {stage: (site.count, site.mfu, site.pue) for stage, site in sites.items()} == {
        "pretrain": (240, 0.24, 1.2),
        "sft": (8, 0.24, 1.2),
    }
    figures = describe_plan(recipe, storage, sites, numbers=True)["pretraining"]
    assert figures["GPU-hours"]["value"] == pytest.approx(97_920, rel=0.03)
    assert figures["energy"]["unit"] == "kWh"
    shown = describe_plan(recipe, storage, sites)["pretraining"]
    assert shown["time"].startswith("17.17 days ")
    assert shown["CO2"].startswith("2.706 t ")
    assert "57 g CO2e/kWh" in shown["CO2"]


LATER = (
    "pretrain.optim={schedule: wsd, decay_ratio: 0}",
    "anneal={tokens: 100000}",
    "sft.lora={rank: 8, targets: [q_proj]}",
    "dpo={seq_len: 256, tokens: 50000}",
)


def test_every_training_stage_has_its_block_and_the_total_is_their_sum(storage: Folder) -> None:
    recipe = load_recipe("recipes/demo.yaml", LATER)
    sites = sites_of(recipe, "h100", 4)
    assert {site.count for site in sites.values()} == {4}
    plan = describe_plan(recipe, storage, sites, numbers=True)
    blocks = [plan[title] for title in ("pretraining", "annealing", "fine-tuning", "preference optimisation")]
    assert [block["tokens"]["value"] for block in blocks] == [1_000_000, 100_000, 250_000, 50_000]
    assert blocks[2]["trained parameters"]["value"] == 6 * 8 * (256 + 256)
    for name in ("time", "GPU-hours", "energy", "CO2"):
        assert plan["all training"][name]["value"] == pytest.approx(sum(block[name]["value"] for block in blocks))
    assert blocks[1]["memory of a worker"]["value"] == blocks[0]["memory of a worker"]["value"]
    assert list(plan["tokens seen by source while annealing"]) == ["unknown"]


def test_what_is_not_known_yet_is_said_and_left_out_of_the_total(storage: Folder) -> None:
    recipe = load_recipe("recipes/demo.yaml", ["sft.tokens=null"])
    shown = describe_plan(recipe, storage, sites_of(recipe, "h100", 1))
    assert shown["fine-tuning"]["tokens"] == "unknown until the instructions stage has run"
    assert "memory of a worker" in shown["fine-tuning"]
    assert "time" not in shown["fine-tuning"]
    assert "without fine-tuning, whose tokens are not known yet" in shown["all training"]["time"]
    assert "all training" not in describe_plan(recipe, storage)


def test_the_command_prints_numbers_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], storage: Folder) -> None:
    arguments = ("plan", "recipes/demo.yaml", "--gpu", "h100", "--gpus", "1", "--storage", str(storage), "--json")
    assert fournil(monkeypatch, *arguments) == 0
    figures = json.loads(capsys.readouterr().out)["pretraining"]
    assert figures["parameters"] == {"value": 6_524_160, "unit": "", "note": "tied embeddings count once"}
    assert figures["MFU"]["value"] == 0.4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu", "v9000"), "it has a100-40gb, a100"),
        (("--gpus", "8"), "need --gpu"),
        (("--gpu", "l40s", "--gpus", "1"), "it would with 3 GPUs, or with pretrain.micro_batch_tokens="),
        (
            ("--gpu", "h100", "--set", "sft.batch_tokens=2097152", "--set", "sft.micro_batch_tokens=262144"),
            "sft does not fit: each of 8 h100",
        ),
        (("--gpu", "h100", "--set", "pretrain.precision=fp32"), "set pretrain.precision to auto"),
        (("--gpu", "h100", "--set", "sft.precision=fp32"), "set sft.precision to auto"),
        (("--gpu", "h100", "--set", "pretrain.tokens=null"), "give --set pretrain.tokens"),
    ],
)
def test_what_cannot_be_planned_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], storage: Folder, arguments: tuple[str, ...], said: str
) -> None:
    assert fournil(monkeypatch, "plan", "recipes/croissant-1b.yaml", "--storage", str(storage), *arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
