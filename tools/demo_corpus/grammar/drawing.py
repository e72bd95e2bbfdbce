"""Random choices; all randomness of the corpus goes through these and one generator."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


def chance(rng: Random, probability: float) -> bool:
    """True with the given probability."""
    return rng.random() < probability


def draw(rng: Random, items: Sequence[Item]) -> Item:
    """One of the items, all alike."""
    return items[int(rng.random() * len(items))]


def draw_skewed(rng: Random, items: Sequence[Item]) -> Item:
    """One of the items, early ones more often: the last tenth is drawn six times in a hundred."""
    return items[int(rng.random() ** 1.7 * len(items))]
