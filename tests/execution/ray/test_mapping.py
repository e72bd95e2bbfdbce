"""Maps on a real Ray session whose actors die."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from bertkd_ray.core.errors import UserError
from bertkd_ray.execution.ray.mapping import map_items

pytestmark = [pytest.mark.ray, pytest.mark.slow]

POOL = {"slots": 2, "gpus": 0}


@dataclass(frozen=True)
class Number:
    """An item, and a result."""

    value: int


@dataclass(frozen=True)
class Deaths:
    """A job: how often the process of number 3 dies, and the file that counts it."""

    log: str
    times: int


ITEMS = [Number(value) for value in range(6)]


class Killable:
    """An actor that is killed at one item, as often as the log of deaths is shorter than `times`."""

    def __init__(self, job: Deaths) -> None:
        self._log, self._times = Path(job.log), job.times

    def __call__(self, item: Number) -> Number:
        seen = self._log.read_text() if self._log.exists() else ""
        if item.value == 3 and len(seen) < self._times:
            self._log.write_text(seen + "x")
            os.kill(os.getpid(), signal.SIGKILL)
        return Number(item.value**2)


@pytest.mark.parametrize("times", [1, 6])  # Ray itself tries five times
def test_a_map_goes_on_after_actors_have_died_for_good(times, tmp_path, ray_session):
    squares = map_items(ITEMS, Killable, Deaths(str(tmp_path / "deaths"), times), **POOL, max_failures=3)
    assert sorted(square.value for square in squares) == [0, 1, 4, 9, 16, 25]
    assert len((tmp_path / "deaths").read_text()) == times


def test_a_map_whose_actor_always_dies_ends(tmp_path, ray_session):
    deaths = tmp_path / "deaths"
    with pytest.raises(ray.exceptions.RayError):
        list(map_items(ITEMS[3:4], Killable, Deaths(str(deaths), 10**6), **POOL, max_failures=0))
    assert len(deaths.read_text()) == 5


def _raises(item: Number, message: str) -> Number:
    raise UserError(f"{message} {item.value}")


def test_a_users_mistake_ends_a_map_at_once_with_its_own_message(ray_session):
    with pytest.raises(UserError, match=r"^a mistake in 3$"):
        list(map_items(ITEMS[3:4], _raises, "a mistake in", **POOL, max_failures=3))


class Refused:
    """An actor that cannot begin, as where torch cannot use its GPU."""

    def __init__(self, message: str) -> None:
        raise UserError(message)

    def __call__(self, item: Number) -> Number:
        return item


def test_an_actor_that_cannot_begin_ends_a_map_at_once_with_its_own_message(ray_session):
    with pytest.raises(UserError, match=r"^device: no GPU here$"):
        list(map_items(ITEMS, Refused, "device: no GPU here", **POOL, max_failures=3))
