"""Fragments of a corpus as the teacher's actors read them, and the row groups of what they write of one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertkd_ray.artifacts.store import Store


def read_fragment(store: Store, directory: str, fragment: str, columns: list[str]) -> tuple[pa.Table, list[int]]:
    """The pairs of a fragment, given by its path in a directory of the store, and the rows of its row groups."""
    with store.open_input(directory, fragment) as source:
        file = pq.ParquetFile(source)
        groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
        return file.read(columns=columns).combine_chunks(), groups


def kept_groups(groups: list[int], kept: NDArray[np.bool_]) -> list[int]:
    """The rows of the row groups without the pairs that are not kept; a group that loses all is gone."""
    left = [int(of_group.sum()) for of_group in np.split(kept, np.cumsum(groups)[:-1])]
    return [pairs for pairs in left if pairs]
