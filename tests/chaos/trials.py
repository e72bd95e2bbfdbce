"""Trials: the pipeline once undisturbed, then again and again with something killed at a random moment."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.chaos.comparison import Differences, compare, steps_again
from tests.chaos.machine import VICTIMS, Driver, Machine, name_of
from tests.helpers.small_config import write_config

STAGES = ("prepare", "finetune", "extract", "distill/distilled", "translate/distilled")
CHECKPOINT_EVERY = 15
NOTHING = "nothing, the command had ended"
_MOST_RESTARTS = 5
_LAST_FILE = {
    "prepare": "test/fragment-000003.parquet",
    "finetune": "history.json",
    "extract": "shard-000003.parquet",
    "distill/distilled": "history.json",
    "translate/distilled": "translations.parquet",
}
"""What a stage writes last before its manifest, or nearly so."""


@dataclass(frozen=True)
class Disturbance:
    """What is to be killed, and when."""

    stage: str
    victim: str
    signal: int
    moment: float | str
    """Share of the stage's undisturbed time, or the file whose appearance is the moment."""

    @staticmethod
    def draw(rng: random.Random) -> Disturbance:
        """One of all kinds: half of the drivers' deaths happen while an artifact is being committed."""
        stage, victim = rng.choice(STAGES), rng.choice(VICTIMS)
        number = signal.SIGKILL if victim == "node" else rng.choice((signal.SIGKILL, signal.SIGTERM))
        moment: float | str = rng.random()
        if victim == "driver" and rng.random() < 0.5:
            moment = rng.choice((_LAST_FILE[stage], "manifest.json"))
        return Disturbance(stage, victim, number, moment)


@dataclass(frozen=True)
class Trial:
    """A disturbed run that has finished."""

    number: int
    disturbances: tuple[Disturbance, ...]
    hits: tuple[str, ...]
    """The process that each hit, by Ray's name for it."""
    restarts: int
    """Times that the command had to be given again."""
    seconds_lost: float
    """Wall-clock seconds more than the stages took undisturbed."""
    steps_again: int
    """Training steps computed more than once."""
    differences: Differences


class Undisturbed:
    """The run that the others must equal."""

    def __init__(self, directory: Path, machine: Machine) -> None:
        """Writes the project and runs it once."""
        self.directory, self.storage = directory, directory / "undisturbed"
        self.config = _write_project(directory)
        driver = _driver(self, self.storage, machine)
        code = driver.wait()
        assert code == 0, f"the undisturbed run failed; see {directory / 'undisturbed.log'}"
        self._artifacts = dict(driver.artifacts)
        self.stage_seconds: dict[str, float] = {}
        self.learn(driver)

    def lend(self, storage: Path, stage: str) -> list[str]:
        """Copies what the stages before this one have made, which a trial need not make again to be disturbed later."""
        lent = [self._artifacts[earlier] for earlier in STAGES[: STAGES.index(stage)]]
        for name in lent:
            shutil.copytree(self.storage / name, storage / name)
        return lent

    def learn(self, driver: Driver) -> None:
        """Takes over the times of stages that were faster: on a machine with other work they vary."""
        for stage, seconds in driver.seconds.items():
            self.stage_seconds[stage] = min(seconds, self.stage_seconds.get(stage, seconds))


def trials(undisturbed: Undisturbed, machine: Machine, seed: int, numbers: range) -> Iterator[Trial]:
    """One trial for each number; the same seed and number give the same disturbance."""
    for number in numbers:
        rng = random.Random(f"{seed}/{number}")
        yield trial(undisturbed, machine, number, [Disturbance.draw(rng)], rng)


def trial(
    undisturbed: Undisturbed, machine: Machine, number: int, disturbances: Sequence[Disturbance], rng: random.Random
) -> Trial:
    """Runs the pipeline from the first disturbed stage on until it finishes.

    disturbances: of different stages, in their order. rng: chooses among the processes to be hit.
    """
    storage = undisturbed.directory / f"trial-{number}"
    first = disturbances[0].stage
    lent = undisturbed.lend(storage, first)
    expected = sum(undisturbed.stage_seconds[stage] for stage in STAGES[STAGES.index(first) :])
    started = time.monotonic()
    driver = _driver(undisturbed, storage, machine)
    hits: list[str] = []
    restarts = 0
    while True:
        while len(hits) < len(disturbances) and driver.wait_for(disturbances[len(hits)].stage):
            what = disturbances[len(hits)]
            hit = _wait_for_moment(what, driver, storage, undisturbed)
            hits.append(machine.kill(what.victim, what.signal, driver, rng) if hit else NOTHING)
        code = driver.wait()
        undisturbed.learn(driver)
        if code == 0:
            break
        restarts += 1
        assert restarts <= _MOST_RESTARTS, f"trial {number} does not finish; see {storage}.log"
        driver = _driver(undisturbed, storage, machine)
    return Trial(
        number=number,
        disturbances=tuple(disturbances),
        hits=(*hits, *[NOTHING] * (len(disturbances) - len(hits))),
        restarts=restarts,
        seconds_lost=time.monotonic() - started - expected,
        steps_again=steps_again(storage),
        differences=compare(undisturbed.storage, storage, lent),
    )


def _wait_for_moment(what: Disturbance, driver: Driver, storage: Path, undisturbed: Undisturbed) -> bool:
    """Waits for the moment, or for the stage's end where that comes first; False if the driver has ended."""
    started = driver.starts[what.stage]
    while driver.running:
        if isinstance(what.moment, str):
            if (storage / driver.artifacts[what.stage] / what.moment).exists():
                return True
        elif time.monotonic() - started >= what.moment * undisturbed.stage_seconds[what.stage]:
            return True
        if what.stage in driver.ends:
            return True
        time.sleep(0.001)
    return False


def _driver(undisturbed: Undisturbed, storage: Path, machine: Machine) -> Driver:
    return Driver(["translate", str(undisturbed.config), f"storage={storage}"], machine.address, Path(f"{storage}.log"))


def _write_project(directory: Path) -> Path:
    """The small project with one arm, and with trainings of some seconds."""
    path = write_config(directory, arms={"distilled": {}}, checkpoint_every=CHECKPOINT_EVERY)
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section in ("teacher", "student"):
        tree[section].update(steps=60, eval_every=20)
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def describe(trial: Trial) -> dict[str, str]:
    """A trial of one disturbance as a row of the table."""
    (what,), (hit,), found = trial.disturbances, trial.hits, trial.differences
    moment = f"as {what.moment} appears" if isinstance(what.moment, str) else f"{what.moment:.0%} of its time"
    return {
        "trial": str(trial.number),
        "stage": what.stage,
        "victim": hit if hit == what.victim else f"{what.victim}: {hit}",
        "signal": name_of(what.signal),
        "moment": moment,
        "restarts": str(trial.restarts),
        "seconds lost": f"{max(0.0, trial.seconds_lost):.0f}",
        "steps again": str(trial.steps_again),
        "rows lost": str(found.rows_lost),
        "rows twice": str(found.rows_twice),
        "weights equal": "yes" if found.weights_equal else "NO",
        "all equal": "yes" if found.none else f"NO: {found}",
    }
