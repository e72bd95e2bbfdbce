"""A teacher is made of the BERT that its fingerprint is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.core.errors import UserError
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.teacher import finetune
from tests.helpers.local_project import Project


def test_a_bert_that_a_worker_reads_otherwise_than_the_driver_is_refused(tmp_path):
    project = Project(tmp_path)
    corpus = project.corpus()
    inputs = {"corpus": corpus.fingerprint, "bert": "0" * 64}
    pending = finetune.pending_artifact(project.config, project.store, inputs)
    context = StageContext(project.config, project.runtime, {"corpus": corpus}, project.bert)
    with pytest.raises(
        UserError, match=r"^teacher\.model: .*/bert on .+ is not, or no longer, what this run began with"
    ):
        finetune.make(pending, context)
    assert not project.store.exists(pending.directory, "manifest.json")


@pytest.mark.parametrize("named", ["bert", "google-bert/bert-base-cased"])
def test_workers_find_a_relative_directory_and_each_its_own_copy_of_the_hub(tmp_path, monkeypatch, named):
    project = Project(tmp_path)
    corpus, directory = project.corpus(), Path(project.bert)
    teacher = project.config.teacher.model_copy(update={"model": named})
    config = project.config.model_copy(update={"teacher": teacher})
    monkeypatch.chdir(directory.parent)
    assert directory.name == "bert"
    inputs = {"corpus": corpus.fingerprint, "bert": "0" * 64}
    pending = finetune.pending_artifact(config, project.store, inputs)
    assert pending.fingerprint == finetune.pending_artifact(project.config, project.store, inputs).fingerprint
    given: list[Any] = []

    def train(_pending: Any, _function: Any, job: Any, _on_rows: Any) -> None:
        given.append(job)
        raise RuntimeError("started")

    monkeypatch.setattr(project.runtime, "train", train)
    with pytest.raises(RuntimeError, match="started"):
        finetune.make(pending, StageContext(config, project.runtime, {"corpus": corpus}, str(directory)))
    (job,) = given
    assert job.config.teacher.model == (str(directory) if named == "bert" else named)
