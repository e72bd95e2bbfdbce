"""Training batches of the student: padded inputs, the flat index of real targets, and the teacher's soft labels there.

Shapes: N sentence pairs, S and T padded source and target lengths, P real target positions (target tokens and one EOS a
pair, pairs one after another), k kept teacher entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bertkd_ray.core.padding import padded_length
from bertkd_ray.core.ragged import Ragged, flat_positions
from bertkd_ray.corpus.tokenizer import BOS_ID, EOS_ID, PAD_ID
from bertkd_ray.softlabels.shards import SoftLabels
from bertkd_ray.teacher.masking import with_eos
from bertkd_ray.training.prefetch import CollatedBatch


@dataclass(frozen=True)
class StudentBatch(CollatedBatch):
    """The tensors of one micro-batch; the three of the teacher are None for a batch without soft labels."""

    src_ids_NS: Tensor
    """int64: source tokens, `</s>`, padding"""
    src_mask_NS: Tensor
    """bool: True at source tokens and `</s>`"""
    src_index: Tensor
    """int64: positions of these in the flattened [N * S], rising"""
    decoder_input_ids_NT: Tensor
    """int64: `<s>`, target tokens, padding"""
    target_index_P: Tensor
    """int64: positions of the real targets in the flattened [N * T]"""
    targets_P: Tensor
    """int64: target tokens and `</s>` of each pair"""
    topk_ids_Pk: Tensor | None = None
    """int64; these three of several teachers [P, M, k], [P, M, k] and [P, M]"""
    topk_logits_Pk: Tensor | None = None
    """float32, raw teacher logits, sorted downwards"""
    logsumexp_P: Tensor | None = None
    """float32, of the teacher over its whole vocabulary"""

    monolingual_index: Tensor | None = None
    """int64: which of the P the teacher wrote for monolingual text; None where there are none"""
    parallel_index: Tensor | None = None
    """int64: which of the P the others are"""

    @property
    def count(self) -> int:
        """P, the number of target tokens the loss is summed over."""
        return len(self.targets_P)

    def take(self, positions_P: Tensor) -> "StudentBatch":
        """The batch with the targets, and their labels, at some of its positions (int64) alone."""
        of_targets = ("target_index_P", "targets_P", "topk_ids_Pk", "topk_logits_Pk", "logsumexp_P")
        kept: dict[str, Any] = {
            name: None if (all_P := getattr(self, name)) is None else all_P[positions_P] for name in of_targets
        }
        return replace(self, **kept)

    @property
    def padded_tokens(self) -> int:
        """Tokens of both sides, padding included."""
        return self.src_ids_NS.numel() + self.decoder_input_ids_NT.numel()


def collate(
    src: Ragged,
    tgt: Ragged,
    soft: SoftLabels | Sequence[SoftLabels] | None = None,
    *,
    topk: int | None = None,
    pad_to: int = 8,
) -> StudentBatch:
    """A batch from token rows without BOS and EOS.

    soft: the labels of the teacher, or of M teachers, for all P = Σ (target length + 1) positions; topk: use the first
    k columns (None: all).
    S and T are rounded up to a multiple of `pad_to`, so that few distinct shapes occur.
    Raises ValueError if the rows of src, tgt and soft do not belong together, or fewer than `topk` entries are stored.
    """
    if len(src) != len(tgt):
        raise ValueError(f"{len(src)} source rows but {len(tgt)} target rows")
    src_ids_NS, tgt_ids_NT = _padded(src, first=0, pad_to=pad_to), _padded(tgt, first=1, pad_to=pad_to)
    rows = np.arange(len(src), dtype=np.int64)
    src_ids_NS[rows, src.lengths] = EOS_ID
    tgt_ids_NT[:, 0] = BOS_ID
    targets = with_eos(tgt)
    return StudentBatch(
        torch.from_numpy(src_ids_NS),
        torch.from_numpy(np.arange(src_ids_NS.shape[1]) <= src.lengths[:, None]),
        torch.from_numpy(flat_positions(rows * src_ids_NS.shape[1], src.lengths + 1)),
        torch.from_numpy(tgt_ids_NT),
        torch.from_numpy(flat_positions(rows * tgt_ids_NT.shape[1], tgt.lengths + 1)),
        torch.from_numpy(targets),
        *_soft_tensors(soft, topk, len(targets)),
    )


def _padded(tokens: Ragged, *, first: int, pad_to: int) -> NDArray[np.int64]:
    """The rows in one common width with room for one more token, each beginning at column `first`."""
    width = padded_length(int(tokens.lengths.max()) + 1, pad_to)
    padded = np.full((len(tokens), width), PAD_ID, dtype=np.int64)
    starts = np.arange(len(tokens), dtype=np.int64) * width + first
    padded.reshape(-1)[flat_positions(starts, tokens.lengths)] = tokens.values
    return padded


def _soft_tensors(
    soft: SoftLabels | Sequence[SoftLabels] | None, topk: int | None, positions: int
) -> tuple[Tensor | None, ...]:
    if soft is None:
        return None, None, None
    if not isinstance(soft, SoftLabels):
        return tuple(
            map(partial(torch.stack, dim=1), zip(*(_tensors(of, topk, positions) for of in soft), strict=True))
        )
    return _tensors(soft, topk, positions)


def _tensors(soft: SoftLabels, topk: int | None, positions: int) -> tuple[Tensor, Tensor, Tensor]:
    labelled, stored = soft.topk_ids.shape
    if labelled != positions:
        raise ValueError(f"soft labels of {labelled} positions for {positions} positions")
    if topk is not None and not 1 <= topk <= stored:
        raise ValueError(f"topk {topk} asked for, but the soft labels hold {stored} entries a position")
    return (
        torch.from_numpy(soft.topk_ids[:, :topk].astype(np.int64)),
        torch.from_numpy(soft.topk_logits[:, :topk].astype(np.float32)),
        torch.from_numpy(soft.logsumexp.astype(np.float32)),
    )
