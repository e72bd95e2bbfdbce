"""Workers that come and go: `workers: [1, 2]` on nodes that join and leave."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from bertkd_ray.artifacts.artifact import load
from bertkd_ray.artifacts.store import Store
from bertkd_ray.cli import main
from tests.chaos.machine import Driver, machine
from tests.helpers.small_config import write_config

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = 300
COMMON = [f"teacher.steps={STEPS}", f"teacher.eval_every={STEPS}", "tracking=none", "cpus_per_worker=1"]


def _losses(storage: Path) -> list[float]:
    teacher = next(path.parent for path in storage.glob("teacher-*/manifest.json"))
    rows = load(Store(str(storage)), teacher.name).read_json("history.json")["rows"]
    return [row["train/loss"] for row in rows if "train/loss" in row]


def _wait(driver: Driver, text: str, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not any(text in line for line in driver.lines):
        assert driver.running, f"ended before {text!r}: {driver.lines[-5:]}"
        assert time.monotonic() < end, f"no {text!r}: {driver.lines[-5:]}"
        time.sleep(0.1)


def test_training_goes_on_with_the_nodes_there_are(tmp_path):
    config = write_config(tmp_path, checkpoint_every=10)
    fixed, elastic = tmp_path / "fixed", tmp_path / "elastic"
    assert main(["finetune", str(config), *COMMON, "runtime=local", "workers=1", f"storage={fixed}"]) == 0
    losses = _losses(fixed)
    assert len(losses) == STEPS
    (corpus,) = fixed.glob("corpus-*")
    shutil.copytree(corpus, elastic / corpus.name)
    with machine(nodes=1, cpus=1) as cluster:
        settings = ["workers=[1, 2]", "resize_every=2", "max_failures=10", f"storage={elastic}"]
        driver = Driver(["finetune", str(config), *COMMON, *settings], cluster.address, tmp_path / "elastic.log")
        _wait(driver, f"/{STEPS} steps")
        with cluster.paused("RayTrainWorker"):  # Ray looks for new nodes every 20 s only, by when it might have ended
            cluster.add_node()
            _wait(driver, "from the newest checkpoint, with 2 workers")
        cluster.kill_node(random.Random(1))
        _wait(driver, "from the newest checkpoint, with 1 worker")
        assert driver.wait() == 0
    assert _losses(elastic) == pytest.approx(losses, rel=1e-4)
