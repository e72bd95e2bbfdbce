"""The batches that stages will make of a corpus, from the lengths of a sample and the batch plan itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertkd_ray.config import Config
from bertkd_ray.config.sections import Direction, StudentConfig, TeacherConfig
from bertkd_ray.core.keyed_random import keyed_permutation
from bertkd_ray.core.padding import longest_first_batches, packed_rows, padded_length
from bertkd_ray.corpus.sampling import SplitShape
from bertkd_ray.plan import operations
from bertkd_ray.plan.operations import StudentSize, TeacherSize
from bertkd_ray.teacher.masking import input_lengths
from bertkd_ray.training.batch_plan import (
    PASS_TOKENS,
    MicroBatch,
    RowLengths,
    StreamPosition,
    forward_passes,
    shuffled_batches,
)

_SAMPLED_PAIRS = 1 << 14
"""Pairs that are cut into batches, in whole windows or fragments."""

TokenCounts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BatchLengths:
    """The rows of one batch: source and target lengths in tokens, int64[n] each, without special tokens."""

    src: TokenCounts
    tgt: TokenCounts
    multiple: int
    """The sides are padded to a multiple of so many tokens."""

    def padded(self, lengths: TokenCounts) -> int:
        """The padded length of a side with these lengths."""
        return padded_length(int(lengths.max(initial=0)), self.multiple)

    def tokens(self, direction: Direction | None) -> int:
        """Tokens of a teacher's batch, or of both sides of a student's (None), special ones included, padding not."""
        return sum(int(side.sum()) for side in self._sides(direction))

    def padded_tokens(self, direction: Direction | None) -> int:
        """Tokens of the padded sides, special ones and padding included."""
        return len(self.src) * sum(map(self.padded, self._sides(direction)))

    def counted(self, direction: Direction | None) -> TokenCounts:
        """What a training's budget counts of each row: a student's counts the longer side with its end of sentence."""
        return input_lengths(self.src, self.tgt, direction) if direction else np.maximum(self.src, self.tgt) + 1

    def _sides(self, direction: Direction | None) -> list[TokenCounts]:
        return [input_lengths(self.src, self.tgt, direction)] if direction else [self.src + 1, self.tgt + 1]

    def teacher_flops(self, size: TeacherSize, direction: Direction, positions: float) -> float:
        """Operations of a forward pass with so many masked positions, evenly over the rows; padding included."""
        lengths, rows = input_lengths(self.src, self.tgt, direction), len(self.src)
        masked = np.full(rows, positions / rows)
        return operations.teacher_forward(size, lengths, self.padded(lengths), masked).computed

    def student_flops(self, size: StudentSize) -> float:
        """Operations of a forward pass, padding included."""
        src, tgt = self.src + 1, self.tgt + 1
        rows = packed_rows(int(src.sum())), packed_rows(int(tgt.sum()))
        return operations.student_forward(size, src, tgt, self.padded(src), self.padded(tgt), rows=rows).computed


@dataclass(frozen=True, eq=False)
class SampledBatches:
    """Some of a stage's batches, which stand for all of them."""

    batches: Sequence[BatchLengths]
    per_pass: float
    """Batches in which every pair (in extract: every pass of every pair) stands once."""
    direction: Direction | None
    """Direction of the teacher, whose rows are both sides in one sequence; None for a student's batches."""

    def mean(self, figure: Callable[[BatchLengths], float]) -> float:
        """The mean of a figure over the batches."""
        return float(np.mean([figure(batch) for batch in self.batches])) if self.batches else 0.0

    def gpu_passes(self, micro_batches: int) -> float:
        """The mean forward passes of so many micro-batches of a training on one GPU, which joins small ones."""
        micros = [
            MicroBatch(0, 0, pa.table({"tokens": batch.counted(self.direction)}), StreamPosition(0, 0))
            for batch in self.batches
        ]
        together = (micros[start : start + micro_batches] for start in range(0, len(micros), micro_batches))
        passes = sum(len(forward_passes(part, _lengths, PASS_TOKENS["cuda"])) for part in together)
        return micro_batches * passes / max(1, len(micros))

    @property
    def tokens(self) -> float:
        """The mean tokens of a batch, padding not included."""
        return self.mean(lambda batch: batch.tokens(self.direction))

    @property
    def padding(self) -> float:
        """The share of the computed tokens that is padding."""
        real = sum(batch.tokens(self.direction) for batch in self.batches)
        return 1 - real / sum(batch.padded_tokens(self.direction) for batch in self.batches)


def full_groups(pairs: int, fragment_pairs: int, group_pairs: int) -> NDArray[np.int64]:
    """int64[G]: rows of the row groups of a split of so many pairs, in fragments of full size but the last."""
    fragment = np.diff([*range(0, fragment_pairs, group_pairs), fragment_pairs])
    whole, rest = divmod(pairs, fragment_pairs)
    last = np.diff([*range(0, rest, group_pairs), rest]) if rest else np.zeros(0, np.int64)
    return np.concatenate([np.tile(fragment, whole), last]).astype(np.int64)


def training_batches(
    split: SplitShape, windows: int, settings: TeacherConfig | StudentConfig, *, seed: int, multiple: int
) -> SampledBatches:
    """Micro-batches of a training stage: windows as large as the plan's, cut as the streams cut theirs.

    windows: of an epoch. multiple: what sides are padded to.
    """
    rows = max(1, min(len(split.src), round(split.pairs / windows)))
    budget = settings.batch_tokens // settings.micro_batches
    direction = settings.direction if isinstance(settings, TeacherConfig) else None
    sampled, batches = _sampled(keyed_permutation(len(split.src), seed, 0), rows), []
    for window, pairs in enumerate(sampled):
        src, tgt = split.src[pairs], split.tgt[pairs]
        counted = BatchLengths(src, tgt, multiple).counted(direction)
        for index in shuffled_batches(counted if direction else src + tgt, counted, budget, seed, window):
            batches.append(BatchLengths(src[index], tgt[index], multiple))
    return SampledBatches(batches, len(batches) * split.pairs / (len(sampled) * rows), direction)


def extraction_batches(split: SplitShape, config: Config, multiple: int) -> SampledBatches:
    """Batches of the teacher's pass over the corpus: a fragment's pairs, each as often as it is seen."""
    rows, direction = min(config.corpus.fragment_pairs, len(split.src)), config.teacher.direction
    sampled, batches = _sampled(keyed_permutation(len(split.src), 0), rows), []
    for pairs in sampled:
        seen = np.minimum(config.extract_passes(), split.tgt[pairs] + 1)
        src, tgt = np.repeat(split.src[pairs], seen), np.repeat(split.tgt[pairs], seen)
        for index in longest_first_batches(input_lengths(src, tgt, direction), config.extract.forward_tokens, multiple):
            batches.append(BatchLengths(src[index], tgt[index], multiple))
    return SampledBatches(batches, len(batches) * split.pairs / (len(sampled) * rows), direction)


def _lengths(rows: pa.Table) -> RowLengths:
    tokens = rows["tokens"].to_numpy()
    return RowLengths(sort=tokens, tokens=tokens)


def _sampled(order: NDArray[np.int64], rows: int) -> list[NDArray[np.int64]]:
    """The first windows or fragments of so many rows each, one at least."""
    count = max(1, min(len(order), _SAMPLED_PAIRS) // rows)
    return np.split(order[: count * rows], count)
