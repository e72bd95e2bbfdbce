"""Attention in which the beams of a sentence read its source's keys and values from one place.

`transformers` repeats the keys of every source for each of its beams, which then read the same numbers again. Here
queries may have a whole multiple of the keys' batch: those that belong to one sentence become the positions of one
query. Shapes: N rows of keys, R = N * B of queries (sentence-major), H heads, T and S positions, D width of a head.

Not supported: dropout, and fewer heads of keys than of queries.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

_NAME = "bertkd_shared_keys"


def shared_keys_attention(
    module: nn.Module,
    query_RHTD: Tensor,
    key_NHSD: Tensor,
    value_NHSD: Tensor,
    mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention; [R, T, H, D] and no weights, as `transformers` wants it.

    mask: bool, True where a position is seen, that broadcasts to [N, H, T, S]; T is 1 where R is not N.
    """
    rows, heads, positions, width = query_RHTD.shape
    sentences = len(key_NHSD)
    query = query_RHTD.view(sentences, -1, heads, width).transpose(1, 2) if rows != sentences else query_RHTD
    scores = torch.matmul(query * scaling, key_NHSD.transpose(2, 3))
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    mixed = torch.matmul(torch.softmax(scores, dim=-1, dtype=torch.float32).to(value_NHSD.dtype), value_NHSD)
    return mixed.transpose(1, 2).reshape(rows, positions, heads, width), None


AttentionInterface.register(_NAME, shared_keys_attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def shared_keys(model: PreTrainedModel) -> Iterator[None]:
    """The model attends so within the block, and as before after it."""
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
