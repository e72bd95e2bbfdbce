"""A stage that is declared and has its module: commands run it, a plan names it, reports leave it be."""

from __future__ import annotations

import json

import pytest

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.cli import main
from bertkd_ray.config import Config
from bertkd_ray.core.stages import BY_ARTIFACT, STAGES, Stage
from bertkd_ray.execution.stage import StageContext
from tests.helpers.local_project import QUICK
from tests.helpers.small_config import write_config

RESCORE = Stage(
    name="rescore",
    module=__name__,
    artifact="scores",
    title="Scores",
    summary="count the pairs once more",
    inputs=("prepare",),
    sections=("precision",),
    priority=6,
)


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    return PendingArtifact.of(store, RESCORE.artifact, {"precision": config.precision}, inputs)


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    pairs = context.inputs["corpus"].metrics["train/pairs"]
    pending.store.write(b"{}", pending.directory, "scores.json")
    return pending.commit(made=["scores.json"], metrics={"pairs": pairs}, info={})


@pytest.mark.slow
def test_a_declared_stage_is_run_and_named_in_plans(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(STAGES, RESCORE.name, RESCORE)
    monkeypatch.setitem(BY_ARTIFACT, RESCORE.artifact, RESCORE)
    path = str(write_config(tmp_path, runtime="local", tracking="none", arms={"control": {"kd.alpha": 0}}))
    assert main(["plan", path, *QUICK, "--rate", "1"]) == 0
    assert "Assumed: rescore is not estimated." in capsys.readouterr().out
    for status in ("done", "cached"):
        assert main(["run", path, *QUICK, "--json"]) == 0
        stages = json.loads(capsys.readouterr().out)["stages"]
        assert set(stages) == {"prepare", "rescore", "distill/control", "translate/control"}
        assert stages["rescore"]["status"] == status
        assert stages["rescore"]["metrics"]["pairs"] == stages["prepare"]["metrics"]["train/pairs"]
