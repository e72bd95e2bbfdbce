"""Whole stages in this process, on the local runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config, load_config
from bertkd_ray.corpus import prepare
from bertkd_ray.execution.local import LocalRuntime
from bertkd_ray.softlabels import extract
from bertkd_ray.student import distill
from bertkd_ray.teacher import finetune
from bertkd_ray.teacher.source import model_hash, tokenizer_hash
from bertkd_ray.translation import translate
from tests.helpers.small_config import write_config

QUICK = ["teacher.steps=2", "teacher.eval_every=2", "student.steps=2", "student.eval_every=2"]


class InProcess(LocalRuntime):
    """The local runtime without a configuration of its own; `seen` lists the items that were mapped."""

    def __init__(self) -> None:
        super().__init__(Config.model_validate({"name": "in-process", "corpus": {"source": "demo"}}))
        self.seen: list[dict[str, Any]] = []

    def map(
        self, items: list[dict[str, Any]], function: Callable[..., Any], arguments: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        self.seen += items
        yield from super().map(items, function, arguments)


class Project:
    """A small corpus, BERT and configuration in a directory, and its stages; a stage is made once."""

    def __init__(self, directory: Path, *overrides: str) -> None:
        self.directory = directory
        if not (directory / "small.yaml").exists():
            write_config(directory)
        self.config: Config = load_config(directory / "small.yaml", [*QUICK, *overrides])
        self.store = Store(self.config.storage)
        self.bert = self.config.teacher.model
        self.runtime: Any = InProcess()
        self._made: dict[str, Artifact] = {}

    def variant(self, storage: Path, *overrides: str) -> Project:
        """The same text and BERT under a changed configuration, in a store of its own."""
        return Project(self.directory, f"storage={storage}", *overrides)

    def _once(self, stage: str, make: Callable[[], Artifact]) -> Artifact:
        if stage not in self._made:
            self._made[stage] = make()
        return self._made[stage]

    def corpus(self) -> Artifact:
        """Stage 0."""
        work = prepare.pending_artifact(self.config, self.store, tokenizer_hash(self.bert))
        return self._once("corpus", lambda: prepare.prepare(work, self.config, self.runtime, self.bert))

    def teacher(self) -> Artifact:
        """Stage 1, two steps of it."""
        corpus = self.corpus()
        work = finetune.pending_artifact(self.config, self.store, corpus.fingerprint, model_hash(self.bert))
        return self._once(
            "teacher", lambda: finetune.finetune(work, self.config, self.runtime, corpus, self.bert, lambda rows: None)
        )

    def labels_draft(self) -> PendingArtifact:
        """What stage 2 is to make."""
        return extract.pending_artifact(self.config, self.store, self.corpus().fingerprint, self.teacher().fingerprint)

    def labels(self) -> Artifact:
        """Stage 2."""
        corpus, teacher = self.corpus(), self.teacher()
        share = self.config.max_rejects
        return self._once(
            "labels", lambda: extract.extract(self.labels_draft(), self.runtime, corpus, teacher, max_rejects=share)
        )

    def control(self) -> Artifact:
        """Stage 3 without a teacher, two steps of it."""
        corpus = self.corpus()
        config = self.config.arm_configs()["control"]
        work = distill.pending_artifact(config, self.store, corpus.fingerprint, None)
        return self._once(
            "control", lambda: distill.distill(work, config, self.runtime, corpus, None, lambda rows: None)
        )

    def distilled(self) -> Artifact:
        """Stage 3 with the teacher, two steps of it."""
        corpus, labels = self.corpus(), self.labels()
        config = self.config.arm_configs()["distilled"]
        work = distill.pending_artifact(config, self.store, corpus.fingerprint, labels.fingerprint)
        return self._once(
            "distilled", lambda: distill.distill(work, config, self.runtime, corpus, labels, lambda rows: None)
        )

    def translation_draft(self) -> PendingArtifact:
        """What stage 4 is to make of the control."""
        return translate.pending_artifact(
            self.config, self.store, self.corpus().fingerprint, self.control().fingerprint
        )

    def translation(self) -> Artifact:
        """Stage 4 of the control."""
        corpus, control = self.corpus(), self.control()
        work = self.translation_draft()
        return self._once(
            "translation", lambda: translate.translate(work, self.runtime, corpus, control, max_rejects=0)
        )
