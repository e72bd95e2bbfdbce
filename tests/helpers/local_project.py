"""Whole stages in this process, on the local runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config, load_config
from bertkd_ray.corpus import prepare
from bertkd_ray.corpus.bert_tokenizer import tokenizer_hash
from bertkd_ray.execution.local import LocalRuntime
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.softlabels import extract
from bertkd_ray.student import distill
from bertkd_ray.teacher import finetune
from bertkd_ray.teacher.source import model_hash
from bertkd_ray.translation import evaluate, translate
from tests.helpers.small_config import write_config

QUICK = ["teacher.steps=2", "teacher.eval_every=2", "student.steps=2", "student.eval_every=2"]


class InProcessRuntime(LocalRuntime):
    """The local runtime without a configuration of its own; `mapped` lists the items that were mapped."""

    def __init__(self) -> None:
        super().__init__(Config.model_validate({"name": "in-process", "corpus": {"source": "demo"}}))
        self.mapped: list[Any] = []

    def map(self, items: Sequence[Any], worker: Any, job: Any) -> Iterator[Any]:
        self.mapped += items
        yield from super().map(items, worker, job)


def extracted(pending: PendingArtifact, config: Config, runtime: Any, corpus: Artifact, teacher: Artifact) -> Artifact:
    """The artifact of extract, made now."""
    return extract.make(pending, StageContext(config, runtime, {"corpus": corpus, "teacher": teacher}))


def evaluated(pending: PendingArtifact, config: Config, runtime: Any, corpus: Artifact, teacher: Artifact) -> Artifact:
    """The artifact of evaluate, made now."""
    return evaluate.make(pending, StageContext(config, runtime, {"corpus": corpus, "teacher": teacher}))


def translated(pending: PendingArtifact, config: Config, runtime: Any, corpus: Artifact, student: Artifact) -> Artifact:
    """The artifact of translate, made now."""
    return translate.make(pending, StageContext(config, runtime, {"corpus": corpus, "student": student}))


class Project:
    """A small corpus, BERT and configuration in a directory, and its stages; a stage is made once."""

    def __init__(self, directory: Path, *overrides: str) -> None:
        self.directory = directory
        if not (directory / "small.yaml").exists():
            write_config(directory)
        self.config: Config = load_config(directory / "small.yaml", [*QUICK, *overrides])
        self.store = Store(self.config.storage)
        self.bert = self.config.teacher.model
        self.runtime: Any = InProcessRuntime()
        self._made: dict[str, Artifact] = {}

    def variant(self, storage: Path, *overrides: str) -> Project:
        """The same text and BERT under a changed configuration, in a store of its own."""
        return Project(self.directory, f"storage={storage}", *overrides)

    def with_max_rejects(self, max_rejects: float) -> Config:
        """The configuration with another share of pairs that a stage may leave out."""
        return self.config.model_copy(update={"max_rejects": max_rejects})

    def _once(self, stage: str, make: Callable[[], Artifact]) -> Artifact:
        if stage not in self._made:
            self._made[stage] = make()
        return self._made[stage]

    def corpus(self) -> Artifact:
        """The artifact of prepare."""
        pending = prepare.pending_artifact(self.config, self.store, {"bert_tokenizer": tokenizer_hash(self.bert)})
        return self._once(
            "corpus", lambda: prepare.make(pending, StageContext(self.config, self.runtime, {}, self.bert))
        )

    def teacher(self) -> Artifact:
        """The artifact of finetune, after two steps."""
        corpus = self.corpus()
        inputs = {"corpus": corpus.fingerprint, "bert": model_hash(self.bert)}
        pending = finetune.pending_artifact(self.config, self.store, inputs)
        context = StageContext(self.config, self.runtime, {"corpus": corpus}, self.bert)
        return self._once("teacher", lambda: finetune.make(pending, context))

    def pending_labels(self) -> PendingArtifact:
        """The pending artifact of extract."""
        inputs = {"corpus": self.corpus().fingerprint, "teacher": self.teacher().fingerprint}
        return extract.pending_artifact(self.config, self.store, inputs)

    def labels(self) -> Artifact:
        """The artifact of extract."""
        corpus, teacher = self.corpus(), self.teacher()
        return self._once(
            "labels", lambda: extracted(self.pending_labels(), self.config, self.runtime, corpus, teacher)
        )

    def control(self) -> Artifact:
        """The artifact of distill without a teacher, after two steps."""
        corpus = self.corpus()
        config = self.config.arm_configs()["control"]
        pending = distill.pending_artifact(config, self.store, {"corpus": corpus.fingerprint})
        context = StageContext(config, self.runtime, {"corpus": corpus})
        return self._once("control", lambda: distill.make(pending, context))

    def distilled(self) -> Artifact:
        """The artifact of distill with the teacher, after two steps."""
        corpus, labels = self.corpus(), self.labels()
        config = self.config.arm_configs()["distilled"]
        inputs = {"corpus": corpus, "softlabels": labels}
        fingerprints = {kind: artifact.fingerprint for kind, artifact in inputs.items()}
        pending = distill.pending_artifact(config, self.store, fingerprints)
        return self._once("distilled", lambda: distill.make(pending, StageContext(config, self.runtime, inputs)))

    def pending_translation(self) -> PendingArtifact:
        """The pending artifact of translate, of the control."""
        inputs = {"corpus": self.corpus().fingerprint, "student": self.control().fingerprint}
        return translate.pending_artifact(self.config, self.store, inputs)

    def pending_evaluation(self) -> PendingArtifact:
        """The pending artifact of evaluate."""
        inputs = {"corpus": self.corpus().fingerprint, "teacher": self.teacher().fingerprint}
        return evaluate.pending_artifact(self.config, self.store, inputs)

    def translation(self) -> Artifact:
        """The artifact of translate, of the control."""
        corpus, control = self.corpus(), self.control()
        pending = self.pending_translation()
        return self._once(
            "translation", lambda: translated(pending, self.with_max_rejects(0), self.runtime, corpus, control)
        )
