"""What the training loop is given of a configuration."""

from __future__ import annotations

from bertkd_ray.config import Config
from bertkd_ray.training.trainer import TrainSettings


def test_the_settings_are_those_of_the_section():
    config = Config.model_validate(
        {
            "name": "settings",
            "corpus": {"source": "demo"},
            "teacher": {"steps": 7, "patience": 2},
            "student": {"steps": 9, "average": 3},
            "log_every": 11,
        }
    )
    teacher = TrainSettings.from_config(config, config.teacher, 5)
    student = TrainSettings.from_config(config, config.student, 6)
    assert (teacher.steps, teacher.patience, teacher.average, teacher.seed) == (7, 2, 1, 5)
    assert (student.steps, student.patience, student.average, student.seed) == (9, None, 3, 6)
    assert teacher.log_every == student.log_every == 11
    assert teacher.batch_tokens == config.teacher.batch_tokens
    assert student.eval_every == config.student.eval_every
