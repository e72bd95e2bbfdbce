"""What the module of a stage offers, and what it is given to make its artifact with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.stages import Stage
from bertkd_ray.execution.interface import Runtime
from bertkd_ray.training.curves import CurveRow


class Bert(Protocol):
    """The BERT of a configuration; nothing is read, or fetched, before it is asked for."""

    @property
    def directory(self) -> str:
        """The local directory. Raises UserError for a model that no teacher can be made of."""

    @property
    def tokenizer_hash(self) -> str:
        """sha256 of its tokenizer's files, as hex."""

    @property
    def model_hash(self) -> str:
        """sha256 of all its files, as hex."""


@dataclass(frozen=True)
class StageContext:
    """What a stage is made with."""

    config: Config
    """Of the arm, for a stage that every arm has."""
    runtime: Runtime
    bert: Bert
    inputs: Mapping[str, Artifact]
    """By kind of artifact."""
    on_rows: Callable[[list[CurveRow]], None]
    """Takes new points of the curves of a stage that trains."""


class StageModule(Protocol):
    """The module of a stage."""

    def pending_from_inputs(
        self, config: Config, store: Store, inputs: Mapping[str, str], bert: Bert
    ) -> PendingArtifact:
        """The artifact to be made, from the fingerprints of its inputs by kind of artifact."""

    def make(self, pending: PendingArtifact, context: StageContext) -> Artifact:
        """Makes and commits the artifact."""


def stage_module(stage: Stage) -> StageModule:
    """The module of a stage; importing it may take seconds, which a run that finds everything finished is spared."""
    return cast("StageModule", import_module(stage.module))
