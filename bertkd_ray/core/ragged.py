"""Lists of token ids as Arrow keeps them: one flat array of values and the offsets of the rows."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ragged:
    """`n` rows of numbers, mostly integers, of differing length.

    values: shape [sum of lengths]; offsets: int64[n + 1], row i is values[offsets[i]:offsets[i + 1]].
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64[n], the length of every row."""
        return np.diff(self.offsets)

    def row(self, index: int) -> NDArray[np.integer]:
        """The values of one row."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def rows(self, start: int, end: int) -> Self:
        """The rows from `start` to `end`, without copying their values."""
        offsets = self.offsets[start : end + 1]
        return type(self)(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, rows: NDArray[np.integer]) -> Self:
        """The given rows, in the given order; a row may be named more than once."""
        lengths = self.lengths[rows]
        offsets = offsets_of(lengths)
        return type(self)(self.values[flat_positions(self.offsets[:-1][rows], lengths)], offsets)

    @classmethod
    def from_lists(cls, rows: list[list[int]]) -> Self:
        """From Python lists, as int32."""
        return cls.from_arrow(pa.array(rows, pa.list_(pa.int32())))

    @classmethod
    def from_arrow(cls, column: pa.Array | pa.ChunkedArray) -> Self:
        """From a list column without nulls, copying at most the offsets where the column is one chunk."""
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        offsets = array.offsets.to_numpy().astype(np.int64)
        values = array.values.to_numpy(zero_copy_only=False)
        return cls(values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def to_arrow(self, value_type: pa.DataType) -> pa.ListArray:
        """As an Arrow list column of the given value type."""
        return pa.ListArray.from_arrays(pa.array(self.offsets, pa.int32()), pa.array(self.values, value_type))


def offsets_of(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """int64[n + 1]: where rows of these lengths begin, and the end of the last."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def flat_positions(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """For every row the positions start, start + 1, …, start + length - 1, rows one after another."""
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1], dtype=np.int64) + np.repeat(np.asarray(starts, np.int64) - offsets[:-1], lengths)
