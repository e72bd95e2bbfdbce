"""The figures of a finished student."""

from __future__ import annotations

import pytest
import torch

from bertkd_ray.config import load_config
from bertkd_ray.pipeline.pipeline import Pipeline
from bertkd_ray.student.distill import MODEL
from bertkd_ray.student.saved_model import load_student
from bertkd_ray.student.task import StudentTask, Validation
from bertkd_ray.training.context import World
from bertkd_ray.training.curves import VALID_ACCURACY, VALID_BLEU, VALID_NLL
from tests.helpers.small_config import write_config


@pytest.mark.slow
def test_the_figures_of_averaged_weights_are_without_dropout(tmp_path):
    path = write_config(tmp_path, runtime="local", tracking="none", arms={"control": {"kd.alpha": 0}})
    changes = ["student.average=2", "student.dropout=0.5", "student.steps=4", "student.eval_every=2"]
    config = load_config(path, changes).arm_configs()["control"]
    with Pipeline(load_config(path, changes)) as pipeline:
        corpus, student = pipeline.make("prepare"), pipeline.make("distill", "control")
    model = load_student(student.local(MODEL, tmp_path))
    task = StudentTask(model, config.student, config.kd, Validation.of(corpus), "float32")
    task.objective.eval()
    with torch.no_grad():
        figures = task.evaluate(World())
    for key in (VALID_NLL, VALID_ACCURACY, VALID_BLEU):
        assert student.metrics[key] == pytest.approx(figures[key], rel=1e-5)
