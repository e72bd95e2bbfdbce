"""The loop on a small regression: hand-computed updates, workers, resuming, early stop, averaging."""

from __future__ import annotations

import itertools
import json
import math
import struct
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from bertkd_ray.core.errors import DamagedCheckpointError, TrainingDivergedError
from bertkd_ray.training import gradients
from bertkd_ray.training import gradients as gradients_module
from bertkd_ray.training import trainer as trainer_module
from bertkd_ray.training.batch_plan import BatchPlan, MicroBatch, RowLengths, StreamPosition, Streams
from bertkd_ray.training.context import World
from bertkd_ray.training.curves import CurveRow
from bertkd_ray.training.preemption import Notice, PreemptedError
from bertkd_ray.training.prefetch import CollatedBatch, prefetch
from bertkd_ray.training.trainer import Trainer, TrainSettings


@dataclass(frozen=True)
class Numbers(CollatedBatch):
    """A batch of numbers."""

    x_N: Tensor

    @property
    def count(self) -> int:
        return len(self.x_N)

    @property
    def padded_tokens(self) -> int:
        return len(self.x_N)


class Fit(nn.Module):
    """(weight - x)² summed, with dropout so that its key matters."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.dropout = dropout

    def forward(self, batch: Numbers) -> tuple[Tensor, Tensor]:
        x_N = nn.functional.dropout(batch.x_N, self.dropout, self.training)
        loss = ((self.weight - x_N) ** 2).sum()
        return loss, loss.detach().reshape(1)


@dataclass
class FitTask:
    """Implements `Task`."""

    dropout: float = 0.0
    rate: float = 0.1
    scores: list[float] = field(default_factory=list)
    stat_keys: tuple[str, ...] = ("train/squares",)
    max_norm: float = 1e9

    def __post_init__(self) -> None:
        self.objective = self.model = Fit(self.dropout)
        self.optimizer = torch.optim.SGD(self.objective.parameters(), lr=1.0)

    def start_update(self, step: int) -> None:
        pass

    def learning_rate(self, step: int) -> float:
        return self.rate

    def lengths(self, rows: pa.Table) -> RowLengths:
        return RowLengths(rows["length"].to_numpy(), rows["length"].to_numpy())

    def collate(self, micro: MicroBatch) -> Numbers:
        return Numbers(torch.tensor(micro.rows["x"].to_pylist(), dtype=torch.float32))

    def evaluate(self, world: World) -> dict[str, float]:
        value = self.scores.pop(0) if self.scores else float(self.model.weight.detach())
        return {"valid/score": value}

    def rank_of(self, figures: dict[str, float]) -> tuple[float]:
        return (figures["valid/score"],)


@dataclass
class Alone:
    """Implements `TrainContext` in a plain process."""

    world: World = field(default_factory=World)
    restore: Path | None = None
    directory: Path | None = None
    rows: list[CurveRow] = field(default_factory=list)
    notices: dict[int, Notice] = field(default_factory=dict)
    updates: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def notice(self) -> Notice:
        return self.notices.get(next(self.updates), Notice.NONE)

    def on_rows(self, rows: list[CurveRow]) -> None:
        self.rows += rows

    def on_checkpoint(self, save, step: int) -> None:
        if self.directory is not None and self.world.rank == 0:
            target = self.directory / f"{step}"
            target.mkdir(parents=True)
            save(target)


def table(groups: np.ndarray) -> pa.Table:
    x = np.concatenate([np.arange(8) / 8 + group for group in groups])
    return pa.table({"x": x, "length": (x * 8).astype(np.int64) % 3 + 1})


def trainer(task: FitTask, context: Alone, *, streams: int = 2, **changes) -> Trainer:
    plan = BatchPlan(np.full(6, 8, np.int64), streams, seed=5, window_pairs=16)
    values = {"steps": 6, "eval_every": 100, "checkpoint_every": 100, "log_every": 1, **changes}
    settings = TrainSettings(batch_tokens=6 * streams, micro_batches=streams, seed=5, **values)

    def open_streams(positions: list[StreamPosition]) -> Streams:
        return Streams(
            plan,
            positions,
            budget=6,
            read=table,
            lengths=task.lengths,
            rank=context.world.rank,
            workers=context.world.size,
        )

    return Trainer(task, settings, open_streams, context, "float32")


def test_an_update_averages_over_all_positions_of_all_micro_batches():
    task, context = FitTask(), Alone()
    plan = BatchPlan(np.full(6, 8, np.int64), 2, seed=5, window_pairs=16)
    streams = Streams(plan, budget=6, read=table, lengths=task.lengths)
    x = np.concatenate([micro.rows["x"].to_numpy() for micro in streams.step()])
    streams.close()
    trained = trainer(task, context, steps=1).run()
    # d/dw mean (w - x)² at w = 0 is -2 mean(x); the update subtracts 0.1 times it.
    assert float(task.model.weight.detach()) == pytest.approx(0.2 * x.mean(), rel=1e-6)
    assert trained.state.history[0].metrics["train/loss"] == pytest.approx((x**2).mean(), rel=1e-6)
    assert trained.state.history[0].metrics["train/grad_norm"] == pytest.approx(2 * x.mean(), rel=1e-6)
    assert trained.state.history[0].metrics["train/lr"] == 0.1


def test_a_gradient_above_the_norm_is_scaled_down_and_its_norm_before_that_is_recorded():
    task = FitTask(max_norm=0.5)
    trained = trainer(task, Alone(), steps=1).run()
    assert trained.state.history[0].metrics["train/grad_norm"] > 1.0
    assert float(task.model.weight.detach()) == pytest.approx(0.1 * 0.5, rel=1e-5)


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path):
    whole = trainer(FitTask(dropout=0.5), Alone(), steps=9).run()
    context = Alone(directory=tmp_path)
    trainer(FitTask(dropout=0.5), context, steps=9, checkpoint_every=4).run()
    again = Alone(restore=tmp_path / "4")
    task = FitTask(dropout=0.5)
    resumed = trainer(task, again, steps=9).run()
    assert float(task.model.weight.detach()) == float(whole.weights["weight"])
    curve = [row.metrics["train/loss"] for row in resumed.state.history if "train/loss" in row.metrics]
    assert curve == [row.metrics["train/loss"] for row in whole.state.history if "train/loss" in row.metrics]
    # The rows before the checkpoint are handed out again, for a driver that has lost them.
    assert [row.step for row in again.rows if "train/loss" in row.metrics] == list(range(1, 10))


def test_a_task_is_told_of_every_update_before_it_comes_and_again_after_a_restart(tmp_path):
    told: list[int] = []

    class Told(FitTask):
        def start_update(self, step: int) -> None:
            told.append(step)

        def learning_rate(self, step: int) -> float:
            assert told[-1] == step
            return super().learning_rate(step)

    trainer(Told(), Alone(directory=tmp_path), steps=9, checkpoint_every=4).run()
    assert told == list(range(1, 10))
    trainer(Told(), Alone(restore=tmp_path / "4"), steps=9).run()
    assert told[9:] == list(range(5, 10))


def test_a_worker_told_to_go_writes_the_checkpoint_of_its_last_update_and_goes(tmp_path):
    whole = trainer(FitTask(dropout=0.5), Alone(), steps=9).run()
    context = Alone(directory=tmp_path, notices={5: Notice.TERMINATE})
    with pytest.raises(PreemptedError, match="the checkpoint of step 5 is written"):
        trainer(FitTask(dropout=0.5), context, steps=9).run()
    assert [path.name for path in tmp_path.iterdir()] == ["5"]
    resumed = trainer(FitTask(dropout=0.5), Alone(restore=tmp_path / "5"), steps=9).run()
    assert resumed.weights["weight"] == whole.weights["weight"]


def test_a_worker_told_to_go_at_the_last_step_has_finished(tmp_path):
    whole = trainer(FitTask(), Alone(), steps=5).run()
    told = trainer(FitTask(), Alone(directory=tmp_path, notices={5: Notice.TERMINATE}), steps=5).run()
    assert told.weights == whole.weights
    assert not list(tmp_path.iterdir())


def test_a_node_that_ends_soon_gets_a_checkpoint_and_training_goes_on(tmp_path):
    trained = trainer(FitTask(), Alone(directory=tmp_path, notices={3: Notice.CHECKPOINT}), steps=9).run()
    assert [path.name for path in tmp_path.iterdir()] == ["3"]
    assert trained.state.step == 9


def test_checkpoints_hold_nothing_but_tensors_and_json(tmp_path):
    trainer(FitTask(), Alone(directory=tmp_path), steps=5, checkpoint_every=2).run()
    saved = torch.load(tmp_path / "2" / "training.pt", weights_only=True)
    assert set(saved) == {"model", "optimizer"}
    progress = json.loads((tmp_path / "2" / "progress.json").read_text())
    assert progress["step"] == 2
    assert len(progress["positions"]) == 2


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(tmp_path):
    context = Alone(directory=tmp_path)
    whole = trainer(FitTask(dropout=0.5), context, steps=9, checkpoint_every=4).run()
    progress = tmp_path / "4" / "progress.json"
    (tmp_path / "4" / "sha256").unlink()
    (tmp_path / "4" / "kept.json").unlink()
    saved = torch.load(tmp_path / "4" / "training.pt", weights_only=True)
    torch.save({**saved, "best": {}, "recent": []}, tmp_path / "4" / "training.pt")
    # Its keys, and rows without a level below them, are those of the first version.
    assert set(json.loads(progress.read_text())) == {
        "step",
        "best",
        "best_step",
        "evaluations_since_best",
        "positions",
        "history",
    }
    (row,) = [row for row in json.loads(progress.read_text())["history"] if row["step"] == 3]
    assert set(row) == {*whole.state.history[0].metrics, "step", "time"}
    history = [{"step": 3, "time": 1.5, "train/loss": 2.0}]
    known = json.loads(progress.read_text())
    progress.write_text(json.dumps({**known, "best": -math.inf, "history": history}))
    resumed = trainer(FitTask(dropout=0.5), Alone(restore=tmp_path / "4"), steps=9).run()
    assert resumed.state.history[0] == CurveRow(3, 1.5, {"train/loss": 2.0})
    assert resumed.weights["weight"] == whole.weights["weight"]


@pytest.mark.parametrize("damage", ["cut off", "flipped", "absent", "progress", "digit", "checksum"])
def test_a_damaged_checkpoint_is_an_error_of_its_own(tmp_path, damage):
    trainer(FitTask(), Alone(directory=tmp_path), steps=5, checkpoint_every=2).run()
    names = {"progress": "progress.json", "digit": "progress.json", "checksum": "sha256"}
    path = tmp_path / "2" / names.get(damage, "training.pt")
    data = path.read_bytes()
    if damage == "flipped":
        with zipfile.ZipFile(path) as archive:
            header = archive.getinfo("training/data/0").header_offset
        # The first byte after the local header of 30 bytes, whose last two numbers are the lengths of name and extra.
        at = header + 30 + sum(struct.unpack("<HH", data[header + 26 : header + 30]))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    elif damage == "absent":
        path.unlink()
    elif damage == "digit":
        path.write_bytes(data.replace(b'"step": 2', b'"step": 3', 1))
    else:
        path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedCheckpointError, match="the checkpoint is damaged: "):
        trainer(FitTask(), Alone(restore=tmp_path / "2"), steps=5)


def test_the_best_checkpoint_is_kept():
    task = FitTask(scores=[1.0, 3.0, 2.0])
    weights: list[float] = []
    context = Alone()
    run = trainer(task, context, steps=3, eval_every=1)
    task.evaluate = lambda world: (
        weights.append(float(task.model.weight.detach())),
        {"valid/score": task.scores.pop(0)},
    )[1]
    trained = run.run()
    assert trained.state.best_step == 2
    assert float(trained.weights["weight"]) == weights[1]


def test_patience_stops_early():
    task = FitTask(scores=[5.0, 4.0, 3.0, 9.0])
    trained = trainer(task, Alone(), steps=100, eval_every=1, patience=2).run()
    assert trained.state.step == 3
    assert trained.state.best_step == 1


def test_averaging_takes_the_mean_of_the_last_validated_weights():
    task, weights = FitTask(), []
    run = trainer(task, Alone(), steps=5, eval_every=1, average=3)
    task.evaluate = lambda world: (weights.append(float(task.model.weight.detach())), {"valid/score": 0.0})[1]
    trained = run.run()
    assert float(trained.weights["weight"]) == pytest.approx(np.mean(weights[-3:]), rel=1e-6)


def test_a_loss_that_is_no_number_stops_with_step_and_rate():
    with pytest.raises(TrainingDivergedError, match=r"not a number at step \d+ \(learning rate 1e\+30\)"):
        trainer(FitTask(rate=1e30), Alone(), steps=50).run()


def test_on_other_devices_gradients_are_looked_at_before_anything_is_kept(monkeypatch):
    task = FitTask(rate=1e30)
    training = trainer(task, Alone(), steps=50, log_every=50, eval_every=50, checkpoint_every=7)
    looked_at = []
    check = training._check_norms
    at_once = [True]

    def looks() -> None:
        # The loop of a CPU looks within the step; a GPU's does not.
        if not at_once[0]:
            looked_at.append(training.state.step)
            check()

    monkeypatch.setattr(training, "_check_norms", looks)
    update = training._update

    def updated(*arguments):
        at_once[0] = True
        notice = update(*arguments)
        at_once[0] = False
        return notice

    monkeypatch.setattr(training, "_update", updated)
    with pytest.raises(TrainingDivergedError, match=r"not a number at step \d+ \(learning rate 1e\+30\)") as raised:
        training.run()
    assert looked_at == [7]
    with pytest.raises(TrainingDivergedError) as at_once_raised:
        trainer(FitTask(rate=1e30), Alone(), steps=50, log_every=50, eval_every=50, checkpoint_every=7).run()
    assert str(raised.value) == str(at_once_raised.value)


def test_a_pinned_batch_has_the_same_numbers(monkeypatch):
    copies = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: copies.append(tensor.clone()) or copies[-1])
    batch = Numbers(torch.arange(3.0))
    copy = batch.pinned()
    assert type(copy) is Numbers
    assert copy.x_N is copies[0]
    assert torch.equal(copy.x_N, batch.x_N)


def test_an_error_in_collation_reaches_the_loop():
    task = FitTask()
    task.collate = lambda micro: (_ for _ in ()).throw(RuntimeError("cannot collate"))
    with pytest.raises(RuntimeError, match="cannot collate"):
        trainer(task, Alone()).run()


def test_no_thread_outlives_a_training_that_is_broken_off(monkeypatch):
    before = set(threading.enumerate())
    context = Alone()
    monkeypatch.setattr(context, "notice", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        trainer(FitTask(), context).run()
    assert set(threading.enumerate()) <= before


class _Undistributed(nn.Module):
    """Stands for `DistributedDataParallel`, whose own exchange is not looked at."""

    def __init__(self, module: nn.Module, **_: Any) -> None:
        super().__init__()
        self.module, self.no_sync = module, nullcontext

    def forward(self, batch: Numbers) -> tuple[Tensor, Tensor]:
        return self.module(batch)


def test_with_several_workers_an_update_reads_nothing_back_from_its_device(monkeypatch):
    """On the meta device, whose tensors have no values: whatever waits for one of them raises."""
    exchanged = []
    monkeypatch.setattr(trainer_module, "DistributedDataParallel", _Undistributed)
    monkeypatch.setattr(gradients, "autocast", lambda device, precision: nullcontext())
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *_, **__: torch.ones((), device="meta"))
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: exchanged.append((tensor.device.type, tensor.tolist())))
    task = FitTask()
    task.objective.to_empty(device="meta")
    training = trainer(task, Alone(world=World(0, 2, torch.device("meta"))))
    with closing(training._streams), closing(prefetch(training._streams, training._collate)) as prefetched:
        assert training._update(prefetched, trainer_module.TrainMeter()) is Notice.NONE
    ((device, (count, *notices)),) = exchanged
    assert (device, notices) == ("cpu", [1.0, 0.0, 0.0])
    assert count > 0


def _worker(rank: int, size: int, port: int, directory: str, compression: str = "none") -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    context = Alone(world=World(rank, size), directory=Path(directory))
    task = FitTask(dropout=0.3)
    changes = {"checkpoint_every": 10, "gradient_compression": compression}
    trained = trainer(task, context, streams=4, steps=20, **changes).run()
    if rank == 0:
        Path(directory, "curve.json").write_text(json.dumps([row.to_json() for row in trained.state.history]))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])  # three cannot share four micro-batches equally
def test_many_workers_have_the_curve_of_one(size, tmp_path, free_port):
    alone_directory = tmp_path / "alone"
    alone = Alone(directory=alone_directory)
    one = trainer(FitTask(dropout=0.3), alone, streams=4, steps=20, checkpoint_every=10).run()
    mp.start_processes(_worker, args=(size, free_port, str(tmp_path)), nprocs=size, start_method="spawn")
    many = [CurveRow.from_json(row) for row in json.loads((tmp_path / "curve.json").read_text())]
    curves = [
        [row.metrics["train/loss"] for row in rows if "train/loss" in row.metrics] for rows in (one.state.history, many)
    ]
    assert len(curves[0]) == 20
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    positions = [
        json.loads((place / "10" / "progress.json").read_text())["positions"] for place in (alone_directory, tmp_path)
    ]
    assert positions[0] == positions[1]
    # One worker goes on where many stopped.
    rest = trainer(FitTask(dropout=0.3), Alone(restore=tmp_path / "10"), streams=4, steps=20).run()
    curve = [row.metrics["train/loss"] for row in rest.state.history if "train/loss" in row.metrics]
    assert curve == pytest.approx(curves[0], rel=1e-5)


@pytest.mark.slow
def test_gradients_in_bf16_are_rounded_and_no_more(tmp_path, free_port):
    """Of one weight: the gradient of every update is that of bf16's eight bits."""
    one = trainer(FitTask(dropout=0.3), Alone(), streams=4, steps=20).run()
    mp.start_processes(_worker, args=(2, free_port, str(tmp_path), "bf16"), nprocs=2, start_method="spawn")
    many = [CurveRow.from_json(row) for row in json.loads((tmp_path / "curve.json").read_text())]
    curves = [
        [row.metrics["train/loss"] for row in rows if "train/loss" in row.metrics] for rows in (one.state.history, many)
    ]
    assert curves[1] == pytest.approx(curves[0], rel=2**-6)
    assert curves[1] != pytest.approx(curves[0], rel=1e-5)
    norms = [row.metrics["train/grad_norm"] for row in many if "train/grad_norm" in row.metrics]
    assert all(float(torch.tensor(norm).bfloat16()) == norm for norm in norms)


