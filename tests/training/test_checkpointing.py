"""When checkpoints are written, what of them is written again, and what a training waits for meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import DamagedCheckpointError, StorageError
from bertkd_ray.execution.checkpoints import download_checkpoint, newest_without_ray, whole_checkpoints
from bertkd_ray.execution.local import LocalTrainContext
from bertkd_ray.training import checkpointing
from bertkd_ray.training.checkpointing import interval_seconds
from bertkd_ray.training.context import World
from bertkd_ray.training.preemption import Notice, PreemptedError
from tests.training.test_trainer import Alone, FitTask, trainer


@dataclass
class Kept(Alone):
    """Keeps checkpoints in a store, as both runtimes do."""

    pending: PendingArtifact | None = None

    def on_checkpoint(self, save: Callable[[Path], None], step: int) -> None:
        assert self.pending is not None
        LocalTrainContext(self.pending, self.world, None, lambda rows: None).on_checkpoint(save, step)


@pytest.fixture
def pending(tmp_path) -> PendingArtifact:
    return PendingArtifact(Store(str(tmp_path / "store")), "student", "0123456789abcdef", {}, {})


def restored(pending: PendingArtifact, scratch: Path) -> Path:
    name = newest_without_ray(pending.store, pending.staging)
    assert name is not None
    download_checkpoint(pending.store, pending.staging, name, scratch)
    return scratch


def weights_of(run: Any) -> list[float]:
    """The weight after every validation of a training, which scores 0 each time unless it has scores."""
    weights: list[float] = []
    scores = run._task.scores

    def evaluate(world: World) -> dict[str, float]:
        weights.append(float(run._task.model.weight.detach()))
        return {"valid/score": scores.pop(0) if scores else 0.0}

    run._task.evaluate = evaluate
    return weights


def test_the_best_weights_are_written_when_they_change_and_not_with_every_checkpoint(pending, tmp_path, monkeypatch):
    written: list[str] = []
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda data, path: (written.append(path.name), save(data, path)))
    run = trainer(
        FitTask(scores=[5.0, 1.0, 1.0, 9.0, 1.0]), Kept(pending=pending), steps=6, eval_every=1, checkpoint_every=1
    )
    weights = weights_of(run)
    run.run()
    assert written == [
        "000000001.pt",
        "training.pt",
        "training.pt",
        "training.pt",
        "000000004.pt",
        "training.pt",
        "training.pt",
    ]
    assert sorted(name for name, _ in pending.store.files(pending.staging)) == [
        *(f"checkpoint-000000005/{name}" for name in ("kept.json", "progress.json", "sha256", "training.pt")),
        "kept/000000004.pt",
    ]
    # What is gone on from has them, and does not write them again.
    again = trainer(
        FitTask(scores=[0.0]),
        Kept(pending=pending, restore=restored(pending, tmp_path / "restore")),
        steps=7,
        eval_every=1,
        checkpoint_every=1,
    )
    assert float(again.run().weights["weight"]) == weights[3]
    assert written[-1] == "training.pt"
    assert written.count("000000004.pt") == 1


def test_of_averaged_weights_each_is_written_once_and_what_no_checkpoint_needs_goes(pending, tmp_path, monkeypatch):
    written: list[str] = []
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda data, path: (written.append(path.name), save(data, path)))
    settings: dict[str, Any] = {"eval_every": 1, "checkpoint_every": 1, "average": 3}
    whole = trainer(FitTask(), Alone(), steps=9, **settings)
    weights = weights_of(whole)
    expected = float(whole.run().weights["weight"])
    assert expected == pytest.approx(sum(weights[-3:]) / 3, rel=1e-6)
    trainer(FitTask(), Kept(pending=pending), steps=6, **settings).run()
    assert [name for name in written if name != "training.pt"] == [f"{step:09d}.pt" for step in range(1, 6)]
    kept = [name for name, _ in pending.store.files(pending.staging, "kept")]
    assert kept == [f"{step:09d}.pt" for step in (3, 4, 5)]
    place = restored(pending, tmp_path / "restore")
    resumed = trainer(FitTask(), Kept(pending=pending, restore=place), steps=9, **settings).run()
    assert float(resumed.weights["weight"]) == expected


@pytest.mark.parametrize(("average", "scores"), [(1, [1.0, 3.0, 2.0, 0.0, 0.0]), (2, [])])
def test_a_checkpoint_that_holds_the_kept_weights_itself_is_gone_on_from(tmp_path, average, scores):
    """As versions wrote it that had all in one file."""
    settings: dict[str, Any] = {"steps": 5, "eval_every": 1, "average": average}
    whole = trainer(FitTask(scores=list(scores)), Alone(), **settings).run()
    part = trainer(FitTask(scores=list(scores)), Alone(directory=tmp_path), **settings, checkpoint_every=3)
    weights = weights_of(part)
    part.run()
    (place,) = tmp_path.iterdir()
    saved = torch.load(place / "training.pt", weights_only=True)
    best = {"weight": torch.tensor(weights[1])} if average == 1 else {}
    recent = [] if average == 1 else [{"weight": torch.tensor(weight)} for weight in weights[1:3]]
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    torch.save({**saved, "best": best, "recent": recent}, earlier / "training.pt")
    (earlier / "progress.json").write_bytes((place / "progress.json").read_bytes())
    resumed = trainer(FitTask(scores=list(scores[3:])), Alone(restore=earlier), **settings).run()
    assert resumed.weights["weight"] == whole.weights["weight"]
    assert resumed.state.best_step == whole.state.best_step


@pytest.mark.parametrize("damage", ["flipped", "absent"])
def test_kept_weights_that_have_changed_are_damage(pending, tmp_path, damage):
    trainer(FitTask(), Kept(pending=pending), steps=3, eval_every=1, checkpoint_every=2).run()
    place = restored(pending, tmp_path / "restore")
    (path,) = (place / "kept").iterdir()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(DamagedCheckpointError, match=rf"the checkpoint is damaged: .*{path.name}"):
        trainer(FitTask(), Alone(restore=place), steps=3)


@dataclass
class Slow(Alone):
    """A storage that takes a checkpoint only once it is told to."""

    def __post_init__(self) -> None:
        self.may_go_on = threading.Event()

    def on_checkpoint(self, save: Callable[[Path], None], step: int) -> None:
        assert self.may_go_on.wait(60)
        super().on_checkpoint(save, step)


def test_updates_go_on_while_a_checkpoint_is_written_and_it_stays_that_of_its_step(tmp_path):
    prompt = Alone(directory=tmp_path / "prompt")
    trainer(FitTask(dropout=0.5), prompt, steps=9, checkpoint_every=4).run()
    slow = Slow(directory=tmp_path / "slow")
    run = trainer(FitTask(dropout=0.5), slow, steps=9, checkpoint_every=4)
    training = threading.Thread(target=run.run)
    training.start()
    try:
        # The checkpoint of step 8 waits for that of step 4.
        end = time.monotonic() + 60
        while run.state.step < 8:
            assert time.monotonic() < end, run.state.step
            time.sleep(0.01)
        assert not (tmp_path / "slow").exists()
    finally:
        slow.may_go_on.set()
        training.join()
    for step in ("4", "8"):
        saved = [torch.load(tmp_path / name / step / "training.pt", weights_only=True) for name in ("prompt", "slow")]
        assert saved[0] == saved[1]
        progress = [json.loads((tmp_path / name / step / "progress.json").read_text()) for name in ("prompt", "slow")]
        assert progress[0]["positions"] == progress[1]["positions"]
        assert [row["step"] for row in progress[1]["history"]] == [row["step"] for row in progress[0]["history"]]


def test_who_is_told_to_go_waits_until_the_checkpoint_is_written(tmp_path):
    context = Slow(directory=tmp_path, notices={5: Notice.TERMINATE})
    threading.Timer(0.5, context.may_go_on.set).start()
    with pytest.raises(PreemptedError):
        trainer(FitTask(), context, steps=9).run()
    assert (tmp_path / "5" / "training.pt").exists()


@pytest.mark.parametrize("steps", [5, 500])
def test_a_checkpoint_that_cannot_be_written_ends_the_training(steps):
    context = Alone()

    def fail(save: Callable[[Path], None], step: int) -> None:
        raise StorageError("the disk is full")

    context.on_checkpoint = fail  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="the disk is full"):
        trainer(FitTask(), context, steps=steps, checkpoint_every=2, log_every=steps).run()


def _killed_in_an_upload(storage: str) -> None:
    """Trains, and is killed when the checkpoint of step 6 has been uploaded but for its last file."""
    torch.set_num_threads(1)
    store = Store(storage)
    upload = store._new_file

    def killed(size: int, *parts: str, **settings: Any) -> Any:
        if parts[-2:] == ("checkpoint-000000006", "training.pt"):
            os.kill(os.getpid(), signal.SIGKILL)
        return upload(size, *parts, **settings)

    store._new_file = killed  # type: ignore[method-assign]
    pending = PendingArtifact(store, "student", "0123456789abcdef", {}, {})
    trainer(FitTask(dropout=0.5), Kept(pending=pending), steps=9, eval_every=1, checkpoint_every=3).run()


def test_a_kill_during_an_upload_leaves_the_checkpoint_before(pending, tmp_path):
    whole = trainer(FitTask(dropout=0.5), Alone(), steps=9, eval_every=1).run()
    process = multiprocessing.get_context("spawn").Process(target=_killed_in_an_upload, args=(str(tmp_path / "store"),))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    files = [name for name, _ in pending.store.files(pending.staging)]
    assert "checkpoint-000000006/progress.json" in files
    assert whole_checkpoints(pending.store, pending.staging) == ["checkpoint-000000003"]
    place = restored(pending, tmp_path / "restore")
    resumed = trainer(
        FitTask(dropout=0.5), Kept(pending=pending, restore=place), steps=9, eval_every=1, checkpoint_every=3
    )
    assert resumed.state.step == 3
    assert resumed.run().weights == whole.weights


def test_checkpoints_cost_two_percent_of_the_time():
    # A GPU waits for the copy alone; cores that train are taken by the thread.
    assert interval_seconds(0.5, 20.0, on_gpu=True) == pytest.approx((0.5 + 2.0) / 0.02)
    assert interval_seconds(0.5, 20.0, on_gpu=False) == pytest.approx(20.5 / 0.02)
    assert interval_seconds(0.001, 0.01, on_gpu=False) == 30.0


def test_without_a_number_of_steps_the_clock_decides(tmp_path, monkeypatch):
    """By a clock on which an update takes 10 s and a checkpoint's copy 2 s."""
    clock = [0.0]
    monkeypatch.setattr(checkpointing.time, "perf_counter", lambda: clock[0])
    run = trainer(FitTask(), Alone(directory=tmp_path), steps=40, checkpoint_every=None)
    update, copy, done = run._update, run._copy, run._checkpoints.is_due

    def updated(*arguments: Any) -> Notice:
        notice = update(*arguments)
        clock[0] += 10
        return notice

    def copied() -> Any:
        clock[0] += 2
        return copy()

    def is_due(step: int) -> bool:
        if run._checkpoints._writing is not None:
            run._checkpoints._writing.result()  # the thread is done within an update
        return done(step)

    monkeypatch.setattr(run, "_update", updated)
    monkeypatch.setattr(run, "_copy", copied)
    monkeypatch.setattr(run._checkpoints, "is_due", is_due)
    run.run()
    # Before update 4 it is 30 s. It is copied from 40 s to 42 s, so that the next is due at 140 s: before update 15.
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [4, 15, 26, 37]


def _worker(rank: int, size: int, port: int, directory: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    checkpointing.LEAST_SECONDS = 0.0
    checkpointing.LARGEST_SHARE = 1e9
    context = Alone(world=World(rank, size), directory=Path(directory))
    trainer(FitTask(dropout=0.3), context, streams=4, steps=20, checkpoint_every=None).run()
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_workers_write_the_checkpoint_that_the_clock_of_the_first_asks_for(tmp_path, free_port):
    one = trainer(FitTask(dropout=0.3), Alone(), streams=4, steps=20).run()
    mp.start_processes(_worker, args=(2, free_port, str(tmp_path)), nprocs=2, start_method="spawn")
    steps = sorted(int(path.name) for path in tmp_path.iterdir())
    assert len(steps) > 1
    place = tmp_path / str(steps[-1])
    assert json.loads((place / "progress.json").read_text())["step"] == steps[-1]
    rest = trainer(FitTask(dropout=0.3), Alone(restore=place), streams=4, steps=20).run()
    curves = [
        [asdict(row)["metrics"]["train/loss"] for row in run.state.history if row.split == "train"]
        for run in (one, rest)
    ]
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
