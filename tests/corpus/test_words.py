"""The different words of lines, and what is remembered of them."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.segmentation import normalise
from bertkd_ray.corpus.words import Numbering, WordCache, words_of
from tests.corpus.berts import count_words


def test_words_by_hand() -> None:
    words = words_of(pa.array(["b a b", "", "c"]))
    assert words.distinct == ["b", "a", "", "c"]
    assert words.indices.tolist() == [0, 1, 0, 2, 3]
    assert words.offsets.tolist() == [0, 3, 4, 5]
    assert words.counts().tolist() == [2, 1, 1, 1]
    assert words.counts(np.array([3, 1, 0])).tolist() == [6, 3, 1, 0]
    assert words.counts(np.ones(3, np.int64)).dtype == np.int64
    none = words_of(pa.array([], pa.string()))
    assert (none.distinct, none.offsets.tolist(), none.counts().tolist()) == ([], [0], [])


def test_words_of_a_slice_are_its_own() -> None:
    words = words_of(pa.array(["x y", "b a", "a"])[1:])
    assert (words.distinct, words.offsets.tolist()) == (["b", "a"], [0, 2, 3])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text("ab é中\u0301\u200d\x1c\t😀", max_size=12), st.integers(0, 3)), max_size=8))
def test_words_and_counts_are_those_of_every_line(weighted: list[tuple[str, int]]) -> None:
    lines = [normalise(line) for line, _ in weighted]
    times = np.array([time for _, time in weighted], np.int64)
    words = words_of(pa.array(lines, pa.string()))
    for number, line in enumerate(lines):
        indices = words.indices[words.offsets[number] : words.offsets[number + 1]]
        assert [words.distinct[index] for index in indices] == line.split(" ")
    found = dict(zip(words.distinct, words.counts(times).tolist(), strict=True))
    found.pop("", None)
    expected = count_words(line for line, time in zip(lines, times, strict=True) for _ in range(time))
    assert Counter(found) == expected


class Lengths:
    """Gives a word its length, that many times; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, words) -> Ragged:
        self.asked += words
        return Ragged.from_lists([[len(word)] * len(word) for word in words])


def rows(ragged: Ragged) -> list[list[int]]:
    return [ragged.row(number).tolist() for number in range(len(ragged))]


def test_a_word_is_computed_once() -> None:
    compute = Lengths()
    cache = WordCache(compute)
    assert rows(cache(["aa", "", "b"])) == [[2, 2], [], [1]]
    assert rows(cache(["b", "ccc", "aa"])) == [[1], [3, 3, 3], [2, 2]]
    assert rows(cache([])) == []
    assert compute.asked == ["aa", "", "b", "ccc"]


def test_words_that_are_no_longer_met_are_forgotten() -> None:
    compute = Lengths()
    cache = WordCache(compute, capacity=3)
    for number in range(100):
        assert rows(cache(["often", f"{number:03}"])) == [[5] * 5, [3] * 3]
        assert len(cache) <= 2 * 3 + 2
    assert compute.asked.count("often") == 1
    cache(["000"])
    assert compute.asked.count("000") == 2


def test_what_is_forgotten_is_freed_at_once() -> None:
    """Not at some later collection of cycles, until which a long run would hold it several times over."""
    cache = WordCache(Lengths(), capacity=3)
    gc.disable()
    try:
        cache(["a", "b"])
        forgotten = weakref.ref(cache._row_of)
        cache(["c", "d"])
        assert forgotten() is None
    finally:
        gc.enable()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["", "a", "bb", "ccc", "dddd", "e" * 5]), unique=True)), st.integers(1, 5))
def test_what_is_forgotten_is_computed_again(calls: list[list[str]], capacity: int) -> None:
    cache = WordCache(Lengths(), capacity)
    for words in calls:
        assert rows(cache(words)) == [[len(word)] * len(word) for word in words]
        assert len(cache) <= 2 * (capacity + 6)


def test_a_call_that_was_cut_off_leaves_no_wrong_integers() -> None:
    compute = Lengths()

    def fails(words):
        if "bad" in words:
            raise MemoryError
        return compute(words)

    cache = WordCache(fails)
    cache(["a"])
    with pytest.raises(MemoryError):
        cache(["bb", "a", "bad"])
    assert rows(cache(["ccc", "a", "bb"])) == [[3] * 3, [1], [2, 2]]


def test_numbering_is_in_the_order_of_the_first_look() -> None:
    numbers = Numbering(x=0, y=1)
    assert [numbers[key] for key in ("y", "z", "x", "z", "w")] == [1, 2, 0, 2, 3]
    assert list(numbers) == ["x", "y", "z", "w"]