def test_micro_batches_of_one_forward_pass_make_the_same_update(monkeypatch):
    alone, together = (FitTask(), Alone()), (FitTask(), Alone())
    separate = trainer(*alone, streams=4).run()
    sizes = []
    monkeypatch.setattr(trainer_module, "PASS_TOKENS", {"cpu": 10**6})
    collate = together[0].collate
    monkeypatch.setattr(together[0], "collate", lambda micro: sizes.append(micro.rows.num_rows) or collate(micro))
    joined = trainer(*together, streams=4).run()
    assert float(joined.weights["weight"]) == pytest.approx(float(separate.weights["weight"]), rel=1e-6)
    assert joined.state.positions == separate.state.positions
    rows = [[row.metrics for row in found.state.history] for found in (joined, separate)]
    found, expected = ([metrics["train/loss"] for metrics in of if "train/loss" in metrics] for of in rows)
    assert found == pytest.approx(expected, rel=1e-6)
    assert max(sizes) > 6, "a micro-batch of 6 tokens has no more rows"


def test_dropout_of_a_forward_pass_is_keyed_by_all_its_streams(monkeypatch):
    seeds: list[tuple[int, ...]] = []
    key = gradients_module.keyed_seed
    monkeypatch.setattr(gradients_module, "keyed_seed", lambda *of: seeds.append(of) or key(*of))
    trainer(FitTask(), Alone(), steps=1).run()
    monkeypatch.setattr(trainer_module, "PASS_TOKENS", {"cpu": 10**6})
    trainer(FitTask(), Alone(), steps=1).run()
    assert seeds == [(5, 1, 0), (5, 1, 1), (5, 1, 0, 1)]
