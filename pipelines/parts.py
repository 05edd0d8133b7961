"""Reading and writing the Parquet parts of a stage a batch at a time, so that memory does not grow with a part."""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.storage import PARQUET_COMPRESSION, Folder

ROW_GROUP, GROUP_BYTES = 4096, 8_000_000
"""A row group ends with the row that gives it so many rows, or so many bytes of strings: what stages hold at a time."""
PARQUET = ".parquet"


def part_names(folder: Folder, under: str) -> list[str]:
    """Sorted names of the parts below `under`, without the folder and `.parquet`."""
    return [name[len(under) + 1 : -len(PARQUET)] for name in folder.names(PARQUET, under=under)]


def read_batches(folder: Folder, name: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a Parquet file, one after the other."""
    with folder.filesystem.open_input_file(folder.at(name)) as source:
        file = pq.ParquetFile(source)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=columns)


def read_if_there(folder: Folder, name: str, schema: pa.Schema) -> pa.Table:
    """A whole Parquet file, or no rows where there is no such file."""
    return folder.read_table(name) if folder.exists(name) else schema.empty_table()


class PartWriter:
    """Writes one Parquet file from tables of any size, in row groups of `ROW_GROUP` rows or `GROUP_BYTES`; the file appears
    when it is whole.

    The bytes depend on the rows alone, not on how they were cut into tables. Left by an exception, it writes nothing.
    """

    def __init__(self, folder: Folder, name: str, schema: pa.Schema) -> None:
        self.folder, self.name, self.schema = folder, name, schema
        self.rows = 0
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0

    def __enter__(self) -> PartWriter:
        self._temporary = self.folder.temporary(self.name)
        self._writer: Any = pq.ParquetWriter(
            self._temporary, self.schema, filesystem=self.folder.filesystem, compression=PARQUET_COMPRESSION
        )
        return self

    def write(self, table: pa.Table) -> None:
        """Append rows in the schema's columns."""
        if table.num_rows:
            rows = table.select(self.schema.names).cast(self.schema)
            self._waiting.append(rows)
            self._waiting_rows += rows.num_rows
            self._waiting_bytes += int(_string_bytes(rows).sum())
            self.rows += rows.num_rows
            if self._waiting_rows >= ROW_GROUP or self._waiting_bytes >= GROUP_BYTES:
                self._flush()

    def _flush(self, last: bool = False) -> None:
        """Write all whole groups of what waits, with `last` the rest too."""
        rows = pa.concat_tables([self.schema.empty_table(), *self._waiting])
        sizes = _string_bytes(rows)
        while len(sizes):
            count = min(ROW_GROUP, 1 + int(np.searchsorted(np.cumsum(sizes[:ROW_GROUP]), GROUP_BYTES)))
            if count > len(sizes) and not last:
                break
            self._writer.write_table(rows.slice(0, count).combine_chunks(), row_group_size=ROW_GROUP)
            rows, sizes = rows.slice(count), sizes[count:]
        self._waiting, self._waiting_rows, self._waiting_bytes = [rows], rows.num_rows, int(sizes.sum())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush(last=True)
        self._writer.close()
        if kind is None:
            self.folder.filesystem.move(self._temporary, self.folder.at(self.name))
        else:
            self.folder.filesystem.delete_file(self._temporary)


def _string_bytes(table: pa.Table) -> np.ndarray:
    """int64[n]: bytes of each row's strings."""
    sizes = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy()
    return sizes
