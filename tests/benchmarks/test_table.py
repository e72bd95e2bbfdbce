"""Rows as people and machines read them."""

from __future__ import annotations

import json

from benchmarks.table import Row, markdown_table, number, text_table
from benchmarks.timing import Spread

FULL = Row(
    "extract",
    "pairs/s",
    ours=Spread(48.0, 40.0, 50.0),
    baseline=Spread(12.0, 11.0, 13.0),
    ratio=Spread(4.0, 3.5, 4.25),
    goal="≥ 8",
    product_rate=Spread(4.2e11, 4e11, 4.3e11),
    product_gain=Spread(2.46, 2.4, 2.5),
    utilisation=Spread(0.714, 0.7, 0.72),
    details={"pairs": 192},
)
BARE = Row("wait", "% of step time", ours=Spread(0.01234, 0.0, 0.1))


def test_cells_by_hand() -> None:
    assert FULL.cells() == ["extract", "pairs/s", "48.0", "12.0", "4.00 (3.50–4.25)", "≥ 8", "420 (2.5)", "71%"]
    assert BARE.cells() == ["wait", "% of step time", "0.0123", "–", "–", "–", "–", "–"]
    assert [number(value) for value in (12345.6, 99.96, 0.5)] == ["12,346", "100.0", "0.5"]


def test_columns_of_the_terminal_line_up() -> None:
    lines = text_table([FULL, BARE]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].strip("─ ") == ""


def test_markdown_has_a_cell_for_every_heading() -> None:
    assert {line.count("|") for line in markdown_table([FULL, BARE]).splitlines()} == {9}


def test_json_keeps_every_figure() -> None:
    found = json.loads(json.dumps(FULL.as_json()))
    assert found["ratio"] == {"median": 4.0, "least": 3.5, "most": 4.25}
    assert found["details"] == {"pairs": 192}
