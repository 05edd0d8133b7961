from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines import parts
from pipelines.parts import ROW_GROUP, PartWriter, part_names, read_batches, read_if_there

SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.string())])


def rows(first: int, count: int) -> pa.Table:
    numbers = list(range(first, first + count))
    return pa.table({"number": numbers, "text": [f"ligne {n}" for n in numbers]}, schema=SCHEMA)


def test_bytes_depend_on_rows_not_on_how_they_were_cut(storage):
    total = 2 * ROW_GROUP + 100
    for name, size in (("one", total), ("other", 37)):
        with PartWriter(storage, f"x/{name}.parquet", SCHEMA) as writer:
            for first in range(0, total, size):
                writer.write(rows(first, min(size, total - first)))
        assert writer.rows == total
    assert storage.read_bytes("x/one.parquet") == storage.read_bytes("x/other.parquet")
    assert [batch.num_rows for batch in read_batches(storage, "x/one.parquet")] == [ROW_GROUP, ROW_GROUP, 100]
    assert part_names(storage, "x") == ["one", "other"]


def test_long_texts_make_small_groups(storage, monkeypatch):
    monkeypatch.setattr(parts, "GROUP_BYTES", 100)
    table = pa.table({"number": range(6), "text": ["x" * size for size in (60, 40, 1, 250, 99, 1)]}, schema=SCHEMA)
    for name, size in (("whole", 6), ("cut", 1)):
        with PartWriter(storage, f"x/{name}.parquet", SCHEMA) as writer:
            for first in range(0, 6, size):
                writer.write(table.slice(first, size))
    assert storage.read_bytes("x/whole.parquet") == storage.read_bytes("x/cut.parquet")
    assert [batch["number"].to_pylist() for batch in read_batches(storage, "x/cut.parquet")] == [[0, 1], [2, 3], [4, 5]]


def test_an_exception_leaves_nothing(storage):
    def write_a_part_of_it() -> None:
        with PartWriter(storage, "x/broken.parquet", SCHEMA) as writer:
            writer.write(rows(0, 5))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_a_part_of_it()
    assert storage.names() == []
    assert storage.filesystem.get_file_info(storage.at("x")).type.name == "Directory"


def test_no_rows_make_an_empty_file_and_a_missing_file_no_rows(storage):
    with PartWriter(storage, "x/empty.parquet", SCHEMA):
        pass
    assert storage.read_table("x/empty.parquet").schema == SCHEMA
    assert list(read_batches(storage, "x/empty.parquet")) == []
    assert read_if_there(storage, "x/none.parquet", SCHEMA).num_rows == 0
