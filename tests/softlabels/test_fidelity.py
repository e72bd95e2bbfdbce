"""Fidelity, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.softlabels.fidelity import PARTS, Fidelity, fidelity, fidelity_by_part
from bertkd_ray.softlabels.shards import SoftLabels


def test_fidelity_by_hand() -> None:
    """Two positions, k = 2: target token 5 and EOS (3)."""
    logits = np.log([[0.5, 0.25], [0.4, 0.4]]).astype(np.float16)
    labels = SoftLabels(np.asarray([[5, 6], [7, 3]], np.uint8), logits, np.zeros(2, np.float32), np.asarray([0, 2]))
    sums = fidelity(labels, Ragged.from_lists([[5]]))
    thirds = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    warm = 1 / (1 + 0.5**0.1)  # the larger of the two at temperature 10
    tempered = -(warm * np.log(warm) + (1 - warm) * np.log(1 - warm))
    assert (sums.positions, sums.gold_first, sums.gold_in_topk) == (2, 1, 2)
    assert sums.topk_mass == pytest.approx(0.75 + 0.8, abs=2e-3)
    assert sums.entropy_t1 == pytest.approx(thirds + np.log(2), abs=1e-3)
    assert sums.entropy_t10 == pytest.approx(tempered + np.log(2), abs=1e-4)
    report = (sums + Fidelity(positions=2)).report()
    assert report == {
        "positions": 4.0,
        "topk_mass": sums.topk_mass / 4,
        "gold_first": 0.25,
        "gold_in_topk": 0.5,
        "entropy_t1": sums.entropy_t1 / 4,
        "entropy_t10": sums.entropy_t10 / 4,
        "gold_perplexity": pytest.approx(1 / np.sqrt(0.5 * 0.4), abs=1e-3),
    }


def test_parts_of_the_positions_by_hand() -> None:
    """Two pairs: positions 5, EOS (3); 6, 7, EOS. First at the reference: 5, the second EOS; 6 is not among the k."""
    best = [[5, 1], [1, 3], [1, 2], [1, 7], [3, 1]]
    probabilities = np.asarray([[0.5, 0.25], [0.4, 0.4], [0.7, 0.1], [0.6, 0.2], [0.8, 0.1]])
    logits = np.log(probabilities).astype(np.float16)
    labels = SoftLabels(np.asarray(best, np.uint8), logits, np.zeros(5, np.float32), np.asarray([0, 2, 5]))
    tgt = Ragged.from_lists([[5], [6, 7]])
    parts = fidelity_by_part(labels, tgt)
    assert tuple(parts) == PARTS
    end, not_end, first, not_first = (parts[part] for part in PARTS)
    counted = [(part.positions, part.gold_first, part.gold_in_topk) for part in parts.values()]
    assert counted == [(2, 1, 2), (3, 1, 2), (2, 2, 2), (3, 0, 2)]
    masses = [part.report()["topk_mass"] for part in parts.values()]
    assert masses == pytest.approx([0.85, 2.35 / 3, 0.825, 2.4 / 3], abs=2e-3)
    perplexities = [part.report()["gold_perplexity"] for part in parts.values()]
    by_hand = [0.4 * 0.8, 0.5 * 0.2, 0.5 * 0.8, 0.4 * 0.2]  # of two references each
    assert perplexities == pytest.approx([product**-0.5 for product in by_hand], rel=1e-3)

    def entropy(row: int, temperature: float = 1.0) -> float:
        weights = probabilities[row] ** (1 / temperature)
        shares = weights / weights.sum()
        return float(-(shares * np.log(shares)).sum())

    rows = [[1, 4], [0, 2, 3], [0, 4], [1, 2, 3]]
    for part, of_part in zip(parts.values(), rows, strict=True):
        report = part.report()
        assert report["entropy_t1"] == pytest.approx(np.mean([entropy(row) for row in of_part]), abs=1e-3)
        assert report["entropy_t10"] == pytest.approx(np.mean([entropy(row, 10) for row in of_part]), abs=1e-4)
    # Each two of them are all of the positions.
    whole = fidelity(labels, tgt)
    for one, other in ((end, not_end), (first, not_first)):
        assert (one + other).report() == pytest.approx(whole.report())


def test_fidelity_of_certainty_and_of_nothing() -> None:
    """A vanishing entry adds no entropy; mass is never above one although float16 rounds the logits up."""
    labels = SoftLabels(
        np.asarray([[3, 4]], np.uint8),
        np.asarray([[2000.0, -2000.0]], np.float16),
        np.asarray([1999.9], np.float32),
        np.asarray([0, 1]),
    )
    sums = fidelity(labels, Ragged.from_lists([[]]))
    assert (sums.topk_mass, sums.entropy_t1) == (1.0, 0.0)
    assert sums.entropy_t10 == pytest.approx(0.0, abs=1e-12)
    nothing = SoftLabels(
        np.zeros((0, 2), np.uint8), np.zeros((0, 2), np.float16), np.zeros(0, np.float32), np.asarray([0])
    )
    assert fidelity(nothing, Ragged.from_lists([])) == Fidelity()
    assert set(fidelity_by_part(nothing, Ragged.from_lists([])).values()) == {Fidelity()}
    assert np.isnan(Fidelity(positions=3).report()["gold_perplexity"])
    assert np.isnan(Fidelity().report()["topk_mass"])
