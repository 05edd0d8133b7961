from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from cluster.errors import RequestError
from cluster.storage import Folder
from pipelines.sources.config import HubSource
from pipelines.sources.hub import HubDownload, resolve
from tests.pipelines.sources.builders import jsonl_bytes, source
from tests.pipelines.sources.hub_server import COMMIT, serve_hub

FILES = {"data/train-0.jsonl": jsonl_bytes([{"text": "Bonjour"}]), "README.md": b"# essai", "data/test.jsonl": b""}


def hub_source(**fields: object) -> HubSource:
    return cast(HubSource, source("hub", dataset="labo/essai", **fields))


def test_files_of_a_commit_are_listed_and_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub("labo/essai", FILES) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        choice = resolve(hub_source(files=["data/train-*.jsonl"]))
        assert choice == {"dataset": "labo/essai", "commit": COMMIT, "files": ["data/train-0.jsonl"]}
        part = {**choice, "file": "data/train-0.jsonl", "path": "files/hub/essai/data/train-0.jsonl"}
        out = Folder(str(tmp_path / "out"))
        receipt = HubDownload(out, address)(part)
    assert out.read_bytes(part["path"]) == FILES["data/train-0.jsonl"]
    assert receipt["bytes"] == len(FILES["data/train-0.jsonl"])


def test_no_file_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub("labo/essai", FILES) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(RequestError, match=r"has no file that matches \*\.csv; correct `files`"):
            resolve(hub_source(files=["*.csv"]))


def test_unknown_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub("labo/autre", FILES) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(RequestError, match="labo/essai at main cannot be had from the hub") as error:
            resolve(hub_source())
    assert "\n" not in str(error.value)


def test_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RequestError, match="the hub cannot be reached") as error:
        resolve(hub_source())
    assert "\n" not in str(error.value)
