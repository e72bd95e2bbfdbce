"""Rows of integers in one flat array, against plain Python lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkd_ray.core.ragged import Ragged, flat_positions, offsets_of

ROWS = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=6)


def lists_of(ragged: Ragged) -> list[list[int]]:
    return [ragged.row(index).tolist() for index in range(len(ragged))]


def test_values_offsets_and_lengths():
    ragged = Ragged.from_lists([[5, 6], [], [7]])
    assert ragged.values.tolist() == [5, 6, 7]
    assert ragged.values.dtype == np.int32
    assert ragged.offsets.tolist() == [0, 2, 2, 3]
    assert ragged.offsets.dtype == np.int64
    assert ragged.lengths.tolist() == [2, 0, 1]
    assert len(ragged) == 3


def test_no_rows():
    ragged = Ragged.from_lists([])
    assert (len(ragged), ragged.lengths.tolist()) == (0, [])
    assert lists_of(ragged.take(np.zeros(0, np.int64))) == []


@settings(deadline=None)
@given(ROWS, st.data())
def test_take_gives_the_rows_named_also_twice(rows, data):
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)) if rows else []
    taken = Ragged.from_lists(rows).take(np.asarray(chosen, np.int64))
    assert lists_of(taken) == [rows[index] for index in chosen]


def test_rows_are_a_part_without_a_copy():
    ragged = Ragged.from_lists([[1], [], [2, 3], [4]])
    part = ragged.rows(1, 3)
    assert (part.values.tolist(), part.offsets.tolist()) == ([2, 3], [0, 0, 2])
    assert np.shares_memory(part.values, ragged.values)
    assert [len(ragged.rows(*ends)) for ends in ((2, 2), (4, 4), (0, 4))] == [0, 0, 4]


@settings(deadline=None)
@given(ROWS)
def test_arrow_and_back(rows):
    column = Ragged.from_lists(rows).to_arrow(pa.int32())
    assert column.type == pa.list_(pa.int32())
    assert column.to_pylist() == rows
    assert lists_of(Ragged.from_arrow(column)) == rows


@pytest.mark.parametrize("large", [False, True])
def test_a_slice_of_an_arrow_column_begins_at_zero(large):
    kind = pa.large_list(pa.int32()) if large else pa.list_(pa.int32())
    column = pa.array([[1], [2, 3], [], [4]], kind).slice(1, 2)
    ragged = Ragged.from_arrow(column)
    assert ragged.offsets.tolist() == [0, 2, 2]
    assert ragged.values.tolist() == [2, 3]


def test_chunks_are_put_together():
    column = pa.chunked_array([[[1, 2]], [[], [3]]], pa.list_(pa.int32()))
    assert lists_of(Ragged.from_arrow(column)) == [[1, 2], [], [3]]
    assert len(Ragged.from_arrow(pa.chunked_array([], pa.list_(pa.int32())))) == 0


def test_floats_pass_through():
    column = pa.array([[0.5], [1.5, 2.5]], pa.list_(pa.float32()))
    assert Ragged.from_arrow(column).values.tolist() == [0.5, 1.5, 2.5]


def test_offsets_of_lengths():
    assert offsets_of(np.asarray([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert offsets_of(np.zeros(0, np.int64)).tolist() == [0]
    # Sums of many int32 lengths need 64 bits.
    assert offsets_of(np.asarray([2**31 - 1, 2**31 - 1], np.int32))[-1] == 2**32 - 2


def test_flat_positions_count_up_from_every_start():
    assert flat_positions(np.asarray([10, 0, 7]), np.asarray([2, 0, 3])).tolist() == [10, 11, 7, 8, 9]
    assert flat_positions(np.asarray([5, 5]), np.asarray([1, 2])).tolist() == [5, 5, 6]
    assert flat_positions(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
