"""Measurements as rows: a table for people, JSON for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.timing import Spread

HEADINGS = [
    "what",
    "unit",
    "ours",
    "baseline",
    "ratio (min–max)",
    "goal",
    "products, GFLOP/s (× f32)",
    "utilisation",
]
_NOTHING = "–"


@dataclass(frozen=True)
class Row:
    """One thing that was measured."""

    what: str
    unit: str
    ours: Spread
    baseline: Spread | None = None
    ratio: Spread | None = None
    """Ours over the baseline's, round by round."""
    goal: str = ""
    product_rate: Spread | None = None
    """FLOP/s of the machine for the same matrix products as ours and nothing else, in the same rounds."""
    product_gain: Spread | None = None
    """`product_rate` over that of float32."""
    utilisation: Spread | None = None
    """Our FLOP/s over `product_rate`."""
    details: dict[str, Any] = field(default_factory=dict)
    """For the JSON alone."""

    def as_json(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)

    def cells(self) -> list[str]:
        """The row of the table."""
        ratio = f"{self.ratio.median:.2f} ({self.ratio.least:.2f}–{self.ratio.most:.2f})" if self.ratio else _NOTHING
        return [
            self.what,
            self.unit,
            number(self.ours.median),
            number(self.baseline.median) if self.baseline else _NOTHING,
            ratio,
            self.goal or _NOTHING,
            self._products(),
            f"{self.utilisation.median:.0%}" if self.utilisation else _NOTHING,
        ]

    def _products(self) -> str:
        if self.product_rate is None:
            return _NOTHING
        gain = f" ({self.product_gain.median:.1f})" if self.product_gain else ""
        return f"{self.product_rate.median / 1e9:,.0f}{gain}"


def number(value: float) -> str:
    """Three digits or more, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def text_table(rows: list[Row]) -> str:
    """For the terminal: two columns to the left, numbers to the right."""
    table = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in table
    ]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def markdown_table(rows: list[Row]) -> str:
    """For the documentation."""
    rule = ["---", "---", *["---:"] * (len(HEADINGS) - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [HEADINGS, rule, *(row.cells() for row in rows)])
