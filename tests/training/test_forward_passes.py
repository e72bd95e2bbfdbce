"""Teacher and student: the sums of micro-batches in one forward pass are the sums of each, and so are the gradients."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from bertkd_ray.config.sections import KdConfig, StudentConfig, TeacherConfig
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.student.model import build_student
from bertkd_ray.student.task import StudentTask, Validation
from bertkd_ray.teacher.model import build_teacher
from bertkd_ray.teacher.task import TeacherTask
from bertkd_ray.training.batch_plan import MicroBatch, StreamPosition, concatenated
from tests.teacher.tiny import SPECIALS, write_bert

V = 24
BERT_IDS = np.concatenate([[0, 2, 2, 3], np.arange(5, 25)]).astype(np.int32)
MICROS = [([[4, 5, 6], [7]], [[13, 14], []]), ([[8, 9, 10, 11, 12, 13, 14]], [[15, 16, 17, 18]])]


def micro(stream: int) -> MicroBatch:
    src, tgt = MICROS[stream]
    lists = pa.list_(pa.int32())
    ids = np.arange(len(src)) + 10 * stream
    rows = pa.table({"id": ids, "src_ids": pa.array(src, lists), "tgt_ids": pa.array(tgt, lists)})
    return MicroBatch(stream=stream, epoch=0, rows=rows, after=StreamPosition(stream, 1))


def teacher(directory, direction):
    options = {"direction": direction, "dropout": 0.0, "attention_dropout": 0.0}
    config = TeacherConfig(batch_tokens=256, steps=100, **options)
    return TeacherTask(
        build_teacher(directory, BERT_IDS, config), config, 1, BERT_IDS, SPECIALS, micro(0).rows, "float32"
    )


def student():
    none = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    config = StudentConfig(encoder_layers=1, decoder_layers=1, width=16, ffn=24, heads=2, batch_tokens=64, **none)
    nothing = Ragged.from_lists([])
    validation = Validation(nothing, nothing, [], tokenizer=None)  # type: ignore[arg-type]
    model = build_student(config, vocab_size=V, max_positions=64, seed=3)
    return StudentTask(model, config, KdConfig(alpha=0.0), validation, "float32")


@pytest.mark.parametrize("kind", ["both", "left_to_right", "student"])
def test_sums_and_gradients_are_those_of_the_micro_batches(kind, tmp_path):
    task = student() if kind == "student" else teacher(write_bert(tmp_path), kind)
    micros = [micro(0), micro(1)]
    found = []
    for parts in ([[each] for each in micros], [micros]):
        task.objective.zero_grad()
        sums = []
        for part in parts:
            loss, stats = task.objective(task.collate(concatenated(part)))
            loss.backward()
            sums.append(torch.cat([loss.detach().reshape(1), stats.detach()]))
        gradients = {name: p.grad for name, p in task.objective.named_parameters() if p.grad is not None}
        found.append((torch.stack(sums).sum(dim=0), gradients))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
