"""The batches that stages will make of a corpus, from the lengths of a sample and the batch plan itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.core.keyed_random import keyed_permutation
from bertkd_ray.corpus.sampling import SplitShape
from bertkd_ray.softlabels.scoring import row_batches
from bertkd_ray.teacher.masking import SPECIAL_TOKENS_PER_PAIR
from bertkd_ray.training.batch_plan import Plan, length_batches

_SAMPLED_PAIRS = 1 << 14
"""Pairs that are cut into batches, in whole windows or fragments."""

Lengths = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows of one batch: source and target lengths in tokens, int64[n] each, without special tokens."""

    src: Lengths
    tgt: Lengths
    multiple: int
    """The lengths of its sides are padded to a multiple of so many places."""

    def padded(self, lengths: Lengths) -> int:
        """The padded length of a side with these lengths."""
        return -(-int(lengths.max(initial=0)) // self.multiple) * self.multiple


@dataclass(frozen=True, eq=False)
class Batches:
    """Some of a stage's batches, which stand for all of them."""

    some: Sequence[Batch]
    a_pass: float
    """Batches in which every pair (in extract: every pass of every pair) stands once."""

    def mean(self, values: Sequence[float]) -> float:
        """The mean of a figure over the batches that are here."""
        return float(np.mean(values)) if len(values) else 0.0

    def padding(self, places: Callable[[Lengths, Lengths], Lengths], padded_places: Callable[[Batch], int]) -> float:
        """The share of the places that is padding."""
        real = sum(int(places(one.src, one.tgt).sum()) for one in self.some)
        return 1 - real / sum(padded_places(one) for one in self.some)


def full_groups(pairs: int, fragment_pairs: int, group_pairs: int) -> NDArray[np.int64]:
    """int64[G]: rows of the row groups of a split of so many pairs, in fragments of full size but the last."""
    fragment = np.diff([*range(0, fragment_pairs, group_pairs), fragment_pairs])
    whole, rest = divmod(pairs, fragment_pairs)
    last = np.diff([*range(0, rest, group_pairs), rest]) if rest else np.zeros(0, np.int64)
    return np.concatenate([np.tile(fragment, whole), last]).astype(np.int64)


def teacher_places(src: Lengths, tgt: Lengths) -> Lengths:
    """Places of `[CLS] src [SEP] tgt [SEP]`."""
    return src + tgt + SPECIAL_TOKENS_PER_PAIR


def student_places(src: Lengths, tgt: Lengths) -> Lengths:
    """Tokens that the longer side takes with its end of sentence: what a budget counts."""
    return np.maximum(src, tgt) + 1


def training_batches(
    split: SplitShape,
    groups: NDArray[np.int64],
    *,
    budget: int,
    streams: int,
    seed: int,
    of_teacher: bool,
    multiple: int,
) -> Batches:
    """Micro-batches of a training stage: windows as large as the plan's, cut as the streams cut theirs.

    groups: rows of the row groups. budget: padded places a micro-batch. multiple: what sides are padded to.
    """
    windows = Plan(groups, streams, seed).windows_per_epoch
    rows = max(1, min(len(split.src), round(split.pairs / windows)))
    batches: list[Batch] = []
    made = max(1, min(len(split.src), _SAMPLED_PAIRS) // rows)
    order = keyed_permutation(len(split.src), seed, 0)
    for window in range(made):
        chosen = order[window * rows : (window + 1) * rows]
        src, tgt = split.src[chosen], split.tgt[chosen]
        counted = teacher_places(src, tgt) if of_teacher else student_places(src, tgt)
        found = length_batches(counted if of_teacher else src + tgt, counted, budget, seed, window)
        batches += [Batch(src[index], tgt[index], multiple) for index in found]
    return Batches(batches, len(batches) * split.pairs / (made * rows))


def extraction_batches(split: SplitShape, *, fragment_pairs: int, passes: int, budget: int, multiple: int) -> Batches:
    """Batches of the teacher's pass over the corpus: a fragment's pairs, each as often as it is seen."""
    rows = min(fragment_pairs, len(split.src))
    order = keyed_permutation(len(split.src), 0)
    fragments = max(1, min(len(order), _SAMPLED_PAIRS) // rows)
    batches: list[Batch] = []
    for fragment in range(fragments):
        chosen = order[fragment * rows : (fragment + 1) * rows]
        seen = np.minimum(passes, split.tgt[chosen] + 1)
        src, tgt = np.repeat(split.src[chosen], seen), np.repeat(split.tgt[chosen], seen)
        places = teacher_places(src, tgt)
        falling = np.argsort(-places, kind="stable")
        found = row_batches(places[falling], budget, multiple)
        batches += [Batch(src[falling[index]], tgt[falling[index]], multiple) for index in found]
    return Batches(batches, len(batches) * split.pairs / (fragments * rows))


def both_sides(src: Lengths, tgt: Lengths) -> Lengths:
    """Tokens of both sides, each with its end of sentence."""
    return src + tgt + 2


def teacher_padded(batch: Batch) -> int:
    """Places of a teacher's batch."""
    return len(batch.src) * batch.padded(teacher_places(batch.src, batch.tgt))


def both_padded(batch: Batch) -> int:
    """Places of a student's batch, both sides."""
    return len(batch.src) * (batch.padded(batch.src + 1) + batch.padded(batch.tgt + 1))
