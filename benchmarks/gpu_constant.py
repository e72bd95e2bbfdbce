"""The same pairs in batches of few shapes: as many rows as the budget has for a width, with empty rows where pairs end.

Compiled code and plans for a shape are then made a few times, not once a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from bertkd_ray.core.padding import padded_length
from bertkd_ray.corpus.tokenizer import PAD_ID
from bertkd_ray.student.collate import StudentBatch
from bertkd_ray.teacher.task import TeacherBatch
from bertkd_ray.training.batch_plan import MicroBatch, StreamPosition

WIDTH_MULTIPLE = 16


def micro_batch(rows: pa.Table) -> MicroBatch:
    """Some pairs as a micro-batch."""
    return MicroBatch(stream=0, epoch=0, rows=rows, after=StreamPosition(0, 1))


def constant_batches(task: Any, rows: pa.Table, budget: int) -> Iterator[TeacherBatch | StudentBatch]:
    """Collated batches of all the pairs, the longest first; a width, a multiple of 16, has one number of rows."""
    tokens = task.lengths(rows).tokens
    order, start = np.argsort(-tokens, kind="stable"), 0
    while start < len(order):
        width = padded_length(int(tokens[order[start]]), WIDTH_MULTIPLE)
        count = max(1, budget // width)
        batch = task.collate(micro_batch(rows.take(pa.array(order[start : start + count]))))
        yield (_teacher_batch if isinstance(batch, TeacherBatch) else _student_batch)(batch, count, width)
        start += count


def _teacher_batch(batch: TeacherBatch, rows: int, width: int) -> TeacherBatch:
    length = batch.input_ids.shape[1]
    names = "input_ids", "token_type_ids", "attention_mask"
    enlarged = {name: _enlarged(getattr(batch, name), rows, width) for name in names}
    return replace(batch, **enlarged, masked_index=_moved(batch.masked_index, length, width))


def _student_batch(batch: StudentBatch, rows: int, width: int) -> StudentBatch:
    source, target = batch.src_ids_NS.shape[1], batch.decoder_input_ids_NT.shape[1]
    return replace(
        batch,
        src_ids_NS=_enlarged(batch.src_ids_NS, rows, width, PAD_ID),
        src_mask_NS=_enlarged(batch.src_mask_NS, rows, width),
        src_index=_moved(batch.src_index, source, width),
        decoder_input_ids_NT=_enlarged(batch.decoder_input_ids_NT, rows, width, PAD_ID),
        target_index_P=_moved(batch.target_index_P, target, width),
    )


def _enlarged(values: Tensor, rows: int, width: int, filler: int = 0) -> Tensor:
    added = (0, width - values.shape[1], 0, rows - values.shape[0])
    return functional.pad(values.long(), added, value=filler).to(values.dtype)


def _moved(index: Tensor, length: int, width: int) -> Tensor:
    """Positions in a flattened array of rows of another width."""
    return torch.div(index, length, rounding_mode="floor") * width + index % length
