"""The training loop that teacher and student share: torch alone, one process or many.

An update averages the loss over all positions of the global batch: every micro-batch contributes its sum, divided by
the number of positions of all micro-batches of all workers. Dropout is keyed by (seed, step, stream), so the curve does
not depend on the number of workers. A checkpoint holds everything that the next step depends on.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bertkd_ray.core.devices import Precision, autocast
from bertkd_ray.core.errors import TrainingDivergedError
from bertkd_ray.core.keyed_random import keyed_seed
from bertkd_ray.core.timeline import span
from bertkd_ray.training.batch_plan import Lengths, MicroBatch, Plan, Position, RowGroups, Streams
from bertkd_ray.training.context import TrainContext, World
from bertkd_ray.training.curves import (
    TRAIN_DATA_WAIT,
    TRAIN_GRAD_NORM,
    TRAIN_LOSS,
    TRAIN_LR,
    TRAIN_PADDED_TOKENS_PER_SECOND,
    TRAIN_POSITIONS_PER_SECOND,
    CurveRow,
)
from bertkd_ray.training.dropout import seeded_dropout
from bertkd_ray.training.optimization import set_learning_rate
from bertkd_ray.training.preemption import LeavingError, Notice

StateDict = dict[str, Tensor]

_AHEAD = 2  # updates collated ahead of the one being computed


class Batch(Protocol):
    """A collated micro-batch."""

    @property
    def count(self) -> int:
        """Positions that the loss is summed over."""

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model sees, padding included."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""


class Task(Protocol):
    """What differs between teacher and student."""

    stat_keys: tuple[str, ...]
    """Keys of the means that become of the sums which `objective` gives beside the loss."""
    optimizer: torch.optim.Optimizer

    @property
    def objective(self) -> nn.Module:
        """forward(batch) -> (loss summed over positions, float32[len(stat_keys)] sums over positions)."""

    @property
    def model(self) -> nn.Module:
        """The part of `objective` whose weights are kept."""

    def clip(self, parameters: list[nn.Parameter]) -> Tensor:
        """Clips the gradients and returns their norm before that."""

    def learning_rate(self, step: int) -> float:
        """The rate of a step, counted from 1."""

    def collate(self, micro: MicroBatch) -> Batch:
        """The rows of a micro-batch as tensors."""

    def evaluate(self, world: World) -> dict[str, float]:
        """Validation metrics by key, equal on every worker."""

    def rank_of(self, metrics: dict[str, float]) -> float:
        """What the best checkpoint has most of."""


@dataclass(frozen=True)
class Settings:
    """How long to train, on how much at a time, and how often to look."""

    steps: int
    batch_tokens: int
    micro_batches: int
    seed: int
    eval_every: int
    checkpoint_every: int
    log_every: int
    patience: int | None = None
    average: int = 1


@dataclass
class Progress:
    """Where a training run stands; with the weights, all that a checkpoint holds."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    evaluations_since_best: int = 0
    positions: list[Position] = field(default_factory=list)
    history: list[CurveRow] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """The end of a training run: the chosen weights, how they were chosen, and the curves."""

    weights: StateDict
    progress: Progress
    stopped_early: bool


