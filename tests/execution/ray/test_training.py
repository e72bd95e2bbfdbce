"""Training functions on a real Ray session: preempted, and diverging."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import config_of
from bertkd_ray.core.errors import DeviceMemoryError, ReportedError, TrainingDivergedError, UserError
from bertkd_ray.execution.local import LocalRuntime
from bertkd_ray.execution.ray import training
from bertkd_ray.execution.ray.progress import ready_progress_actor
from bertkd_ray.execution.ray.training import train
from bertkd_ray.training.context import TrainContext
from bertkd_ray.training.curves import CurveRow
from bertkd_ray.training.preemption import Notice, PreemptedError
from tests.chaos.machine import ray_processes

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CONFIG = config_of({"name": "runtime", "corpus": {"source": "demo"}}, "test")


def _count(arguments: dict[str, str], context: TrainContext) -> None:
    """Trains nothing: counts to 40, and writes down where it started and what it was told."""
    start = 0 if context.restore is None else json.loads((context.restore / "training.pt").read_text())
    log = Path(arguments["log"])
    with log.open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), "start": start}) + "\n")
    for step in range(start + 1, 41):
        time.sleep(0.2)
        notice = context.notice()
        if notice:
            context.on_checkpoint(lambda place, at=step: (place / "training.pt").write_text(str(at)) and None, step)
        if notice is Notice.TERMINATE:
            with log.open("a") as file:
                file.write(json.dumps({"left": step}) + "\n")
            raise PreemptedError(f"left at {step}")


def _rows(log: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_a_worker_told_to_go_leaves_a_checkpoint_that_the_next_goes_on_from(tmp_path, ray_session, capsys):
    log = tmp_path / "log"

    def terminate_once(_: list[CurveRow]) -> None:
        if len(found := _rows(log)) == 1:
            os.kill(found[0]["pid"], signal.SIGTERM)

    pending = PendingArtifact(Store(str(tmp_path)), "teacher", "0" * 16, {}, {})
    train(pending, CONFIG, {"CPU": 1}, _count, {"log": str(log)}, terminate_once, ready_progress_actor())
    started, left, again = _rows(log)
    assert started["start"] == 0
    assert left["left"] > 0
    assert again["start"] == left["left"]
    assert again["pid"] != started["pid"]
    err = capsys.readouterr().err
    assert f"training goes on from the newest checkpoint, with 1 worker; worker 0: left at {left['left']}\n" in err


def _climb(arguments: dict[str, str], context: TrainContext) -> None:
    """Adds two steps to the newest checkpoint, writes down where it started and keeps a checkpoint."""
    start = 0 if context.restore is None else int((context.restore / "training.pt").read_text())
    with Path(arguments["log"]).open("a") as file:
        file.write(json.dumps({"start": start}) + "\n")
    context.on_checkpoint(lambda place: (place / "training.pt").write_text(str(start + 2)) and None, start + 2)


def test_a_training_goes_on_under_ray_and_without_it_from_the_newest_checkpoint(tmp_path, ray_session):
    log = tmp_path / "log"
    pending = PendingArtifact(Store(str(tmp_path)), "teacher", "0" * 16, {}, {})
    job = {"log": str(log)}

    def with_ray() -> None:
        train(pending, CONFIG, {"CPU": 1}, _climb, job, lambda rows: None, ready_progress_actor())

    def without_ray() -> None:
        LocalRuntime(CONFIG).train(pending, _climb, job, lambda rows: None)

    for run in (without_ray, with_ray, with_ray, without_ray, with_ray):
        run()
    assert [row["start"] for row in _rows(log)] == [0, 2, 4, 6, 8]


def _climb_as_earlier(arguments: dict[str, str], context: TrainContext) -> None:
    """Leaves a checkpoint to Ray Train, as earlier versions did."""
    from ray.train import Checkpoint, report

    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "training.pt").write_text("7")
        report({"step": 7}, checkpoint=Checkpoint.from_directory(directory))


def test_a_checkpoint_that_ray_train_kept_is_gone_on_from_and_then_replaced(tmp_path, ray_session):
    log = tmp_path / "log"
    pending = PendingArtifact(Store(str(tmp_path)), "teacher", "0" * 16, {}, {})
    for worker in (_climb_as_earlier, _climb, _climb):
        train(pending, CONFIG, {"CPU": 1}, worker, {"log": str(log)}, lambda rows: None, ready_progress_actor())
        names = [path.name for path in (tmp_path / pending.staging).iterdir()]
        is_of_ray = worker is _climb_as_earlier
        assert ("checkpoint_manager_snapshot.json" in names) is is_of_ray
        assert any(name.startswith("checkpoint_20") for name in names) is is_of_ray
    assert [row["start"] for row in _rows(log)] == [7, 9]


def _diverge(arguments: dict[str, str], context: TrainContext) -> None:
    with Path(arguments["log"]).open("a") as file:
        file.write("{}\n")
    raise TrainingDivergedError("not a number at step 7")


def test_training_that_diverges_is_not_tried_again(tmp_path, ray_session):
    pending = PendingArtifact(Store(str(tmp_path)), "teacher", "1" * 16, {}, {})
    with pytest.raises(TrainingDivergedError, match=r"^not a number at step 7$"):
        train(
            pending,
            CONFIG,
            {"CPU": 1},
            _diverge,
            {"log": str(tmp_path / "log")},
            lambda rows: None,
            ready_progress_actor(),
        )
    assert len(_rows(tmp_path / "log")) == 1


def _lack_memory(arguments: dict[str, str], context: TrainContext) -> None:
    with Path(arguments["log"]).open("a") as file:
        file.write("{}\n")
    if context.world.rank == context.world.size - 1:
        raise DeviceMemoryError("teacher.micro_batches: the GPU's memory is too small")
    time.sleep(600)  # as one that waits for the other's gradients


@pytest.mark.parametrize("workers", [1, 2])
def test_training_without_memory_is_not_tried_again(workers, tmp_path, ray_session):
    two = {"micro_batches": 2}
    tree = {"name": "runtime", "corpus": {"source": "demo"}, "workers": workers, "teacher": two, "student": two}
    pending, log = PendingArtifact(Store(str(tmp_path)), "teacher", f"4{workers}" * 8, {}, {}), tmp_path / "log"
    with pytest.raises(DeviceMemoryError, match=r"^teacher\.micro_batches: the GPU's memory is too small$"):
        train(
            pending,
            config_of(tree, "test"),
            {"CPU": 1},
            _lack_memory,
            {"log": str(log)},
            lambda rows: None,
            ready_progress_actor(),
        )
    assert len(_rows(log)) == workers


def _report_rank(arguments: dict[str, str], context: TrainContext) -> None:
    import torch

    total = context.world.sum(torch.ones(1))
    context.on_rows([CurveRow(1, 0.0, {"size": float(total)})])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_add_up_and_their_rows_arrive_with_each_training(workers, tmp_path, ray_session):
    two = {"micro_batches": 2}
    tree = {"name": "runtime", "corpus": {"source": "demo"}, "workers": workers, "teacher": two, "student": two}
    config = config_of(tree, "test")
    progress_actor = ready_progress_actor()
    for attempt in "23":
        rows: list[CurveRow] = []
        pending = PendingArtifact(Store(str(tmp_path)), "teacher", attempt * 16, {}, {})
        train(pending, config, {"CPU": 1}, _report_rank, {}, rows.extend, progress_actor)
        assert [row.metrics["size"] for row in rows] == [workers] * workers
        assert ready_progress_actor(progress_actor) is progress_actor
    ray.kill(progress_actor)
    with pytest.raises(ray.exceptions.RayActorError):
        _ask_for_ever(progress_actor)  # it dies in a moment
    assert ready_progress_actor(progress_actor) is not progress_actor


def _ask_for_ever(progress_actor: Any) -> None:
    while True:
        ray.get(progress_actor.error.remote())


def _report_and_wait(arguments: dict[str, str], context: TrainContext) -> None:
    context.on_rows([CurveRow(1, 0.0, {})])
    time.sleep(600)


@pytest.mark.parametrize("also", ["", "_ProgressActor"])
def test_a_lost_controller_is_one_line(also, tmp_path, ray_session):
    def kill(rows: list[CurveRow]) -> None:
        if not rows:
            return
        for process, name in ray_processes():
            if name in ("TrainController", also):
                process.kill()

    pending = PendingArtifact(Store(str(tmp_path)), "teacher", "4" * 16, {}, {})
    with pytest.raises(ReportedError, match=r"^Ray lost what directs the training \(.+\); once .* newest checkpoint$"):
        train(pending, CONFIG, {"CPU": 1}, _report_and_wait, {}, kill, ready_progress_actor())


SNAPSHOTS = {
    "elsewhere": '{"checkpoint_results": [{"checkpoint_dir_name": "../../../elsewhere"}]}',
    "escaped": '{"latest_checkpoint_result": {"checkpoint_dir_name": "\\u002e\\u002e"}}',
    "absolute": '{"checkpoint_results": [{"checkpoint_dir_name":"/elsewhere"}]}',
}


@pytest.mark.parametrize("snapshot", SNAPSHOTS.values(), ids=SNAPSHOTS)
def test_a_snapshot_that_leads_out_of_the_training_is_refused(tmp_path, snapshot):
    pending = PendingArtifact(Store(str(tmp_path)), "student", "0" * 16, {}, {})
    pending.store.write(snapshot.encode(), pending.staging, "checkpoint_manager_snapshot.json")
    message = r"checkpoint_manager_snapshot\.json is a link, or names checkpoints elsewhere; remove it to begin"
    with pytest.raises(UserError, match=message):
        training._require_own_files(pending)


def test_ray_train_writes_through_no_link(tmp_path):
    pending = PendingArtifact(Store(str(tmp_path)), "student", "0" * 16, {}, {})
    own = '{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_2026"}], "latest_checkpoint_result": null}'
    pending.store.write(own.encode(), pending.staging, "checkpoint_manager_snapshot.json")
    training._require_own_files(pending)
    (tmp_path / pending.staging / ".validate_storage_marker").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=r"\.validate_storage_marker is a link, or names checkpoints elsewhere"):
        training._require_own_files(pending)
