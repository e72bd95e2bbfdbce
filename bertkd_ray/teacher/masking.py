"""The masks of the target positions that the teacher predicts, and the tensors BERT reads for them.

A pair of S source and T target tokens has T + 1 positions: the target tokens and the end of the sentence, which in
`[CLS] src [SEP] tgt [SEP]` is the final `[SEP]`. A masked position becomes `[MASK]`, always; no source token does.
Everything here is flat index arithmetic on numpy arrays: no Python object per token or per pair.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.config.sections import Direction
from bertkd_ray.core.keyed_random import keyed_bits, keyed_uniform
from bertkd_ray.core.padding import padded_length
from bertkd_ray.core.ragged import Ragged, flat_positions, offsets_of
from bertkd_ray.corpus.tokenizer import EOS_ID

SPECIAL_TOKENS_PER_PAIR = 3
"""`[CLS]`, `[SEP]` and the final `[SEP]`: a pair of S and T tokens takes S + T + 3 positions of the teacher. A
left-to-right one needs no final `[SEP]`, but what fits does not depend on the direction."""


class BertSpecials(NamedTuple):
    """BERT's own ids of `[PAD]`, `[CLS]`, `[SEP]` and `[MASK]`."""

    pad: int
    cls: int
    sep: int
    mask: int


@dataclass(frozen=True)
class CMLMBatch:
    """One teacher batch of N rows padded to L tokens, with M masked positions; from left to right, M that predict.

    input_ids: int64[N, L], BERT ids.
    token_type_ids: int64[N, L], 0 for `[CLS] src [SEP]` and padding, 1 for what follows.
    attention_mask: bool[N, L], False on padding; or bool[N, L, L], True where a token (row) sees another (column).
    masked_index: int64[M], positions in the flattened [N * L] array, rising.
    labels: int64[M], the student's token ids (not BERT's) to predict; `EOS_ID` at the end of the sentence.
    """

    input_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    masked_index: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def most(self) -> int:
        """Masked positions of the row that has most of them."""
        return int(np.bincount(self.masked_index // self.input_ids.shape[1]).max(initial=0))


def input_lengths(
    src_lengths: NDArray[np.int64], tgt_lengths: NDArray[np.int64], direction: Direction
) -> NDArray[np.int64]:
    """int64[n]: tokens of the teacher's input that pairs of S and T tokens take, by the teacher's direction.

    S + T + 3; from left to right S + T + 2 (`prefix_lm`).
    """
    return src_lengths + tgt_lengths + (SPECIAL_TOKENS_PER_PAIR if direction == "both" else 2)


def random_masks(
    ids: NDArray[np.int64], lengths: NDArray[np.int64], *, seed: int, epoch: int, probability: float
) -> NDArray[np.bool_]:
    """Mask every position with `probability`, independently, given that each row has at least one.

    ids: int64[n], the pairs' ids; lengths: int64[n], T + 1 of each. Returns bool[sum of lengths], row after row.
    A row's mask depends on (seed, epoch, id) alone, not on its company or order. A row that drew nothing is drawn again
    from the start. (The original draws again on the half-converted row, which leaves a stray `[SEP]` in it.)

    Raises ValueError when the probability is outside (0, 1] or a row has no position.
    """
    if not 0.0 < probability <= 1.0:
        raise ValueError(f"the masking probability must be in (0, 1], not {probability}")
    if np.any(lengths < 1):
        raise ValueError("every row needs at least one position: lengths are target tokens plus one")
    offsets = offsets_of(lengths)
    mask = np.zeros(int(offsets[-1]), dtype=np.bool_)
    empty = np.arange(len(lengths))
    attempt = 0
    while len(empty):
        row_keys = keyed_bits(seed, epoch, ids[empty], attempt).view(np.int64)
        positions = flat_positions(np.zeros(len(empty), np.int64), lengths[empty])
        drawn = keyed_uniform(np.repeat(row_keys, lengths[empty]), positions) < probability
        mask[flat_positions(offsets[empty], lengths[empty])] = drawn
        empty = empty[~np.logical_or.reduceat(drawn, offsets_of(lengths[empty])[:-1])]
        attempt += 1
    return mask


def expand_passes(lengths: NDArray[np.int64], passes: int = 7) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The strided masks under which rows are seen, min(passes, T + 1) of each, the passes of a row next to each other.

    Pass j masks positions j, j + passes, j + 2 · passes, …, so that each position is masked in exactly one pass.

    lengths: int64[n], T + 1 of each row. Returns row_of_pass int64[R], the row each pass belongs to, and the masks of
    all passes one after another, bool[sum over passes of the row's length].
    """
    passes_of_row = np.minimum(lengths, passes)
    row_of_pass = np.repeat(np.arange(len(lengths), dtype=np.int64), passes_of_row)
    pass_in_row = flat_positions(np.zeros(len(lengths), np.int64), passes_of_row)
    pass_lengths = lengths[row_of_pass]
    positions = flat_positions(np.zeros(len(row_of_pass), np.int64), pass_lengths)
    return row_of_pass, positions % passes == np.repeat(pass_in_row, pass_lengths)


def with_eos(tgt: Ragged) -> NDArray[np.int64]:
    """int64[sum of (T + 1)]: every row's target tokens and then `EOS_ID`, rows one after another."""
    lengths = tgt.lengths
    tokens = np.full(len(tgt.values) + len(tgt), EOS_ID, dtype=np.int64)
    tokens[flat_positions(offsets_of(lengths + 1)[:-1], lengths)] = tgt.values
    return tokens


def cmlm_batch(
    src: Ragged,
    tgt: Ragged,
    mask: NDArray[np.bool_],
    bert_ids: NDArray[np.integer],
    specials: BertSpecials,
    pad_to: int = 8,
) -> CMLMBatch:
    """Lay the pairs out as `[CLS] src [SEP] tgt [SEP]` with the masked positions replaced by `[MASK]`.

    src, tgt: N rows of the student's token ids without BOS and EOS; mask: bool[sum of (T + 1)], the last position of
    each row is the final `[SEP]`; bert_ids: integers [V], the BERT id behind each token. L is the longest row rounded
    up to a multiple of `pad_to`. Nothing is truncated: pairs that are too long for the model are left out when the
    corpus is prepared.
    """
    rows = len(src)
    src_lengths, positions = src.lengths, tgt.lengths + 1
    lengths = src_lengths + positions + 2
    width = padded_length(int(lengths.max(initial=0)), pad_to)
    starts = np.arange(rows, dtype=np.int64) * width
    target_at = flat_positions(starts + src_lengths + 2, positions)

    labels = with_eos(tgt)
    target_inputs = bert_ids[labels]
    target_inputs[np.cumsum(positions) - 1] = specials.sep
    target_inputs[mask] = specials.mask

    input_ids = np.full(rows * width, specials.pad, dtype=np.int64)
    input_ids[starts] = specials.cls
    input_ids[flat_positions(starts + 1, src_lengths)] = bert_ids[src.values]
    input_ids[starts + src_lengths + 1] = specials.sep
    input_ids[target_at] = target_inputs
    token_type_ids = np.zeros(rows * width, dtype=np.int64)
    token_type_ids[target_at] = 1
    return CMLMBatch(
        input_ids=input_ids.reshape(rows, width),
        token_type_ids=token_type_ids.reshape(rows, width),
        attention_mask=np.arange(width) < lengths[:, None],
        masked_index=target_at[mask],
        labels=labels[mask],
    )
