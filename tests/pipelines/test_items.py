from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import RequestError
from pipelines.config import SuiteConfig
from pipelines.items import HEADER_WORDS, long_enough, suite_files, suite_items

ROWS = [{"question": "Qui est-ce ?", "answer": "Moi.", "n": 1}, {"question": "Où ?", "answer": None, "n": 2}]


def suite(*paths: Path, columns: tuple[str, ...] = ("question", "answer")) -> SuiteConfig:
    return SuiteConfig(name="quiz", paths=tuple(map(str, paths)), columns=columns)


def test_rows_of_every_kind_of_file_are_items(tmp_path: Path):
    lines = "\n".join(json.dumps(row) for row in ROWS)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "b.parquet")
    (tmp_path / "c.txt").write_text("une ligne\n\nune autre\n", encoding="utf-8")
    items = suite_items(suite(tmp_path / "*")).to_pylist()
    assert [(item["name"], item["text"]) for item in items] == [
        ("quiz/a.jsonl.gz#1", "Qui est-ce ?\nMoi."),
        ("quiz/a.jsonl.gz#2", "Où ?"),
        ("quiz/b.parquet#1", "Qui est-ce ?\nMoi."),
        ("quiz/b.parquet#2", "Où ?"),
        ("quiz/c.txt#1", "une ligne"),
        ("quiz/c.txt#2", "une autre"),
    ]


def test_what_cannot_be_read_is_a_wrong_request(tmp_path: Path):
    with pytest.raises(RequestError, match=r"'quiz': no file matches .*clean\.decontaminate\.suites"):
        suite_files(suite(tmp_path / "nothing-*.jsonl"))
    for content, message in (("{", "not JSON"), ("[1]", "not a JSON object"), ('{"question": "?"}', "no column 'answer'")):
        (tmp_path / "x.jsonl").write_text(content)
        with pytest.raises(RequestError, match=message):
            suite_items(suite(tmp_path / "x.jsonl"))
    pq.write_table(pa.table({"question": ["?"]}), tmp_path / "y.parquet")
    with pytest.raises(RequestError, match="no column 'answer'"):
        suite_items(suite(tmp_path / "y.parquet"))
    (tmp_path / "z.jsonl.gz").write_bytes(gzip.compress(b'{"question": "?", "answer": "!"}' * 99)[:-9])
    with pytest.raises(RequestError, match="cannot be read"):
        suite_items(suite(tmp_path / "z.jsonl.gz"))


def test_held_out_code_that_is_little_but_a_licence_header_is_no_item():
    header = "// Copyright 2009 The Go Authors. All rights reserved. Use of this source code is governed by a BSD-style license"
    body = " ".join(f"x{n}" for n in range(HEADER_WORDS))
    texts = pa.array([f"{header}\npackage x", f"{header}\n{body}", header, "douze mots"], pa.large_string())
    assert long_enough(texts, ["code", "code", "en", "fr"], 13).to_pylist() == [False, True, True, False]
    assert long_enough(texts.slice(0, 0), [], 13).to_pylist() == []
