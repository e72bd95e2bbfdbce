"""The update that is timed is the training loop's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks.loop import Alone, Updates
from benchmarks.setting import CPU
from benchmarks.training import Repeated
from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import build_teacher
from bertkd_ray.teacher.task import TeacherTask
from bertkd_ray.training.batch_plan import MicroBatch, StreamPosition
from bertkd_ray.training.optimization import set_learning_rate
from bertkd_ray.training.trainer import TrainSettings, fit
from tests.teacher.tiny import write_bert

V, PAIRS = 24, 6
BERT_IDS = np.concatenate([[0, 2, 2, 3], np.arange(5, 25)]).astype(np.int32)
SPECIALS = BertSpecials(pad=0, cls=2, sep=3, mask=4)
LISTS = pa.list_(pa.int32())
ROWS = pa.table(
    {
        "id": np.arange(PAIRS),
        "src_ids": pa.array([[4 + row, 5, 6] for row in range(PAIRS)], LISTS),
        "tgt_ids": pa.array([[7, 8, 9 + row] for row in range(PAIRS)], LISTS),
    }
)


class Group:
    """One row group: the whole table."""

    rows = np.asarray([PAIRS])

    def read(self, groups: np.ndarray) -> pa.Table:
        return pa.concat_tables([ROWS] * len(groups)).combine_chunks()


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], TeacherTask]:
    bert = write_bert(tmp_path / "bert")

    def task() -> TeacherTask:
        model = build_teacher(bert, BERT_IDS, TeacherConfig(dropout=0.0, attention_dropout=0.0))
        config = TeacherConfig(batch_tokens=1024, steps=1, peak_lr=1e-5, warmup_steps=0)
        return TeacherTask(model, config, 1, BERT_IDS, SPECIALS, ROWS, "float32")

    return task


def test_an_update_is_that_of_the_training_loop(make: Callable[[], TeacherTask]) -> None:
    """Rows come in another order there, so sums of float32 may differ in their last digits."""
    looped, timed, context = make(), make(), Alone()
    settings = TrainSettings(1, 1024, 1, seed=1, eval_every=1, checkpoint_every=2, log_every=1)
    fit(Repeated(looped, times=3), Group(), settings, context, "float32")
    set_learning_rate(timed.optimizer, timed.learning_rate(1))
    norm = Updates(timed, "float32", CPU)(timed.collate(MicroBatch(0, 0, ROWS, StreamPosition(0, 1))))
    assert context.rows[0].metrics["train/grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    assert 0 <= context.rows[0].metrics["train/data_wait"] <= 1
    before = dict(make().model.named_parameters())
    expected = dict(looped.model.named_parameters())
    for name, parameter in timed.model.named_parameters():
        assert name.startswith("bert.embeddings.word") or not torch.equal(parameter, before[name]), name
        torch.testing.assert_close(parameter, expected[name], rtol=0, atol=1e-7, msg=name)