class Trainer:
    """Runs a task from a checkpoint, or from the start, to its end."""

    def __init__(
        self,
        task: Task,
        settings: Settings,
        make_streams: Callable[[list[Position] | None], Streams],
        starts: list[Position],
        context: TrainContext,
        precision: Precision,
    ) -> None:
        """make_streams: the data from given positions of all B streams (None: their start); starts: these positions."""
        self._task, self._settings, self._context, self._precision = task, settings, context, precision
        self._world = context.world
        self.progress = Progress(positions=starts)
        self._best: StateDict = {}
        self._recent: deque[StateDict] = deque(maxlen=settings.average)
        self._norms: list[tuple[int, float, Tensor]] = []
        self._parameters = [p for p in task.objective.parameters() if p.requires_grad]
        if context.restore is not None:
            self._load(context.restore)
        self._streams = make_streams(self.progress.positions if context.restore else None)
        self._ddp: nn.Module = task.objective
        if context.world.size > 1:
            device_ids = [context.world.device] if context.world.device.type == "cuda" else None
            # Buffers are constants, equal everywhere; gradients lie where they are exchanged, without a copy.
            self._ddp = DistributedDataParallel(
                task.objective, device_ids=device_ids, gradient_as_bucket_view=True, broadcast_buffers=False
            )

    def run(self) -> Trained:
        """Trains to the last step or the early stop.

        Raises TrainingDivergedError for a gradient that is not a number, and LeavingError, with a checkpoint written,
        when a worker was told to go.
        """
        window = _Window()
        if self.progress.history:
            self._emit([])
        prefetched = _prefetch(self._streams, self._collate)
        while self.progress.step < self._settings.steps and not self._exhausted_patience():
            notice = self._update(prefetched, window)
            step = self.progress.step
            last = step == self._settings.steps
            log, evaluate = (
                step % every == 0 or last for every in (self._settings.log_every, self._settings.eval_every)
            )
            checkpoint = (step % self._settings.checkpoint_every == 0 or bool(notice)) and not last
            if log or evaluate or checkpoint:
                self._check_norms()
            if log:
                self._emit([window.row(step, self._world, self._task.stat_keys)])
            if evaluate:
                self._evaluate()
            if checkpoint:
                self._gather_positions()
                self._context.on_checkpoint(self._save, step)
            if notice is Notice.LEAVE and not last:
                raise LeavingError(f"told to go; the checkpoint of step {step} is written")
        self._streams.close()
        return Trained(self._chosen(), self.progress, self._exhausted_patience())

    def _update(self, prefetched: Iterator[list[tuple[MicroBatch, Batch]]], window: _Window) -> Notice:
        """One step of the optimizer; gives the gravest notice that a worker had."""
        started = time.perf_counter()
        micros = next(prefetched)
        window.waited += time.perf_counter() - started
        world, task, step = self._world, self._task, self.progress.step + 1
        device = world.device
        # The notices travel with the count of positions, so that asking all workers costs nothing.
        own = self._context.notice()
        count = float(sum(batch.count for _, batch in micros))
        told = [float(own is notice) for notice in Notice]
        # One worker asks nobody, and so does not wait for its GPU.
        where = device if world.size > 1 else None
        total, *sums = world.sum(torch.tensor([count, *told], device=where)).tolist()
        rate = task.learning_rate(step)
        set_learning_rate(task.optimizer, rate)
        task.optimizer.zero_grad(set_to_none=True)
        for index, (micro, batch) in enumerate(micros):
            seed = keyed_seed(self._settings.seed, step, micro.stream)
            last = index + 1 == len(micros)
            with self._synchronised(last=last), autocast(device, self._precision), seeded_dropout(seed, device):
                loss_sum, stats = self._ddp(batch.to(device))
                # DDP averages over the workers, the loss over the positions of all of them.
                (loss_sum * (world.size / total)).backward()
            window.add(loss_sum.detach(), stats.detach(), batch)
        norm = task.clip(self._parameters)
        window.norm, window.rate = norm, rate
        self._norms.append((step, rate, norm))
        if device.type == "cpu":
            self._check_norms()
        task.optimizer.step()
        self.progress.step = step
        for micro, _ in micros:
            self.progress.positions[micro.stream] = micro.after
        return max(notice for notice, workers_told in zip(Notice, sums, strict=True) if workers_told)

    def _collate(self, micro: MicroBatch) -> Batch:
        batch = self._task.collate(micro)
        return _pinned(batch) if self._world.device.type == "cuda" else batch

    def _check_norms(self) -> None:
        """Raises TrainingDivergedError for the first step since the last look whose gradient was not a number.

        To look is to wait until a GPU has done all that it was given. So there it happens where that is waited for in
        any case, and before weights are evaluated or kept.
        """
        norms, self._norms = self._norms, []
        if not norms:
            return
        finite = torch.stack([norm for _, _, norm in norms]).isfinite().tolist()
        for (step, rate, _), is_finite in zip(norms, finite, strict=True):
            if not is_finite:
                raise TrainingDivergedError(
                    f"the gradient is not a number at step {step} (learning rate {rate:.3g}); the last checkpoint is "
                    "kept; lower the learning rate or raise its warm-up"
                )

    def _gather_positions(self) -> None:
        """Every worker knows its own streams' positions; a checkpoint needs those of all."""
        size = self._world.size
        for rank, positions in enumerate(self._world.gather(self.progress.positions)):
            self.progress.positions[rank::size] = positions[rank::size]

    def _synchronised(self, *, last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged once an update, with its last micro-batch."""
        return nullcontext() if last or not isinstance(self._ddp, DistributedDataParallel) else self._ddp.no_sync()

    def _evaluate(self) -> None:
        self._task.objective.eval()
        metrics = self._task.evaluate(self._world)
        self._task.objective.train()
        self._emit([CurveRow(self.progress.step, time.time(), metrics)])
        value = self._task.rank_of(metrics)
        self.progress.evaluations_since_best += 1
        if value > self.progress.best:
            self.progress.best, self.progress.best_step = value, self.progress.step
            self.progress.evaluations_since_best = 0
            if self._settings.average == 1:
                self._best = self._weights()
        if self._settings.average > 1:
            self._recent.append(self._weights())

    def _exhausted_patience(self) -> bool:
        patience = self._settings.patience
        return patience is not None and self.progress.evaluations_since_best >= patience

    def _emit(self, rows: list[CurveRow]) -> None:
        """Adds rows to the curves; with none, hands out again what a checkpoint held."""
        self.progress.history += rows
        if self._world.rank == 0:
            self._context.on_rows(rows or self.progress.history)

    def _weights(self) -> StateDict:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._task.model.state_dict().items()}

    def _chosen(self) -> StateDict:
        """The best checkpoint's weights, or the mean of the last ones."""
        if self._settings.average == 1:
            return self._best
        # Float64 sums: the mean must not depend on the order in which many checkpoints are added.
        total = {name: tensor.double() for name, tensor in self._recent[0].items()}
        for weights in list(self._recent)[1:]:
            for name, tensor in weights.items():
                total[name] += tensor
        return {name: (sum_ / len(self._recent)).to(self._recent[0][name].dtype) for name, sum_ in total.items()}

    def _save(self, directory: Path) -> None:
        """Writes the checkpoint of this moment into a directory."""
        torch.save(
            {
                "model": self._task.objective.state_dict(),
                "optimizer": self._task.optimizer.state_dict(),
                "best": self._best,
                "recent": list(self._recent),
            },
            directory / "training.pt",
        )
        progress = asdict(self.progress) | {"history": [row.to_json() for row in self.progress.history]}
        (directory / "progress.json").write_text(json.dumps(progress), encoding="utf-8")

    def _load(self, directory: Path) -> None:
        saved = torch.load(directory / "training.pt", map_location="cpu", weights_only=True)
        self._task.objective.load_state_dict(saved["model"])
        self._task.optimizer.load_state_dict(saved["optimizer"])
        self._best, self._recent = saved["best"], deque(saved["recent"], maxlen=self._settings.average)
        progress = json.loads((directory / "progress.json").read_text(encoding="utf-8"))
        progress["positions"] = [Position(*position) for position in progress["positions"]]
        progress["history"] = [CurveRow.from_json(row) for row in progress["history"]]
        self.progress = Progress(**progress)


class _Window:
    """What is averaged between two points of the training curves."""

    def __init__(self) -> None:
        self.norm: Tensor | float = 0.0
        self.rate = 0.0
        self._reset()

    def _reset(self) -> None:
        self._sums: Tensor | None = None
        self._count = self._tokens = 0.0
        self.waited = 0.0
        self._started = time.perf_counter()

    def add(self, loss_sum: Tensor, stats: Tensor, batch: Batch) -> None:
        sums = torch.cat([loss_sum.reshape(1).float(), stats.float()])
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += batch.count
        self._tokens += batch.padded_tokens

    def row(self, step: int, world: World, stat_keys: tuple[str, ...]) -> CurveRow:
        """One row of the curves: means over positions since the last row, over all workers."""
        assert self._sums is not None
        seconds = time.perf_counter() - self._started
        local = torch.cat([self._sums, self._sums.new_tensor([self._count, self._tokens, self.waited / seconds])])
        *sums, count, tokens, waited = world.sum(local).tolist()
        means = dict(zip((TRAIN_LOSS, *stat_keys), (value / count for value in sums), strict=True))
        self._reset()
        metrics = {
            **means,
            TRAIN_LR: self.rate,
            TRAIN_GRAD_NORM: float(self.norm),
            TRAIN_POSITIONS_PER_SECOND: count / seconds,
            TRAIN_PADDED_TOKENS_PER_SECOND: tokens / seconds,
            TRAIN_DATA_WAIT: waited / world.size,
        }
        return CurveRow(step, time.time(), metrics)


def _pinned(batch: Any) -> Any:
    """A dataclass of tensors again, in memory from which a GPU copies while this process goes on."""
    tensors = {name: value.pin_memory() for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return replace(batch, **tensors)


def _prefetch(streams: Streams, collate: Callable[[MicroBatch], Batch]) -> Iterator[list[tuple[MicroBatch, Batch]]]:
    """Collates the next updates in a thread while the present one is computed."""
    ready: queue.Queue[list[tuple[MicroBatch, Batch]] | BaseException] = queue.Queue(_AHEAD)
    ended = threading.Event()

    def produce() -> None:
        try:
            while not ended.is_set():
                item = [(micro, collate(micro)) for micro in streams.step()]
                while not ended.is_set():
                    try:
                        ready.put(item, timeout=0.2)
                        break
                    except queue.Full:
                        continue
        except BaseException as error:
            # Handed to the loop, which raises it where the batch is missed.
            ready.put(error)

    thread = threading.Thread(target=produce, name="collate", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()


def fit(
    task: Task,
    groups: RowGroups,
    lengths: Callable[[pa.Table], Lengths],
    settings: Settings,
    context: TrainContext,
    precision: Precision,
) -> Trained:
    """Trains a task on row groups, in the order of the batch plan, from the context's checkpoint or from the start."""
    plan = Plan(groups.rows, settings.micro_batches, settings.seed)

    def streams(positions: list[Position] | None) -> Streams:
        return Streams(
            plan,
            budget=settings.batch_tokens // settings.micro_batches,
            read=groups.read,
            lengths=lengths,
            rank=context.world.rank,
            workers=context.world.size,
            positions=positions,
        )

    starts = [plan.start(stream) for stream in range(plan.streams)]
    trainer = Trainer(task, settings, streams, starts, context, precision)
    with span("fit"):
        return trainer.run()
