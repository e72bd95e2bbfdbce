"""Rows of the curves, and the form in which `history.json` has them."""

from __future__ import annotations

import pytest

from bertkd_ray.training.curves import TRAIN_LOSS, VALID_BLEU, VALID_NLL, CurveRow, validation_at

ROWS = [CurveRow(5, 1.5, {TRAIN_LOSS: 2.0}), CurveRow(5, 1.75, {VALID_NLL: 3.0, VALID_BLEU: 0.5})]


def test_a_row_is_written_and_read_as_one_flat_object():
    assert ROWS[1].to_json() == {"step": 5, "time": 1.75, "valid/nll": 3.0, "valid/bleu": 0.5}
    assert [CurveRow.from_json(row.to_json()) for row in ROWS] == ROWS


def test_both_splits_have_a_row_at_one_step():
    assert [row.split for row in ROWS] == ["train", "valid"]
    assert validation_at(ROWS, 5) is ROWS[1]
    with pytest.raises(StopIteration):
        validation_at(ROWS, 6)
