from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.sources.globs import list_files, matches
from tests.pipelines.sources.builders import write_all


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("*.html", "a.html", True),
        ("*.html", "a/b.html", False),
        ("**/*.html", "b.html", True),
        ("**/*.html", "a/b/c.html", True),
        ("usr/share/**", "usr/share/a/b", True),
        ("usr/[cpr]*.html", "usr/pr01.html", True),
        ("usr/[!cpr]*.html", "usr/pr01.html", False),
        ("a?.txt", "ab.txt", True),
        ("a?.txt", "a/.txt", False),
        ("a+(b).txt", "a+(b).txt", True),
        ("[", "[", True),
    ],
)
def test_globs(glob: str, path: str, expected: bool) -> None:
    assert matches(path, (glob,)) is expected


def test_files_folders_and_globs(tmp_path: Path) -> None:
    write_all(tmp_path, {"b/1.html": b"1", "b/c/2.HTML": b"22", "b/3.txt": b"", "b/.cache/4.html": b""})
    root = str(tmp_path)
    assert [file.relative for file in list_files(f"{root}/b/1.html")] == ["1.html"]
    assert [file.relative for file in list_files(f"{root}/b", (".html",))] == ["1.html", "c/2.HTML"]
    assert [file.relative for file in list_files(f"{root}/b/*.html")] == ["1.html"]
    assert [file.relative for file in list_files(f"{root}/**/*.html")] == ["b/1.html"]
    assert list_files(f"{root}/nothing/*.html") == []
    assert list_files(f"{root}/nothing") == []
    found = list_files(f"{root}/b/c/*")[0]
    assert (found.path, found.bytes) == (f"{root}/b/c/2.HTML", 2)
    os.utime(found.path, ns=(1, 1_000_000_007))
    assert list_files(f"{root}/b/c/*")[0].mtime_ns == 1_000_000_007
