"""Parquet files of artifacts: tables are written, and row groups read for training, plans and figures."""

from itertools import chain, groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.store import Store


class RowGroups:
    """The row groups of an artifact's Parquet files, read by number, in the order of the manifest.

    below: how the paths of the files begin; exclude: a file that does not belong to them. `rows` (int64[groups]) are
    the rows of each row group.
    """

    def __init__(self, artifact: Artifact, below: str, columns: list[str], *, exclude: str | None = None) -> None:
        self._artifact, self._columns = artifact, columns
        files = [entry for entry in artifact.files_below(below) if entry.is_parquet and entry.path != exclude]
        self._paths = [entry.path for entry in files]
        self._first_groups: NDArray[np.int64] = np.cumsum([0, *(len(entry.row_groups) for entry in files)])
        self.rows: NDArray[np.int64] = np.fromiter(chain.from_iterable(entry.row_groups for entry in files), np.int64)

    def read(self, groups: NDArray[np.int64]) -> pa.Table:
        """The rows of the given row groups, group after group, as a table of one chunk a column.

        Raises StorageError when a file cannot be read.
        """
        files = np.searchsorted(self._first_groups, groups, side="right") - 1
        tables: list[pa.Table] = []
        for file, neighbours in groupby(zip(files, groups, strict=True), key=lambda pair: int(pair[0])):
            indices = [int(group - self._first_groups[file]) for _, group in neighbours]
            with self._artifact.open_input(self._paths[file]) as source:
                tables.append(pq.ParquetFile(source).read_row_groups(indices, columns=self._columns))
        return pa.concat_tables(tables).combine_chunks()


def write_parquet(store: Store, table: pa.Table, *path: str, **options: Any) -> None:
    """Writes a table as a Parquet file in one step. options: of `pyarrow.parquet.write_table`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    store.write(sink.getvalue(), *path)
