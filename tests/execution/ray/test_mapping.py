"""Maps on a real Ray session whose actors die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import ray

from bertkd_ray.core.errors import UserError
from bertkd_ray.execution.ray.mapping import ActorPool, map_items

pytestmark = [pytest.mark.ray, pytest.mark.slow]

POOL = ActorPool(size=2, gpus=0)
ITEMS = [{"value": value} for value in range(6)]


class Killable:
    """An actor that is killed at one item, as often as the file of deaths is shorter than `times`."""

    def __init__(self, deaths: str, times: int) -> None:
        self._deaths, self._times = Path(deaths), times

    def __call__(self, item: dict[str, int]) -> dict[str, int]:
        seen = self._deaths.read_text() if self._deaths.exists() else ""
        if item["value"] == 3 and len(seen) < self._times:
            self._deaths.write_text(seen + "x")
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": item["value"] ** 2}


@pytest.mark.parametrize("times", [1, 6])  # Ray itself tries five times
def test_a_map_goes_on_after_actors_have_died_for_good(times, tmp_path, ray_session):
    found = map_items(ITEMS, Killable, {"deaths": str(tmp_path / "deaths"), "times": times}, POOL, 3)
    assert sorted(row["square"] for row in found) == [0, 1, 4, 9, 16, 25]
    assert len((tmp_path / "deaths").read_text()) == times


def test_a_map_whose_actor_always_dies_ends(tmp_path, ray_session):
    deaths = tmp_path / "deaths"
    with pytest.raises(ray.exceptions.RayError):
        list(map_items(ITEMS[3:4], Killable, {"deaths": str(deaths), "times": 10**6}, POOL, 0))
    assert len(deaths.read_text()) == 5


def _raises(item: dict[str, int], message: str) -> dict[str, int]:
    raise UserError(f"{message} {item['value']}")


def test_a_users_mistake_ends_a_map_at_once_with_its_own_message(ray_session):
    with pytest.raises(UserError, match=r"^a mistake in 3$"):
        list(map_items(ITEMS[3:4], _raises, {"message": "a mistake in"}, POOL, 3))
