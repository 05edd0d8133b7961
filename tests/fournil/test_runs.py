"""Run records: found by name, alive only while their process is."""

from __future__ import annotations

import pytest

from cluster.errors import RequestError
from cluster.storage import Folder
from fournil.runs import Run, list_runs, open_storage


def test_an_unknown_run_names_the_known_ones(storage: Folder) -> None:
    Run("first", storage).begin({"fetch": "0" * 16}, {})
    with pytest.raises(RequestError, match="known runs: first"):
        Run("other", storage).read()
    assert [run.name for run in list_runs(storage)] == ["first"]


def test_a_run_is_live_only_while_its_process_is(storage: Folder) -> None:
    run = Run("mine", storage)
    run.begin({"fetch": "0" * 16}, {})
    assert run.live_process() is not None
    record = run.read()
    run.write(process={**record["process"], "start": record["process"]["start"] - 100})
    assert run.live_process() is None
    run.write(process=None)
    assert run.live_process() is None


def test_a_stage_that_is_not_there_yet_is_a_request_error(storage: Folder) -> None:
    run = Run("mine", storage)
    run.begin({"fetch": "0" * 16}, {})
    assert run.artifacts() == {}
    with pytest.raises(RequestError, match="run `fournil bake` again"):
        run.artifact("fetch")
    with pytest.raises(RequestError, match="no stage 'sft'"):
        run.artifact("sft")


def test_storage_comes_from_the_option_then_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("FOURNIL_STORAGE", str(tmp_path / "env"))
    assert open_storage(None).path == str(tmp_path / "env")
    assert open_storage(str(tmp_path / "option")).path == str(tmp_path / "option")
