"""A teacher is made of the BERT that its fingerprint is of."""

from __future__ import annotations

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
