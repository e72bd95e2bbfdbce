"""Means of the training figures between two rows of the curves."""

import time

import torch
from torch import Tensor

from bertkd_ray.training.context import World
from bertkd_ray.training.curves import (
    TRAIN_DATA_WAIT,
    TRAIN_GRAD_NORM,
    TRAIN_LOSS,
    TRAIN_LR,
    TRAIN_PADDED_TOKENS_PER_SECOND,
    TRAIN_POSITIONS_PER_SECOND,
    CurveRow,
)
from bertkd_ray.training.prefetch import CollatedBatch


class TrainMeter:
    """Sums and times between two rows of the training curves."""

    def __init__(self) -> None:
        self.norm: Tensor | float = 0.0
        self.rate = 0.0
        self._reset()

    def _reset(self) -> None:
        self._sums: Tensor | None = None
        self._count = self._tokens = 0.0
        self.waited = 0.0
        self._started = time.perf_counter()

    def add(self, loss_sum: Tensor, stats: Tensor, batch: CollatedBatch) -> None:
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
