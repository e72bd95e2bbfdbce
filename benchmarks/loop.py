"""What measurements put in place of parts of the training loop: the context, the validation, and a bare update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bertkd_ray.core.devices import Precision, autocast
from bertkd_ray.training.context import World
from bertkd_ray.training.curves import TRAIN_DATA_WAIT, CurveRow
from bertkd_ray.training.dropout import seeded_dropout
from bertkd_ray.training.preemption import Notice
from bertkd_ray.training.trainer import Task


@dataclass
class Alone:
    """The context of a training in this process; keeps the training curves and nothing else."""

    world: World = field(default_factory=World)
    rows: list[CurveRow] = field(default_factory=list)
    restore: Path | None = None

    def notice(self) -> Notice:
        """No request to save or to stop."""
        return Notice.NONE

    def on_rows(self, rows: list[CurveRow]) -> None:
        """Keeps the points of the training curves."""
        self.rows += [row for row in rows if TRAIN_DATA_WAIT in row.metrics]

    def on_checkpoint(self, save: Callable[[Path], None], step: int) -> None:
        """Saves nothing."""


class Unjudged:
    """A task without validation; subclasses say what becomes of a micro-batch."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self.stat_keys, self.optimizer = task.stat_keys, task.optimizer
        self.objective, self.model = task.objective, task.model
        self.max_norm, self.learning_rate, self.lengths = task.max_norm, task.learning_rate, task.lengths
        self.start_update = task.start_update

    def evaluate(self, world: World) -> dict[str, float]:
        """No figures: nothing is validated."""
        return {}

    def rank_of(self, figures: dict[str, float]) -> tuple[float]:
        """The same rank for every checkpoint."""
        return (0.0,)


class Updates:
    """An update as `training.trainer` makes it with one worker and one micro-batch, without the curves."""

    def __init__(
        self, task: Task, precision: Precision, device: torch.device, *, backward_outside: bool = False
    ) -> None:
        """backward_outside: the backward pass is not under autocast, as that of the training loop is."""
        self._task, self._precision, self._device = task, precision, device
        self._backward_outside = backward_outside
        self._parameters = [p for p in task.objective.parameters() if p.requires_grad]

    def __call__(self, batch: Any, seed: int = 1) -> torch.Tensor:
        """Gives the norm of the gradient."""
        task, device = self._task, self._device
        task.optimizer.zero_grad(set_to_none=True)
        with autocast(device, self._precision), seeded_dropout(seed, device):
            loss_sum, _ = task.objective(batch.to(device))
            if not self._backward_outside:
                (loss_sum / batch.count).backward()
        if self._backward_outside:
            (loss_sum / batch.count).backward()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, task.max_norm, foreach=True)
        task.optimizer.step()
        return norm
