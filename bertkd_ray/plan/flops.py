"""Matrix operations of a plan's batch, by the formulas of `core.operations`, here for expected numbers of positions."""

from __future__ import annotations

import numpy as np

from bertkd_ray.plan.batches import Batch, padded, teacher_places
from bertkd_ray.plan.models import StudentShape, TeacherShape

TRAINING = 3.0
"""A training step in forward passes: the backward pass multiplies twice as much."""


def teacher_forward(shape: TeacherShape, batch: Batch, positions: float) -> float:
    """FLOPs of a forward pass over a padded batch, with so many positions through the output layer.

    These alone go through the last layer too, but for keys and values, which are of all places.
    """
    rows, places = len(batch.src), padded(teacher_places(batch.src, batch.tgt))
    h, f = shape.width, shape.ffn
    layer = rows * places * (2 * (4 * h * h + 2 * h * f) + 4 * places * h)
    last = rows * places * 4 * h * h + positions * (2 * (2 * h * h + 2 * h * f) + 4 * places * h)
    return float((shape.layers - 1) * layer + last + positions * 2 * (h * h + h * shape.vocabulary))


def student_forward(shape: StudentShape, batch: Batch) -> float:
    """FLOPs of a forward pass over a padded batch; only real target positions reach the vocabulary."""
    rows, s, t = len(batch.src), padded(batch.src + 1), padded(batch.tgt + 1)
    d, f = shape.width, shape.ffn
    encoder = rows * s * (2 * (4 * d * d + 2 * d * f) + 4 * s * d)
    decoder = rows * (t * (2 * (6 * d * d + 2 * d * f) + 4 * (t + s) * d) + s * 4 * d * d)
    output = 2 * d * shape.vocabulary * float(np.sum(batch.tgt + 1))
    return float(shape.encoder_layers * encoder + shape.decoder_layers * decoder + output)


def decoding(shape: StudentShape, batch: Batch, beam: int) -> float:
    """FLOPs of a beam search for the batch's sentences, without padding: the decoder and the output once a beam."""
    d, f = shape.width, shape.ffn
    s, t = batch.src + 1.0, batch.tgt + 1.0
    encoder = shape.encoder_layers * s * (2 * (4 * d * d + 2 * d * f) + 4 * s * d)
    crossed = shape.decoder_layers * s * 4 * d * d
    step = shape.decoder_layers * (2 * (6 * d * d + 2 * d * f) + 4 * d * (s + t / 2)) + 2 * d * shape.vocabulary
    return float(np.sum(encoder + crossed + beam * t * step))
