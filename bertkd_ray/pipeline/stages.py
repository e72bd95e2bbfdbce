"""What makes the artifact of each stage: functions of the rooms, bound to the stages that `core.stages` declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.stages import DISTILL, EXTRACT, FINETUNE, PREPARE, TRANSLATE
from bertkd_ray.execution.interface import Runtime
from bertkd_ray.training.curves import CurveRow


@dataclass(frozen=True)
class Bert:
    """The BERT of a configuration; nothing is read, or fetched, before it is asked for."""

    source: str
    """A directory, package or hub id, as `teacher.model`."""
    needs_weights: bool

    @cached_property
    def directory(self) -> str:
        """The local directory. Raises UserError for a model that no teacher can be made of."""
        from bertkd_ray.teacher.source import check_bert, resolve_model

        directory = resolve_model(self.source)
        check_bert(directory, weights=self.needs_weights)
        return directory

    @cached_property
    def tokenizer_hash(self) -> str:
        """sha256 of its tokenizer's files, as hex."""
        from bertkd_ray.teacher.source import tokenizer_hash

        return tokenizer_hash(self.directory)

    @cached_property
    def model_hash(self) -> str:
        """sha256 of all its files, as hex."""
        from bertkd_ray.teacher.source import model_hash

        return model_hash(self.directory)


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


class StageFunctions(NamedTuple):
    """How the artifact of a stage is named, and how it is made."""

    pending: Callable[[Config, Store, Mapping[str, str], Bert], PendingArtifact]
    """The artifact to be made, from the fingerprints of its inputs by kind of artifact."""
    make: Callable[[PendingArtifact, StageContext], Artifact]


# The rooms import what takes seconds; a run that finds everything finished needs none of it.


def _pending_corpus(config: Config, store: Store, inputs: Mapping[str, str], bert: Bert) -> PendingArtifact:
    from bertkd_ray.corpus import prepare

    return prepare.pending_artifact(config, store, bert.tokenizer_hash)


def _make_corpus(pending: PendingArtifact, context: StageContext) -> Artifact:
    from bertkd_ray.corpus import prepare

    return prepare.prepare(pending, context.config, context.runtime, context.bert.directory)


def _pending_teacher(config: Config, store: Store, inputs: Mapping[str, str], bert: Bert) -> PendingArtifact:
    from bertkd_ray.teacher import finetune

    return finetune.pending_artifact(config, store, inputs["corpus"], bert.model_hash)


def _make_teacher(pending: PendingArtifact, context: StageContext) -> Artifact:
    from bertkd_ray.teacher import finetune

    corpus, bert = context.inputs["corpus"], context.bert.directory
    return finetune.finetune(pending, context.config, context.runtime, corpus, bert, context.on_rows)


def _pending_softlabels(config: Config, store: Store, inputs: Mapping[str, str], bert: Bert) -> PendingArtifact:
    from bertkd_ray.softlabels import extract

    return extract.pending_artifact(config, store, inputs["corpus"], inputs["teacher"])


def _make_softlabels(pending: PendingArtifact, context: StageContext) -> Artifact:
    from bertkd_ray.softlabels import extract

    corpus, teacher = context.inputs["corpus"], context.inputs["teacher"]
    return extract.extract(pending, context.config, context.runtime, corpus, teacher)


def _pending_student(config: Config, store: Store, inputs: Mapping[str, str], bert: Bert) -> PendingArtifact:
    from bertkd_ray.student import distill

    return distill.pending_artifact(config, store, inputs["corpus"], inputs.get("softlabels"))


def _make_student(pending: PendingArtifact, context: StageContext) -> Artifact:
    from bertkd_ray.student import distill

    corpus, softlabels = context.inputs["corpus"], context.inputs.get("softlabels")
    return distill.distill(pending, context.config, context.runtime, corpus, softlabels, context.on_rows)


def _pending_translation(config: Config, store: Store, inputs: Mapping[str, str], bert: Bert) -> PendingArtifact:
    from bertkd_ray.translation import translate

    return translate.pending_artifact(config, store, inputs["corpus"], inputs["student"])


def _make_translation(pending: PendingArtifact, context: StageContext) -> Artifact:
    from bertkd_ray.translation import translate

    corpus, student = context.inputs["corpus"], context.inputs["student"]
    return translate.translate(pending, context.config, context.runtime, corpus, student)


STAGE_FUNCTIONS = {
    PREPARE.name: StageFunctions(_pending_corpus, _make_corpus),
    FINETUNE.name: StageFunctions(_pending_teacher, _make_teacher),
    EXTRACT.name: StageFunctions(_pending_softlabels, _make_softlabels),
    DISTILL.name: StageFunctions(_pending_student, _make_student),
    TRANSLATE.name: StageFunctions(_pending_translation, _make_translation),
}
"""By name of the stage."""
