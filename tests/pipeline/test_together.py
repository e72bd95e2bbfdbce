"""Students of several arms trained at the same time where there is room for them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.cli import main
from bertkd_ray.core.errors import UserError
from bertkd_ray.execution.local import LocalRuntime
from bertkd_ray.pipeline import pipeline as pipeline_module
from tests.helpers.small_config import write_config

ARMS = {"one": {"kd.alpha": 0}, "two": {"kd.alpha": 0, "student.seed": 2}, "same": {"kd.alpha": 0}}
QUICK = {"steps": 4, "eval_every": 2, "batch_tokens": 512, "micro_batches": 2, "width": 32, "heads": 2, "ffn": 64}
SMALL = {"encoder_layers": 1, "decoder_layers": 1, "warmup_steps": 2}


def run(path: Path, storage: Path, capture: Any) -> tuple[dict[str, Any], str]:
    assert main(["run", str(path), "runtime=local", f"storage={storage}", "--json"]) == 0
    out, err = capture.readouterr()
    return json.loads(out), err


def weights(found: dict[str, Any], arm: str) -> bytes:
    return Path(found["stages"][f"distill/{arm}"]["path"], "model", "model.safetensors").read_bytes()


@pytest.mark.slow
def test_students_that_are_trained_together_are_those_that_are_trained_in_turn(tmp_path, capfd, monkeypatch):
    path = write_config(tmp_path, arms=ARMS, student=QUICK | SMALL)
    in_turn, err = run(path, tmp_path / "in turn", capfd)
    assert "at a time" not in err
    monkeypatch.setattr(LocalRuntime, "trainings_at_once", lambda self: 5)
    monkeypatch.setenv("BERTKD_TIMELINE", str(tmp_path / "timeline"))
    together, err = run(path, tmp_path / "together", capfd)
    assert "distill  same, two: 2 at a time" in err  # `one` is the same student as `same`
    for arm in ARMS:
        assert weights(together, arm) == weights(in_turn, arm)
    statuses = {arm: together["stages"][f"distill/{arm}"]["status"] for arm in ARMS}
    assert statuses == {"one": "cached", "two": "done", "same": "done"}
    spans = [json.loads(line) for line in (tmp_path / "timeline").read_text().splitlines()]
    trained_by = {span["pid"] for span in spans if span["name"] == "fit"}
    assert len(trained_by) == 2
    assert os.getpid() not in trained_by
    assert {score["arm"] for score in together["scores"]} == set(ARMS)
    _check_runs(tmp_path / "together")
    again, err = run(path, tmp_path / "together", capfd)
    assert "at a time" not in err
    assert {entry["status"] for entry in again["stages"].values()} == {"cached"}


def _check_runs(storage: Path) -> None:
    """The runs of both students hang below the one of the pipeline."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {each.info.status for each in runs} == {"FINISHED"}
    (parent,) = [each for each in runs if each.data.tags["bertkd.kind"] == "pipeline"]
    students = [each for each in runs if each.data.tags.get("bertkd.stage") == "distill"]
    assert {each.data.tags["mlflow.parentRunId"] for each in students} == {parent.info.run_id}
    assert len(students) == 2


def _fail(config: Any, given: Any, arm: str) -> None:
    if arm == "one":
        raise UserError("one: cannot be trained")


@pytest.mark.slow
def test_what_one_of_them_raises_is_raised_when_all_have_ended(tmp_path, capsys, monkeypatch):
    path = write_config(tmp_path, arms={name: ARMS[name] for name in ("one", "two")}, student=QUICK | SMALL)
    monkeypatch.setattr(LocalRuntime, "trainings_at_once", lambda self: 2)
    monkeypatch.setattr(pipeline_module, "_train_student", _fail)
    assert main(["run", str(path), "runtime=local", "tracking=none", f"storage={tmp_path / 'store'}"]) == 2
    assert "bertkd: error: one: cannot be trained" in capsys.readouterr().err
