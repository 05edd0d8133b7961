"""The plan command: figures for a named site, exit code 2 and one line for what cannot be."""

from __future__ import annotations

import json
import sys

import pytest

from cluster.storage import Folder
from fournil.cli import main
from fournil.plan import describe_plan, site_of
from fournil.recipe import load_recipe


def fournil(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fournil", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_papers_run_on_a_named_site(storage: Folder) -> None:
    recipe = load_recipe("recipes/croissant-1b.yaml")
    site = site_of(recipe, "a100", None, mfu=0.24, pue=None, grams_per_kwh=None)
    assert site is not None
    assert (site.count, site.mfu, site.pue) == (240, 0.24, 1.2)
    figures = describe_plan(recipe, storage, site, numbers=True)["pretraining"]
    assert figures["GPU-hours"]["value"] == pytest.approx(97_920, rel=0.03)
    assert figures["energy"]["unit"] == "kWh"
    shown = describe_plan(recipe, storage, site)["pretraining"]
    assert shown["time"].startswith("17.17 days ")
    assert shown["CO2"].startswith("2.706 t ")
    assert "57 g CO2e/kWh" in shown["CO2"]


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
        (("--gpu", "h100", "--set", "pretrain.precision=fp32"), "bf16 peak"),
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
