"""Rates, ratios and utilisation of work whose time is known."""

from __future__ import annotations

import pytest
import torch

from benchmarks.comparison import OURS, Compared, compare
from benchmarks.timing import Spread


def test_figures_by_hand() -> None:
    """Two rounds; the products of ours take half of its time, and a fifth of what float32 takes."""
    found = Compared({OURS: [2.0, 4.0], "plain": [8.0, 8.0]}, [1.0, 2.0], [5.0, 10.0], 100)
    assert found.rate(OURS, 8) == Spread(3.0, 2.0, 4.0)
    assert found.ratio("plain", 8, 4) == Spread(6.0, 4.0, 8.0)
    assert found.columns == {
        "product_rate": Spread(75.0, 50.0, 100.0),
        "product_gain": Spread(5.0, 5.0, 5.0),
        "utilisation": Spread(0.5, 0.5, 0.5),
    }


def test_all_take_turns_and_products_are_seen() -> None:
    left, right = torch.randn(4, 5), torch.randn(5, 6)
    calls: list[str] = []

    def ours() -> None:
        calls.append(OURS)
        torch.mm(left, right)

    found = compare(ours, {"plain": lambda: calls.append("plain")}, 3)
    assert found.product_flops == 2 * 4 * 5 * 6
    # Once to see the products, once to warm up, three that count.
    assert (calls.count(OURS), calls.count("plain")) == (5, 4)
    assert {len(rounds) for rounds in found.seconds.values()} == {3}
    assert len(found.product_seconds) == len(found.float32_seconds) == 3
    assert found.utilisation.median == pytest.approx(
        sorted(a / b for a, b in zip(found.product_seconds, found.seconds[OURS], strict=True))[1]
    )
