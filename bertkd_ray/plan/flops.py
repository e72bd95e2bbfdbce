"""Matrix operations of a plan's batch, by `plan.operations`."""

from __future__ import annotations

import numpy as np

from bertkd_ray.plan import operations
from bertkd_ray.plan.batches import Batch, teacher_places
from bertkd_ray.plan.models import StudentShape, TeacherShape


def teacher_forward(shape: TeacherShape, batch: Batch, positions: float) -> float:
    """Of a forward pass over a padded batch, of which so many positions are masked, evenly over its rows."""
    places, rows = teacher_places(batch.src, batch.tgt), len(batch.src)
    return operations.teacher_forward(shape, places, batch.padded(places), np.full(rows, positions / rows)).computed


def student_forward(shape: StudentShape, batch: Batch) -> float:
    """Of a forward pass over a padded batch."""
    src, tgt = batch.src + 1, batch.tgt + 1
    return operations.student_forward(shape, src, tgt, batch.padded(src), batch.padded(tgt)).computed


def decoding(shape: StudentShape, batch: Batch, beam: int) -> float:
    """FLOPs of a beam search for the batch's sentences, without padding: the decoder and the output once a beam."""
    d, f = shape.width, shape.ffn
    s, t = batch.src + 1.0, batch.tgt + 1.0
    encoder = shape.encoder_layers * s * (2 * (4 * d * d + 2 * d * f) + 4 * s * d)
    crossed = shape.decoder_layers * s * 4 * d * d
    step = shape.decoder_layers * (2 * (6 * d * d + 2 * d * f) + 4 * d * (s + t / 2)) + 2 * d * shape.vocabulary
    return float(np.sum(encoder + crossed + beam * t * step))
