"""A trial of `python -m tests.chaos`, chosen to hit each kind of victim and a commit."""

from __future__ import annotations

import random
import signal

import pytest

from tests.chaos.machine import VICTIMS, machine
from tests.chaos.trials import NOTHING, STAGES, Disturbance, Undisturbed, trial

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CHOSEN = [
    Disturbance("finetune", "worker", signal.SIGTERM, 0.9),
    Disturbance("extract", "node", signal.SIGKILL, 0.6),
    Disturbance("distill/distilled", "driver", signal.SIGKILL, "history.json"),
]


def test_a_seed_draws_every_stage_victim_and_kind_of_moment():
    drawn = [Disturbance.draw(random.Random(f"1/{number}")) for number in range(1, 41)]
    assert {what.stage for what in drawn} == set(STAGES)
    assert {what.victim for what in drawn} == set(VICTIMS)
    assert {type(what.moment) for what in drawn} == {float, str}
    assert {what.signal for what in drawn} == {signal.SIGKILL, signal.SIGTERM}
    assert drawn == [Disturbance.draw(random.Random(f"1/{number}")) for number in range(1, 41)]


def test_a_run_that_is_disturbed_three_times_equals_the_undisturbed_one(tmp_path):
    # A CPU a node: each more is an actor of every map.
    with machine(cpus=1) as cluster:
        found = trial(Undisturbed(tmp_path, cluster), cluster, 1, CHOSEN, random.Random(1))
    assert found.differences.none, found
    assert NOTHING not in found.hits, found
    assert found.restarts > 0
