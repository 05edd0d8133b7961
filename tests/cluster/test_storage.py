"""Folders on local and other filesystems: what is written is seen whole, listed, and found again from elsewhere."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import RequestError
from cluster.storage import Folder, free_bytes


@pytest.fixture(params=["path", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """The same behaviour is asked of a plain path, a `file://` URL and a filesystem that only fsspec knows."""
    urls = {"path": str(tmp_path / "place"), "file": f"file://{tmp_path}/place", "memory": f"memory://{uuid.uuid4().hex}/place"}
    return Folder(urls[request.param])


def test_everything_written_is_read_back(folder: Folder) -> None:
    table = pa.table({"id": ["a", "b", "c"], "text": ["pain", "brioche", None]})
    folder.write_bytes("raw/bytes.bin", b"\x00\xff")
    folder.write_text("note.txt", "déjà cuit\n")
    folder.write_json("facts.json", {"pains": 3, "nom": "fournée"})
    assert folder.write_table("part/one.parquet", table, row_group_size=2) == 3
    assert folder.read_bytes("raw/bytes.bin") == b"\x00\xff"
    assert folder.read_text("note.txt") == "déjà cuit\n"
    assert folder.read_json("facts.json") == {"pains": 3, "nom": "fournée"}
    assert folder.read_table("part/one.parquet").equals(table)
    assert folder.read_table("part/one.parquet", columns=["text"]).column_names == ["text"]
    assert folder.table_rows("part/one.parquet") == 3
    assert folder.size("raw/bytes.bin") == 2


def test_listing_names_files_recursively_and_children_folders(folder: Folder) -> None:
    assert folder.names() == []
    assert folder.children() == []
    for name in ("b.txt", "a/2.json", "a/1.json", "c/d/e.txt"):
        folder.write_text(name, name)
    assert folder.names() == ["a/1.json", "a/2.json", "b.txt", "c/d/e.txt"]
    assert folder.names(".json") == ["a/1.json", "a/2.json"]
    assert folder.names(under="c") == ["c/d/e.txt"]
    assert folder.children() == ["a", "c"]
    assert (folder / "c").names() == ["d/e.txt"]


def test_writing_again_replaces(folder: Folder) -> None:
    folder.write_text("x", "a longer first text")
    folder.write_text("x", "short")
    assert folder.read_text("x") == "short"
    assert folder.names() == ["x"]


def test_add_file_copies_a_local_file(folder: Folder, tmp_path: Path) -> None:
    source = tmp_path / "levain.bin"
    source.write_bytes(os.urandom(100_000))
    folder.add_file("deep/copy.bin", source)
    assert folder.read_bytes("deep/copy.bin") == source.read_bytes()
    assert folder.names() == ["deep/copy.bin"]


def test_delete_takes_a_file_or_a_folder_or_nothing(folder: Folder) -> None:
    folder.write_text("a/b/c", "x")
    folder.write_text("a/d", "x")
    folder.delete("a/d")
    folder.delete("never there")
    assert folder.names() == ["a/b/c"]
    folder.delete("a")
    assert not folder.exists("a/b/c")
    assert folder.names() == []


def test_reading_what_is_not_there_is_a_missing_file(folder: Folder) -> None:
    assert not folder.exists("nothing")
    with pytest.raises(FileNotFoundError):
        folder.read_bytes("nothing")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0\n\r"), min_size=1, max_size=20), min_size=1, max_size=3))
def test_any_file_name_is_listed_as_it_was_written(parts: list[str]) -> None:
    if any(part in (".", "..") or part.startswith(".tmp-") or len(part.encode()) > 100 for part in parts):
        return
    name = "/".join(parts)
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(place)
        folder.write_bytes(name, b"x")
        assert folder.names() == [name]
        assert folder.read_bytes(name) == b"x"


def test_readers_see_the_old_or_the_new_file_while_it_is_rewritten(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    values = [b"a" * 3_000_000, b"b" * 2_000_000]
    folder.write_bytes("x", values[0])
    writer = threading.Thread(target=lambda: [folder.write_bytes("x", values[n % 2]) for n in range(40)])
    writer.start()
    seen = 0
    while writer.is_alive():
        assert folder.read_bytes("x") in values
        seen += 1
    writer.join()
    assert seen > 0


REWRITE_FOR_EVER = """
import sys, pyarrow as pa
from cluster.storage import Folder
folder, tables = Folder(sys.argv[1]), [pa.table({"n": list(range(count))}) for count in (200_000, 300_000)]
for turn in range(1_000_000):
    folder.write_table("t.parquet", tables[turn % 2])
    print(turn, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "place"))
    for delay in (0.0, 0.003, 0.011):
        with subprocess.Popen([sys.executable, "-c", REWRITE_FOR_EVER, folder.url], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
        assert folder.names() == ["t.parquet"]
        assert folder.read_table("t.parquet")["n"].to_pylist() == list(range(folder.table_rows("t.parquet")))


def test_a_relative_folder_stays_where_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(home)
    folder = Folder("runs")
    folder.write_text("x", "here")
    shipped = pickle.dumps(folder)
    monkeypatch.chdir(elsewhere)
    assert pickle.loads(shipped).read_text("x") == "here"
    assert str(folder) == str(home / "runs")
    assert not (elsewhere / "runs").exists()


def test_paths_and_urls(tmp_path: Path) -> None:
    folder = Folder(f"{tmp_path}/")
    assert folder.is_local
    assert (folder / "a" / "b").local_path("c") == tmp_path / "a/b/c"
    assert folder.at("x") == f"{tmp_path}/x"
    remote = Folder("memory://bucket/x")
    assert not remote.is_local
    assert str(remote) == "memory://bucket/x"
    with pytest.raises(RequestError, match="not a local or mounted folder"):
        remote.local_path()


def test_a_url_nobody_knows_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="storage 'nope://x' cannot be opened"):
        Folder("nope://x").exists()


def test_free_space_is_known_for_folders_that_are_not_made_yet(tmp_path: Path) -> None:
    free = free_bytes(Folder(str(tmp_path / "not" / "yet")))
    assert free is not None
    assert free > 0
    assert free_bytes(Folder("memory://bucket/x")) is None
