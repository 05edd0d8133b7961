from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shuffle import PACKED, pack, shuffle, spread, unpack

ROWS = st.lists(st.tuples(st.integers(0, 5), st.text(max_size=3), st.lists(st.integers(0, 9), max_size=3)))
SCHEMA = pa.schema([("bucket", pa.int32()), ("text", pa.string()), ("numbers", pa.large_list(pa.int64()))])


@given(ROWS)
def test_packed_rows_come_back_by_bucket(rows: list[tuple[int, str, list[int]]]):
    table = pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)
    packed = pack(table, "bucket")
    assert packed.schema == PACKED
    assert packed["bucket"].to_pylist() == sorted({row[0] for row in rows})
    assert sum(packed["count"].to_pylist()) == len(rows)
    if rows:
        assert unpack(packed) == table.take(pa.array(np.argsort([row[0] for row in rows], kind="stable")))


@pytest.mark.usefixtures("ray_session")
def test_two_shuffles_bring_equal_values_together():
    import ray.data

    parts = ray.data.from_items([{"part": part} for part in range(4)], override_num_blocks=4)
    numbers = spread(parts, _numbers, "bucket")
    squares = shuffle(numbers, _sums, 3, "bucket")
    found = list(shuffle(squares, partial(_total, scale=2), 2, None).iter_rows())
    assert sorted((row["bucket"], row["total"]) for row in found) == [(0, 2 * 4 * (0 + 2 + 4 + 6 + 8)), (1, 2 * 4 * (1 + 3 + 5 + 7 + 9))]


def _numbers(batch: pa.Table) -> pa.Table:
    return pa.table({"bucket": np.arange(10, dtype=np.int32), "part": [batch["part"][0].as_py()] * 10})


def _sums(rows: pa.Table) -> pa.Table:
    assert sorted(rows["part"].to_pylist()) == [0, 1, 2, 3]
    number = rows["bucket"][0].as_py()
    return pa.table({"bucket": pa.array([number % 2], pa.int32()), "sum": [number * rows.num_rows]})


def _total(rows: pa.Table, scale: int) -> pa.Table:
    return pa.table({"bucket": rows["bucket"][:1], "total": [scale * sum(rows["sum"].to_pylist())]})
