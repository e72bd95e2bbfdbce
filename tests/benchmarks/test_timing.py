"""Times and ratios on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.timing import Spread, interleaved, rates, ratios


class Clock:
    """Stands still until someone works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: list[float]) -> Callable[[], None]:
        """Takes the given seconds, call after call."""
        left = iter(seconds)

        def contestant() -> None:
            self.order.append(name)
            self.now += next(left)

        return contestant


def test_rounds_are_taken_in_turn_and_the_first_does_not_count() -> None:
    clock = Clock()
    found = interleaved({"a": clock.work("a", [100, 1, 2, 3]), "b": clock.work("b", [100, 4, 5, 6])}, 3, clock=clock)
    assert found == {"a": [1, 2, 3], "b": [4, 5, 6]}
    # Each goes first in every other round, so that neither always follows the other.
    assert clock.order == ["b", "a", "a", "b", "b", "a", "a", "b"]


def test_ratios_are_of_a_round_not_of_medians() -> None:
    """A machine that is ten times slower in the second round slows both."""
    ours, theirs = rates(12, [1, 10, 1]), rates(12, [3, 30, 6])
    assert ours == pytest.approx([12, 1.2, 12])
    assert ratios(ours, theirs) == Spread(pytest.approx(3), pytest.approx(3), pytest.approx(6))


def test_a_spread_by_hand() -> None:
    assert Spread.of([3.0, 1.0, 10.0, 2.0]) == Spread(2.5, 1.0, 10.0)
    assert Spread(2.0, 1.0, 4.0).inverse() == Spread(0.5, 0.25, 1.0)
    with pytest.raises(ValueError, match="a value at least"):
        Spread.of([])


def test_rounds_that_do_not_belong_together_are_no_ratio() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])
