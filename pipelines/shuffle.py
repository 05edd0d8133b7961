"""Shuffles on Ray Data of rows that travel packed.

Ray Data's hash shuffle handles each row by itself: a million rows of 28 bytes take seconds, of which the bytes are the least.
So the rows that one task sends to one bucket travel as one row, with an Arrow stream inside: the work is that of tasks
times buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from ray.data import Dataset

PACKED = pa.schema([("bucket", pa.int32()), ("count", pa.int64()), ("rows", pa.large_binary())])

Made = pa.Table | Iterable[pa.Table]
Make = Callable[[pa.Table], Made]


def spread(rows: Dataset, make: Make, column: str) -> Dataset:
    """What `make` gives for each single row, packed by the integer column `column`."""
    return rows.map_batches(partial(_packed, make=make, column=column), batch_size=1, batch_format="pyarrow")


def shuffle(packed: Dataset, make: Make, partitions: int, column: str | None) -> Dataset:
    """What `make` gives for all rows of a bucket, in any order, packed by `column`; as it is where that is None."""
    grouped = packed.groupby("bucket", num_partitions=partitions)
    return grouped.map_groups(partial(_unpacked, make=make, column=column), batch_format="pyarrow")


def pack(rows: pa.Table, column: str) -> pa.Table:
    """One `PACKED` row for each value of `column`."""
    values = rows[column].to_numpy()
    rows = rows.take(pa.array(np.argsort(values, kind="stable")))
    buckets, counts = np.unique(values, return_counts=True)
    firsts = np.cumsum(counts) - counts
    streams = [_stream(rows.slice(first, count)) for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)]
    return pa.table([buckets.astype(np.int32), counts.astype(np.int64), pa.array(streams, pa.large_binary())], schema=PACKED)


def unpack(packed: pa.Table) -> pa.Table:
    """The rows of one or more `PACKED` rows."""
    return pa.concat_tables(pa.ipc.open_stream(stream.as_buffer()).read_all() for stream in packed["rows"])


def _packed(batch: pa.Table, make: Make, column: str) -> Iterator[pa.Table]:
    for table in _tables(make(batch)):
        yield pack(table, column)


def _unpacked(packed: pa.Table, make: Make, column: str | None) -> Iterator[pa.Table]:
    for table in _tables(make(unpack(packed))):
        yield table if column is None else pack(table, column)


def _tables(made: Made) -> Iterable[pa.Table]:
    return [made] if isinstance(made, pa.Table) else made


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()
