"""What the module of a stage offers, and what it is given to make its artifact with."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.stages import Stage
from bertkd_ray.execution.interface import Runtime
from bertkd_ray.training.curves import CurveRow, RowCallback


def ignore_rows(rows: list[CurveRow]) -> None:
    """Takes no points: a stage that does not train has none."""


@dataclass(frozen=True)
class StageContext:
    """What a stage is made with."""

    config: Config
    """Configuration of the arm, for a stage that every arm has."""
    runtime: Runtime
    inputs: Mapping[str, Artifact]
    """Artifacts that the stage reads, by kind."""
    bert: str = ""
    """Directory of the BERT, for a stage that reads it."""
    on_rows: RowCallback = ignore_rows
    """Takes new points of the curves of a stage that trains."""


class StageModule(Protocol):
    """The module of a stage."""

    def pending_artifact(self, config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
        """The artifact to be made; inputs: fingerprints by kind of artifact, and the BERT's hash (`Stage.bert`)."""

    def make(self, pending: PendingArtifact, context: StageContext) -> Artifact:
        """Makes and commits the artifact."""


def stage_module(stage: Stage) -> StageModule:
    """The module of a stage; importing it may take seconds, which a run that finds everything finished is spared."""
    return cast("StageModule", import_module(stage.module))
