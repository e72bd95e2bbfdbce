"""Parquet files of artifacts: tables are written, and row groups read for training, plans and figures."""

from __future__ import annotations

from collections.abc import Sequence, Set
from copy import copy
from itertools import chain, groupby
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.manifest import FileEntry
from bertkd_ray.artifacts.store import Store


class RowGroups:
    """The row groups of an artifact's Parquet files, read by number, in the order of the manifest.

    below: how the paths of the files begin; exclude: how the paths of those begin that do not belong to
    them. `rows` (int64[groups]) are
    the rows of each row group.
    """

    def __init__(self, artifact: Artifact, below: str, columns: list[str], *, exclude: tuple[str, ...] = ()) -> None:
        below_it = artifact.files_below(below)
        files = [entry for entry in below_it if entry.is_parquet and not entry.path.startswith(exclude)]
        self._take([(artifact, entry) for entry in files], columns)

    def _take(self, files: list[tuple[Artifact, FileEntry]], columns: list[str]) -> None:
        self._files, self._columns = files, columns
        self._first_groups: NDArray[np.int64] = np.cumsum([0, *(len(entry.row_groups) for _, entry in files)])
        rows = chain.from_iterable(entry.row_groups for _, entry in files)
        self.rows: NDArray[np.int64] = np.fromiter(rows, np.int64)

    def __add__(self, other: RowGroups) -> RowGroups:
        """The row groups of both, those of the other behind these; the columns are the same."""
        both = copy(self)
        both._take(self._files + other._files, self._columns)
        return both

    def read(self, groups: NDArray[np.int64]) -> pa.Table:
        """The rows of the given row groups, group after group, as a table of one chunk a column.

        Raises StorageError when a file cannot be read.
        """
        files = np.searchsorted(self._first_groups, groups, side="right") - 1
        tables: list[pa.Table] = []
        for file, neighbours in groupby(zip(files, groups, strict=True), key=lambda pair: int(pair[0])):
            indices = [int(group - self._first_groups[file]) for _, group in neighbours]
            artifact, entry = self._files[file]
            with artifact.open_input(entry.path) as source:
                tables.append(pq.ParquetFile(source).read_row_groups(indices, columns=self._columns))
        return pa.concat_tables(tables).combine_chunks()

    def numbers(self, groups: NDArray[np.int64]) -> set[int]:
        """The numbers in the names of the files that the given row groups are in (`shard-000007.parquet`)."""
        files = np.searchsorted(self._first_groups, groups, side="right") - 1
        return {_number(self._files[file][1]) for file in files}

    def read_around(self, numbers: Set[int], ids: NDArray[np.int64]) -> pa.Table:
        """The rows of those row groups in the files of these numbers that may have one of some ids, as their statistics
        say.

        There must be a column `id`. Raises StorageError when a file cannot be read.
        """
        tables, wanted = [], np.sort(ids)

        def may_have(group: pq.RowGroupMetaData, column: int) -> bool:
            of = group.column(column).statistics
            return of is None or bool(np.searchsorted(wanted, of.min) < np.searchsorted(wanted, of.max, side="right"))

        for artifact, entry in self._files:
            if _number(entry) in numbers:
                with artifact.open_input(entry.path) as source:
                    file = pq.ParquetFile(source)
                    column = file.schema_arrow.get_field_index("id")
                    groups = [n for n in range(file.num_row_groups) if may_have(file.metadata.row_group(n), column)]
                    tables.append(file.read_row_groups(groups, columns=self._columns))
        return pa.concat_tables(tables).combine_chunks()


def _number(entry: FileEntry) -> int:
    """The number at the end of a file's name, whose beginning other versions had otherwise (`part-000007.parquet`)."""
    return int(PurePosixPath(entry.path).stem.rpartition("-")[2])


def parquet_bytes(table: pa.Table, groups: Sequence[int], **options: Any) -> bytes:
    """The Parquet file of a table, in row groups of the given numbers of rows.

    options: of `pyarrow.parquet.ParquetWriter`.
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        for start, rows in zip(np.cumsum([0, *groups]), groups, strict=False):
            writer.write_table(table.slice(int(start), rows), row_group_size=rows)
    return bytes(sink.getvalue())


def write_parquet(store: Store, table: pa.Table, *path: str, **options: Any) -> None:
    """Writes a table as a Parquet file in one step. options: of `pyarrow.parquet.write_table`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    store.write(sink.getvalue(), *path)
