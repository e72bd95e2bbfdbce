"""Tables of text, and numbers in their cells."""

from __future__ import annotations

import math

import pytest

from bertkd_ray.core.text_tables import format_number, format_p, join_blocks, markdown_table, text_table

TABLE = [["arm", "BLEU"], ["control", "66.08"], ["a|b", "–"]]


@pytest.mark.parametrize(
    ("p_value", "text"), [(None, "–"), (math.nan, "–"), (0.0009, "<0.001"), (0.001, "0.001"), (0.0149, "0.015")]
)
def test_p_values(p_value, text):
    assert format_p(p_value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (math.nan, "–"), (0.0, "+0.00"), (1.066, "+1.07")])
def test_numbers(value, text):
    assert format_number(value, "+.2f") == text


def test_plain_text():
    assert text_table(TABLE) == ["arm       BLEU", "───────  ─────", "control  66.08", "a|b          –"]


def test_a_long_name_is_cut_at_the_width_of_the_page():
    header, rule, row = text_table([["arm", "BLEU"], ["x" * 200, "66.08"]])
    assert {len(header), len(rule), len(row)} == {100}
    assert row == f"{'x' * 92}…  66.08"


def test_markdown():
    assert markdown_table(TABLE) == ["| arm | BLEU |", "| --- | ---: |", "| control | 66.08 |", "| a\\|b | – |"]


def test_nothing_makes_no_table():
    assert text_table([]) == markdown_table([]) == []


def test_blocks_are_parted_and_empty_ones_left_out():
    assert join_blocks([["a", "b"], [], ["c"]], "\n") == "a\nb\n\nc\n"
