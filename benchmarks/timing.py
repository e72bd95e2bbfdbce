"""Times of things done in turn, and their ratios round by round, so that a machine's moods touch both sides alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ROUNDS = 5


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: list[float]) -> Spread:
        """Raises ValueError without values."""
        if not values:
            raise ValueError("a spread needs a value at least")
        return Spread(statistics.median(values), min(values), max(values))

    def inverse(self) -> Spread:
        """Of a ratio the other way round."""
        return Spread(1 / self.median, 1 / self.most, 1 / self.least)


def interleaved(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    *,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every contestant in every round; in a round each runs once, every other round in the reverse order.

    warm_up: rounds before, which do not count. What a contestant gives is dropped before the clock starts again.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for index in range(-warm_up, rounds):
        for name in order if index % 2 == 0 else reversed(order):
            gc.collect()
            started = clock()
            contestants[name]()
            spent = clock() - started
            if index >= 0:
                seconds[name].append(spent)
    return seconds


def ratios(ours: list[float], theirs: list[float]) -> Spread:
    """How many times as large our figure is, round by round."""
    return Spread.of([mine / other for mine, other in zip(ours, theirs, strict=True)])


def rates(amount: float, seconds: list[float]) -> list[float]:
    """`amount` a second, round by round."""
    return [amount / spent for spent in seconds]
