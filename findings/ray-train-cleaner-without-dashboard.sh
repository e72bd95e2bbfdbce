#!/usr/bin/env bash
# Ray Train 2.60.0 leaves a dead training's workers running where no dashboard runs. Every training has a detached
# actor, PlacementGroupCleaner, that asks whether the training's controller is alive, and removes the placement group,
# and with it the workers, once it is not. It asks the state API, which the dashboard serves: in a session of
# `ray.init(include_dashboard=False)` every question fails, and a failed question counts as "alive".
#
# Seen: the controller's process is killed while a worker trains. With a dashboard the placement group is removed within
# seconds; without one it is there a minute later, the worker still holds its CPU, and the cleaner, being detached, goes
# on asking. The table of actors (`ray._private.state.actors`), which needs no dashboard, has the controller as DEAD.
# Who is concerned: sessions without a dashboard in which one training follows another, tests and notebooks above all.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check "ray[default,train]==2.60.0" psutil
cat > "$place/train.py" <<'PYTHON'
import sys
import threading
import time

import psutil
import ray
from ray.train import ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


def train() -> None:
    time.sleep(600)


def states() -> list[str]:
    return [group["state"] for group in ray.util.placement_group_table().values()]


def wait_for(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.5)
    return condition()


def fit() -> None:
    try:
        DataParallelTrainer(train, scaling_config=ScalingConfig(num_workers=1)).fit()
    except ray.exceptions.RayActorError:
        pass  # of the controller, which is killed below


def processes(title: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if title in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            pass  # it has just ended
    return found


ray.init(address="local", num_cpus=2, include_dashboard=sys.argv[1] == "with", log_to_driver=False)
threading.Thread(target=fit, daemon=True).start()
assert wait_for(lambda: bool(processes("RayTrainWorker")) and states() == ["CREATED"], 120)
time.sleep(5)
for process in processes("TrainController"):
    process.kill()
removed = wait_for(lambda: states() == ["REMOVED"], 60)
with open(sys.argv[2], "a") as seen:  # Ray's nodes print on stdout
    print(sys.argv[1], "a dashboard, removed within a minute:", removed, file=seen)
ray.shutdown()
PYTHON
export RAY_TRAIN_V2_ENABLED=1
for dashboard in with without; do
    "$place/venv/bin/python" "$place/train.py" "$dashboard" "$place/seen" > "$place/log" 2>&1 || cat "$place/log"
done
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
with a dashboard, removed within a minute: True
without a dashboard, removed within a minute: False
EXPECTED
