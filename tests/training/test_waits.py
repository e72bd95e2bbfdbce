"""An update and an extraction batch do not wait for their GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks.waits import update_waits, waits
from bertkd_ray.config.sections import KdConfig, StudentConfig, TeacherConfig
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.cleaning import ID_MONOLINGUAL_BIT
from bertkd_ray.softlabels.scoring import Scorer
from bertkd_ray.student.model import build_student
from bertkd_ray.student.task import StudentTask, Validation
from bertkd_ray.teacher.model import build_teacher
from bertkd_ray.teacher.task import TeacherTask
from bertkd_ray.training.batch_plan import MicroBatch, StreamPosition
from tests.teacher.tiny import SPECIALS, write_bert

V = 24
BERT_IDS = np.concatenate([[0, 2, 2, 3], np.arange(5, 25)]).astype(np.int32)
SRC, TGT = [[4, 5, 6], [7], [8, 9, 10, 11, 12]], [[13, 14], [15, 16, 17, 18], []]
POSITIONS = sum(len(row) + 1 for row in TGT)


def micro(monolingual: bool = False) -> MicroBatch:
    lists, counts = pa.list_(pa.int32()), [len(row) + 1 for row in TGT]
    random = np.random.default_rng(1)
    ids = [np.concatenate([random.permutation(V)[:4] for _ in range(count)]).astype(np.uint16) for count in counts]
    table = pa.table(
        {
            "id": np.array([1, 2 | (1 << ID_MONOLINGUAL_BIT if monolingual else 0), 3]),
            "src_ids": pa.array(SRC, lists),
            "tgt_ids": pa.array(TGT, lists),
            "topk_ids": pa.array(ids, pa.list_(pa.uint16())),
            "topk_logits": pa.array([np.tile([3, 2, 1, 0], n).astype(np.float16) for n in counts]),
            "logsumexp": pa.array([np.full(n, 5.0, np.float32) for n in counts], pa.list_(pa.float32())),
        }
    )
    return MicroBatch(stream=0, epoch=0, rows=table, after=StreamPosition(0, 1))


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("optimizer", ["adamw", "bertadam"])
@pytest.mark.parametrize("direction", ["both", "left_to_right"])
def test_a_teachers_update(bert, direction, optimizer, attention):
    config = TeacherConfig(batch_tokens=256, steps=100, direction=direction, optimizer=optimizer)
    model = build_teacher(bert, BERT_IDS, config, attention=attention)
    task = TeacherTask(model, config, 1, BERT_IDS, SPECIALS, micro().rows, "float32")
    assert update_waits(task, task.collate(micro())) == []


@pytest.mark.parametrize(
    "kd",
    [
        {"alpha": 0.0},
        {"alpha": 0.5},
        {"alpha": 0.5, "tail": "exact", "temperature": 1.0},
        {"alpha": 0.5, "symmetric": True, "temperature": 2.0},
        {"alpha": 0.5, "at_end": False},
        {"alpha": 0.5, "monolingual_weight": 0.5},
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_students_update(kd: dict[str, Any], precision):
    config = StudentConfig(encoder_layers=1, decoder_layers=1, width=16, ffn=24, heads=2, batch_tokens=64)
    model = build_student(config, vocab_size=V, max_positions=64, seed=3)
    nothing = Ragged.from_lists([])
    validation = Validation(nothing, nothing, [], tokenizer=None)  # type: ignore[arg-type]
    task = StudentTask(model, config, KdConfig(topk=4, **kd), validation, precision)
    batch = task.collate(micro(monolingual="monolingual_weight" in kd))
    assert update_waits(task, batch, precision) == []


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("direction", ["both", "left_to_right"])
def test_an_extraction_batch(bert, direction, precision, monkeypatch):
    teacher = build_teacher(bert, BERT_IDS, TeacherConfig(direction=direction)).eval()
    device = torch.device("cpu")
    scorer = Scorer(teacher, BERT_IDS, SPECIALS, topk=4, batch_tokens=256, precision=precision, device=device)
    src, tgt = Ragged.from_lists(SRC), Ragged.from_lists(TGT)
    mask = np.resize([True, False, False], POSITIONS)
    with torch.inference_mode():
        assert waits(lambda: scorer._score_batch(src, tgt, mask)) == []


def test_what_waits_is_counted():
    values = torch.tensor([1, 0, 2])
    assert waits(lambda: [values.tolist(), values.max().item(), values[values > 0], torch.bincount(values)])
    assert waits(lambda: bool((values > 0).all()))
    assert waits(lambda: values + values) == []
