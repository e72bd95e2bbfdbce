"""What a plan says of checkpoints, by hand: 100 million parameters are 1.2 GB, 0.4 s to copy and 6 s to write."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bertkd_ray.cli import main
from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.plan.checkpoints import plan_checkpoints
from bertkd_ray.plan.costs import teacher_size
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import build_teacher
from bertkd_ray.teacher.pruned_embedding import PrunedEmbedding
from tests.helpers.small_config import write_config
from tests.teacher.tiny import write_bert

MANY = 100_000_000


@pytest.mark.parametrize(
    ("every", "on_gpu", "seconds", "number", "waited"),
    [
        (None, True, 1001, 20, 20 * 0.4),  # (0.4 + 6 / 10) / 2% = 50 s from one to the next
        (None, False, 1001, 3, 3 * 6.4),  # 6.4 / 2% = 320 s
        (None, True, 49, 0, 0),
        (200, True, 1000, 49, 49 * 0.4),  # 20 s from one to the next
        (200, True, 100, 49, 49 * (0.4 + 4)),  # 2 s, of the 6 that writing takes
        (200, False, 1000, 49, 49 * 6.4),
    ],
)
def test_how_many_there_are_and_what_they_cost(every, on_gpu, seconds, number, waited):
    found = plan_checkpoints(seconds, 10_000, MANY, every, on_gpu=on_gpu)
    assert (found.number, found.bytes) == (number, 1.2e9)
    assert found.seconds == pytest.approx(6.4)
    assert found.waited == pytest.approx(waited)
    if every is None:
        assert found.waited <= 0.02 * seconds


def test_a_teacher_trains_the_rows_of_its_embedding_that_the_corpus_has(tmp_path):
    bert = write_bert(tmp_path / "bert")  # of 40 pieces
    # Eleven tokens, and the four special pieces, which none of them has.
    ids, settings = np.arange(10, 21, dtype=np.int32), TeacherConfig(model=str(bert))
    teacher = build_teacher(bert, ids, settings)
    PrunedEmbedding(teacher, ids, BertSpecials(0, 2, 3, 4))
    assert teacher_size(settings, 11).trained_parameters == sum(of.numel() for of in teacher.parameters())


def test_of_multilingual_bert_148_of_209_million_parameters_are_trained():
    size = teacher_size(TeacherConfig(), 40_000)
    assert (round(size.parameters / 1e6), round(size.trained_parameters / 1e6)) == (209, 148)


def test_the_command_says_what_checkpoints_cost_and_when_they_do_not_fit(tmp_path, capsys):
    given = ["--pairs", "160239", "--src-tokens", "27", "--tgt-tokens", "25", "--device", "h100"]
    path = str(write_config(tmp_path, arms={"distilled": {}}))
    assert main(["plan", path, *given, "preemption_grace=0.000001", "checkpoint_every=7", "teacher.steps=20"]) == 0
    out = capsys.readouterr().out
    assert "Checkpoints: finetune 2 of " in out
    assert "; the devices wait " in out
    assert re.search(r"preemption_grace 1e-06 is set to a checkpoint's [\d.e-]+ s", out)
    assert main(["plan", path, *given, "checkpoint_every=100"]) == 0
    out = capsys.readouterr().out
    assert "Checkpoints" not in out
    assert "preemption_grace" not in out
