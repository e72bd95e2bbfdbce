"""The training loop that teacher and student share: torch alone, one process or many.

An update averages the loss over all positions of the global batch: every micro-batch contributes its sum, divided by
the number of positions of all micro-batches of all workers. Dropout is keyed by (seed, step, stream), so the curve does
not depend on the number of workers; on a GPU several streams may be one forward pass, under the key of them all. A
checkpoint holds everything that the next step depends on.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.config import Config
from bertkd_ray.config.sections import StudentConfig, TeacherConfig
from bertkd_ray.core.devices import Precision
from bertkd_ray.core.errors import TrainingDivergedError
from bertkd_ray.core.timeline import span
from bertkd_ray.training import curves
from bertkd_ray.training.batch_plan import (
    PASS_TOKENS,
    BatchPlan,
    MicroBatch,
    RowLengths,
    StreamPosition,
    Streams,
    forward_passes,
    start_positions,
)
from bertkd_ray.training.checkpoint import Checkpoint, StateDict, TrainState, read_checkpoint
from bertkd_ray.training.checkpointing import Checkpointing
from bertkd_ray.training.context import TrainContext, World
from bertkd_ray.training.curves import CurveRow
from bertkd_ray.training.gradients import GradientAccumulation
from bertkd_ray.training.optimization import set_learning_rate
from bertkd_ray.training.preemption import Notice, PreemptedError
from bertkd_ray.training.prefetch import CollatedBatch, CollatedUpdate, prefetch

_OF_SECTION = {"steps", "batch_tokens", "micro_batches", "eval_every", "patience", "average"}


@dataclass(frozen=True)
class TrainSettings:
    """What the training loop reads of a configuration."""

    steps: int
    batch_tokens: int
    micro_batches: int
    seed: int
    eval_every: int
    checkpoint_every: int | None
    log_every: int
    patience: int | None = None
    average: int = 1
    gradient_compression: Literal["none", "bf16"] = "none"

    @classmethod
    def from_config(cls, config: Config, section: TeacherConfig | StudentConfig, seed: int) -> Self:
        """The settings of a configuration for the model that a section of it describes."""
        of_section = section.model_dump(include=_OF_SECTION)
        names = ("checkpoint_every", "log_every", "gradient_compression")
        return cls(seed=seed, **{name: getattr(config, name) for name in names}, **of_section)


class Task(Protocol):
    """What differs between teacher and student."""

    stat_keys: tuple[str, ...]
    """Keys of the means that become of the sums which `objective` gives beside the loss."""
    optimizer: torch.optim.Optimizer
    max_norm: float
    """L2 norm of all gradients together above which they are scaled down."""

    @property
    def objective(self) -> nn.Module:
        """forward(batch) -> (loss summed over positions, float32[len(stat_keys)] sums over positions)."""

    @property
    def model(self) -> nn.Module:
        """The part of `objective` whose weights are kept."""

    def start_update(self, step: int) -> None:
        """Called before the update of a step, counted from 1, for what changes in `objective`."""

    def learning_rate(self, step: int) -> float:
        """The rate of a step, counted from 1."""

    def lengths(self, rows: pa.Table) -> RowLengths:
        """How rows are counted in batches."""

    def collate(self, micro: MicroBatch) -> CollatedBatch:
        """The rows of a micro-batch as tensors."""

    def evaluate(self, world: World) -> dict[str, float]:
        """Validation metrics by key, equal on every worker."""

    def rank_of(self, metrics: dict[str, float]) -> tuple[float, ...]:
        """What the best checkpoint has most of; what follows decides among equal ones."""


@dataclass(frozen=True)
class TrainResult:
    """The end of a training run: the chosen weights, how they were chosen, and the curves."""

    weights: StateDict
    state: TrainState
    precision: Precision


@dataclass
class TrainMeter:
    """Sums and times since the last row of the training curves; norm and rate are those of the last update."""

    norm: Tensor | float = 0.0
    rate: float = 0.0
    waited: float = 0.0
    count: int = 0
    tokens: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(()))
    started: float = field(default_factory=time.perf_counter)

    def add(self, loss_sum: Tensor, stats: Tensor, batch: CollatedBatch) -> None:
        self.sums = self.sums + torch.cat([loss_sum.reshape(1).float(), stats.float()])
        self.count += batch.count
        self.tokens += batch.padded_tokens

    def row(self, step: int, world: World, stat_keys: tuple[str, ...]) -> CurveRow:
        """One row of the curves: means over positions since the last row, over all workers."""
        seconds = time.perf_counter() - self.started
        local = torch.cat([self.sums, self.sums.new_tensor([self.count, self.tokens, self.waited / seconds])])
        *sums, count, tokens, waited = world.sum(local).tolist()
        metrics = {
            **dict(zip((curves.TRAIN_LOSS, *stat_keys), (value / count for value in sums), strict=True)),
            curves.TRAIN_LR: self.rate,
            curves.TRAIN_GRAD_NORM: float(self.norm),
            curves.TRAIN_POSITIONS_PER_SECOND: count / seconds,
            curves.TRAIN_PADDED_TOKENS_PER_SECOND: tokens / seconds,
            curves.TRAIN_DATA_WAIT: waited / world.size,
        }
        return CurveRow(step, time.time(), metrics)


class Trainer:
    """Runs a task from a checkpoint, or from the start, to its end."""

    def __init__(
        self,
        task: Task,
        settings: TrainSettings,
        open_streams: Callable[[list[StreamPosition]], Streams],
        context: TrainContext,
        precision: Precision,
    ) -> None:
        """open_streams: the data from given positions of all B streams."""
        self._task, self._settings, self._context, self._precision = task, settings, context, precision
        self._world = context.world
        self.state = TrainState(positions=start_positions(settings.micro_batches))
        self._kept: dict[int, StateDict] = {}  # by step, those that the result is made of
        self._norms: list[tuple[int, float, Tensor]] = []
        self._parameters = [p for p in task.objective.parameters() if p.requires_grad]
        written = {} if context.restore is None else self._load(context.restore)
        self._checkpoints = Checkpointing(context, settings.checkpoint_every, written)
        self._streams = open_streams(self.state.positions)
        self._ddp: nn.Module = task.objective
        if context.world.size > 1:
            device_ids = [context.world.device] if context.world.device.type == "cuda" else None
            # Buffers are constants, equal everywhere; gradients lie where they are exchanged, without a copy.
            self._ddp = DistributedDataParallel(
                task.objective, device_ids=device_ids, gradient_as_bucket_view=True, broadcast_buffers=False
            )
            if settings.gradient_compression == "bf16":
                self._ddp.register_comm_hook(None, _in_bf16)
        self._gradients = GradientAccumulation(self._ddp, self._collate, context.world.device, precision, settings.seed)

    def run(self) -> TrainResult:
        """Trains to the last step or the early stop.

        Raises TrainingDivergedError for a gradient that is not a number, and PreemptedError, with a checkpoint
        written, when the process of a worker is to end.
        """
        if self.state.history:
            self._emit([])
        streams, checkpoints = closing(self._streams), closing(self._checkpoints)
        with streams, checkpoints, closing(prefetch(self._streams, self._collate, self._passes)) as prefetched:
            self._train(prefetched)
        return TrainResult(self._chosen(), self.state, self._precision)

    def _train(self, prefetched: Iterator[CollatedUpdate]) -> None:
        settings, meter, patience = self._settings, TrainMeter(), self._settings.patience or float("inf")
        while self.state.step < settings.steps and self.state.evaluations_since_best < patience:
            notice = self._update(prefetched, meter)
            step = self.state.step
            last = step == settings.steps
            log, evaluate = (step % every == 0 or last for every in (settings.log_every, settings.eval_every))
            checkpoint = bool(notice) and not last
            if log or evaluate or checkpoint:
                self._check_norms()
            if log:
                self._emit([meter.row(step, self._world, self._task.stat_keys)])
                meter = TrainMeter()
            if evaluate:
                self._evaluate()
            terminates = notice is Notice.TERMINATE and not last
            if checkpoint:
                # Every worker knows its own streams' positions; a checkpoint needs those of all.
                for rank, positions in enumerate(self._world.gather(self.state.positions)):
                    self.state.positions[rank :: self._world.size] = positions[rank :: self._world.size]
                self._checkpoints.write(self._copy, step, wait=terminates)
            if terminates:
                # With the first worker that goes all others may be ended, that which writes among them.
                self._world.gather(None)
                raise PreemptedError(f"preempted; the checkpoint of step {step} is written")

    def _update(self, prefetched: Iterator[CollatedUpdate], meter: TrainMeter) -> Notice:
        """One step of the optimizer; gives the gravest notice that a worker had."""
        started = time.perf_counter()
        micros = next(prefetched)
        meter.waited += time.perf_counter() - started
        world, task, step = self._world, self._task, self.state.step + 1
        device = world.device
        # The notices travel with the count of positions, so that asking all workers costs nothing.
        own = self._context.notice()
        # Where checkpoints go by their cost, rank 0 alone knows.
        if self._checkpoints.is_due(step):
            own = max(own, Notice.CHECKPOINT)
        count = float(sum(batch.count for _, batch in micros))
        total, *sums = world.sum_numbers([count, *(float(own is notice) for notice in Notice)])
        task.start_update(step)
        rate = task.learning_rate(step)
        set_learning_rate(task.optimizer, rate)
        # DDP averages over the workers, the loss over the positions of all of them.
        for part in self._gradients.add(micros, world.size / total, step, task.optimizer.zero_grad):
            meter.add(*part)
        # It stays on its device, and may be no number, for `_check_norms` to find.
        norm = nn.utils.clip_grad_norm_(self._parameters, task.max_norm, foreach=True)
        meter.norm, meter.rate = norm, rate
        self._norms.append((step, rate, norm))
        if device.type == "cpu":
            self._check_norms()
        task.optimizer.step()
        self.state.step = step
        for micro in (micro for first, _ in micros for micro in (first, *first.joined)):
            self.state.positions[micro.stream] = micro.after
        return max(notice for notice, workers in zip(Notice, sums, strict=True) if workers)

    def _passes(self, micros: list[MicroBatch]) -> list[MicroBatch]:
        budget = PASS_TOKENS.get(self._world.device.type)
        return forward_passes(micros, self._task.lengths, budget) if budget else micros

    def _collate(self, micro: MicroBatch) -> CollatedBatch:
        batch = self._task.collate(micro)
        return batch.pinned() if self._world.device.type == "cuda" else batch

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

    def _evaluate(self) -> None:
        self._task.objective.eval()
        metrics = self._task.evaluate(self._world)
        self._task.objective.train()
        self._emit([CurveRow(self.state.step, time.time(), metrics)])
        value = self._task.rank_of(metrics)
        self.state.evaluations_since_best += 1
        if value > self.state.best:
            self.state.best, self.state.best_step = value, self.state.step
            self.state.evaluations_since_best = 0
            if self._settings.average == 1:
                self._kept = {self.state.step: self._weights()}
        if self._settings.average > 1:
            recent = [*self._kept.items(), (self.state.step, self._weights())]
            self._kept = dict(recent[-self._settings.average :])

    def _emit(self, rows: list[CurveRow]) -> None:
        """Adds rows to the curves; with none, hands out again what a checkpoint held."""
        self.state.history += rows
        if self._world.rank == 0:
            self._context.on_rows(rows or self.state.history)

    def _weights(self) -> StateDict:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._task.model.state_dict().items()}

    def _chosen(self) -> StateDict:
        """The best checkpoint's weights, or the mean of the last ones."""
        recent = list(self._kept.values())
        if self._settings.average == 1:
            return recent[0] if recent else {}
        # Float64 sums: the mean must not depend on the order in which many checkpoints are added.
        sums = {name: reduce(torch.add, (weights[name].double() for weights in recent)) for name in recent[0]}
        return {name: (total / len(recent)).to(recent[0][name].dtype) for name, total in sums.items()}

    def _copy(self) -> Checkpoint:
        """The checkpoint of this moment."""
        objective, optimizer = self._task.objective.state_dict(), self._task.optimizer.state_dict()
        return Checkpoint.of(objective, optimizer, self._kept, self.state)

    def _load(self, directory: Path) -> dict[str, str]:
        """Goes on from a checkpoint; gives the checksums of the weights that it keeps."""
        checkpoint, checksums = read_checkpoint(directory, self._world)
        self._task.objective.load_state_dict(checkpoint.model)
        self._task.optimizer.load_state_dict(checkpoint.optimizer)
        self._kept, self.state = dict(checkpoint.kept), checkpoint.state
        return checksums


def _in_bf16(group: Any, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """torch's exchange of gradients in bf16, which DDP takes under torch's own name on GPUs alone."""
    return bf16_compress_hook(group, bucket)


def fit(
    task: Task,
    groups: RowGroups,
    settings: TrainSettings,
    context: TrainContext,
    precision: Precision,
    resample: Callable[[pa.Table, int], pa.Table] | None = None,
) -> TrainResult:
    """Trains a task on row groups, in the order of the batch plan, from the context's checkpoint or from the start.

    resample: as of `Streams`.
    """
    open_streams = partial(
        Streams,
        BatchPlan(groups.rows, settings.micro_batches, settings.seed),
        budget=settings.batch_tokens // settings.micro_batches,
        read=groups.read,
        lengths=task.lengths,
        resample=resample,
        rank=context.world.rank,
        workers=context.world.size,
    )
    with span("fit"):
        return Trainer(task, settings, open_streams, context, precision).run()
