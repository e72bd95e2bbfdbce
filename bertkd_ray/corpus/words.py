"""The words of many lines at once, and a cache of integers by word.

A text says the same words again and again, so what is done to a word is done once: Arrow finds the different words of
some lines, Python sees those of them that are new, and numpy puts the results where the words stand.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bertkd_ray.core.ragged import Ragged

CACHED_WORDS = 1 << 17


class Words(NamedTuple):
    """The words of n lines: `distinct[indices[i]]` is the i-th, and a line's are from `offsets[line]` on.

    distinct: K different words, in the order they are met; an empty line holds one empty word.
    indices: int32[sum of words]; offsets: int64[n + 1].
    """

    distinct: list[str]
    indices: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def counts(self, times: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """int64[K], how often each word stands there; times: int64[n], how often each line counts, null: once."""
        weights = None if times is None else np.repeat(times, np.diff(self.offsets))
        return np.bincount(self.indices, weights, len(self.distinct)).astype(np.int64)


def words_of(lines: pa.StringArray) -> Words:
    """The words of normalised lines, between which one space stands."""
    by_line = pc.split_pattern(lines, " ")
    coded = by_line.flatten().dictionary_encode()
    offsets = by_line.offsets.to_numpy().astype(np.int64)
    return Words(coded.dictionary.to_pylist(), coded.indices.to_numpy(), offsets - offsets[0])


class Numbering(dict[Any, int]):
    """Numbers its keys from 0 in the order in which they are first looked up."""

    def __missing__(self, key: Any) -> int:
        number = self[key] = len(self)
        return number


class WordCache:
    """Some integers for every word, computed when a word is first met.

    Holds at most twice `capacity` words, besides those of the newest call twice: when `capacity` of them were met since
    the last eviction, the others are evicted.
    """

    def __init__(self, compute: Callable[[Sequence[str]], Ragged], capacity: int = CACHED_WORDS) -> None:
        """compute: gives words their integers, each of them alone; the same for the same word, always."""
        self._compute, self._capacity = compute, capacity
        self._row_of = Numbering()
        self._rows = compute([])
        self._met = np.zeros(0, dtype=bool)

    def __len__(self) -> int:
        return len(self._row_of)

    def __call__(self, words: Sequence[str]) -> Ragged:
        """The integers of different words, in their order."""
        known = len(self._rows)
        if len(self._row_of) > known:
            # A call was cut off between the two; its words have a row and no integers.
            self._row_of = Numbering(zip(list(self._row_of)[:known], range(known), strict=True))
        rows = np.fromiter(map(self._row_of.__getitem__, words), np.int64, len(words))
        if len(self._row_of) > known:
            old, new = self._rows, self._compute([words[index] for index in np.flatnonzero(rows >= known).tolist()])
            offsets = np.concatenate([old.offsets, old.offsets[-1] + new.offsets[1:]])
            self._rows = Ragged(np.concatenate([old.values, new.values]), offsets)
            self._met = np.concatenate([self._met, np.zeros(len(new), dtype=bool)])
        self._met[rows] = True
        integers = self._rows.take(rows)
        if np.count_nonzero(self._met) > self._capacity:
            kept, every = np.flatnonzero(self._met), list(self._row_of)
            self._row_of = Numbering((every[row], number) for number, row in enumerate(kept.tolist()))
            self._rows = self._rows.take(kept)
            self._met = np.zeros(len(kept), dtype=bool)
        return integers
