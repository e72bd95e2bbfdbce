"""How long a training takes, on how much at a time, and how often it looks."""

from __future__ import annotations

from dataclasses import dataclass

from bertkd_ray.config import Config
from bertkd_ray.config.sections import StudentConfig, TeacherConfig

_OF_SECTION = {"steps", "batch_tokens", "micro_batches", "eval_every", "patience", "average"}


@dataclass(frozen=True)
class TrainSettings:
    """What the training loop reads of a configuration."""

    steps: int
    batch_tokens: int
    micro_batches: int
    seed: int
    eval_every: int
    checkpoint_every: int
    log_every: int
    patience: int | None = None
    average: int = 1

    @classmethod
    def from_config(cls, config: Config, section: TeacherConfig | StudentConfig, seed: int) -> TrainSettings:
        """The settings of a configuration for the model that a section of it describes."""
        of_section = section.model_dump(include=_OF_SECTION)
        return cls(seed=seed, checkpoint_every=config.checkpoint_every, log_every=config.log_every, **of_section)
