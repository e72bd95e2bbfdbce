"""The curves of a training, point by point, and the keys of their metrics.

The keys are the same in `history.json`, in the metrics of an artifact and in MLflow. Losses and negative
log-likelihoods are in nats a position; accuracies are shares, 0 to 1; BLEU is 0 to 100.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

TRAIN_LOSS = "train/loss"
TRAIN_NLL = "train/nll"
TRAIN_ACCURACY = "train/accuracy"
TRAIN_ALPHA = "train/alpha"
"""Weight of the soft labels, of a student for which it follows a schedule."""
TRAIN_LR = "train/lr"
TRAIN_GRAD_NORM = "train/grad_norm"
"""Gradient norm of the last update, before clipping."""
TRAIN_POSITIONS_PER_SECOND = "train/positions_per_second"
TRAIN_PADDED_TOKENS_PER_SECOND = "train/padded_tokens_per_second"
TRAIN_DATA_WAIT = "train/data_wait"
"""Share of the time in which the loop waited for its next batch, 0 to 1."""
VALID_LOSS = "valid/loss"
VALID_NLL = "valid/nll"
VALID_PERPLEXITY = "valid/perplexity"
VALID_ACCURACY = "valid/accuracy"
VALID_BLEU = "valid/bleu"
VALID_KL = "valid/kl"
"""KL(teacher ‖ student) of a distilled student, whose soft labels hold the valid split too."""


@dataclass(frozen=True)
class CurveRow:
    """One point of the curves: of the updates since the last one, or of a validation."""

    step: int
    time: float
    """Seconds since 1970."""
    metrics: Mapping[str, float]
    """By the keys above, all of one split; a teacher has others than a student."""

    @property
    def split(self) -> Literal["train", "valid"]:
        """What the metrics were measured on; both splits may have a row at the same step."""
        return "valid" if any(key.startswith("valid/") for key in self.metrics) else "train"

    def to_json(self) -> dict[str, float]:
        """The row as `history.json` has it."""
        return {"step": self.step, "time": self.time, **self.metrics}

    @staticmethod
    def from_json(row: Mapping[str, float]) -> CurveRow:
        """The row that `to_json` gave."""
        metrics = {key: value for key, value in row.items() if key not in ("step", "time")}
        return CurveRow(int(row["step"]), row["time"], metrics)


RowCallback = Callable[[list[CurveRow]], None]
"""Takes new rows of the curves."""


def validation_at(rows: Sequence[CurveRow], step: int) -> CurveRow:
    """The validation of a step. Raises StopIteration where there was none."""
    return next(row for row in rows if row.step == step and row.split == "valid")
