"""Means of the training figures between two rows of the curves."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bertkd_ray.training import curves
from bertkd_ray.training.context import World
from bertkd_ray.training.prefetch import CollatedBatch


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

    def row(self, step: int, world: World, stat_keys: tuple[str, ...]) -> curves.CurveRow:
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
        return curves.CurveRow(step, time.time(), metrics)
