from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import cast

import pytest

from cluster.errors import RequestError
from pipelines.sources.config import RowSource
from pipelines.sources.local import check_columns, fingerprint_of, local_files
from tests.pipelines.sources.builders import jsonl_bytes, parquet_bytes, source, write_all


def test_folders_globs_and_translations(tmp_path: Path) -> None:
    write_all(tmp_path, {"fr/a.html": b"1", "fr/b.txt": b"", "en/a.html": b"22"})
    wanted = source("aligned_html", paths=[f"{tmp_path}/fr"], translation_paths=[f"{tmp_path}/en/*.html"], translation_lang="en")
    assert [(file.relative, file.bytes, translation) for file, translation in local_files(wanted)] == [
        ("a.html", 1, False),
        ("a.html", 2, True),
    ]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (path,) = write_all(tmp_path, {"a.txt": b"1"})
    assert len(local_files(source("text", paths=[str(path), f"{tmp_path}/*.txt"]))) == 1


@pytest.mark.parametrize("path", ["absent.txt", "*.csv", "vide"])
def test_nothing_there(tmp_path: Path, path: str) -> None:
    (tmp_path / "vide").mkdir()
    with pytest.raises(RequestError, match="source 'essai': no file matches"):
        local_files(source("text", paths=[f"{tmp_path}/{path}"]))


def test_fingerprint_follows_the_files(tmp_path: Path) -> None:
    (path,) = write_all(tmp_path, {"a.txt": b"1"})
    wanted = source("text", paths=[str(path)])
    first = fingerprint_of(local_files(wanted))
    assert first == fingerprint_of(local_files(wanted))
    os.utime(path, ns=(0, 5))
    assert first != fingerprint_of(local_files(wanted))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_unknown_column(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, object]] = [{"content": "Bonjour", "url": "u"}]
    data = parquet_bytes(rows) if name.endswith("parquet") else jsonl_bytes(rows)
    (path,) = write_all(tmp_path, {name: gzip.compress(data) if name.endswith(".gz") else data})
    reader = "parquet" if name.endswith("parquet") else "jsonl"
    check_columns(cast(RowSource, source(reader, columns={"text": "content"})), str(path), name)
    with pytest.raises(RequestError, match="has no column 'text' \\(it has content, url\\); correct `columns`"):
        check_columns(cast(RowSource, source(reader)), str(path), name)
    with pytest.raises(RequestError, match="no column 'link'"):
        check_columns(cast(RowSource, source(reader, columns={"text": "content", "url": "link"})), str(path), name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_damaged_files_are_no_wrong_request(tmp_path: Path, name: str) -> None:
    (path,) = write_all(tmp_path, {name: b"\x00damaged"})
    check_columns(cast(RowSource, source("parquet" if name.endswith("parquet") else "jsonl")), str(path), name)
