from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkd_ray.core.padding import longest_first_batches, padded_length


@pytest.mark.parametrize(("length", "padded"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_a_padded_length_is_the_next_multiple(length, padded):
    assert padded_length(length, 8) == padded


def test_batches_by_hand():
    lengths = np.array([3, 20, 8, 9, 1, 16])  # padded to 8, 24, 8, 16, 8, 16
    batches = [batch.tolist() for batch in longest_first_batches(lengths, budget=32)]
    assert batches == [[1], [5, 3], [2, 0, 4]]
    assert [batch.tolist() for batch in longest_first_batches(lengths, budget=1)] == [[1], [5], [3], [2], [0], [4]]
    assert longest_first_batches(np.array([], dtype=np.int64), budget=8) == []


@given(widths=st.lists(st.integers(3, 60), max_size=20), budget=st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_batches_keep_the_budget_and_every_row(widths, budget):
    falling = np.asarray(sorted(widths, reverse=True), np.int64)
    batches = longest_first_batches(falling, budget)
    assert [row for batch in batches for row in batch.tolist()] == list(range(len(falling)))
    for batch in batches:
        rows = falling[batch]
        assert len(rows) == 1 or len(rows) * (-(-int(rows[0]) // 8) * 8) <= budget
