"""BERT's last layer for the masked positions alone: nothing else of it is ever read.

Of a layer's twelve H² products a token, keys and values (two) are needed for every token; queries, the attention's
output and the feed-forward part (ten) for those positions only, about one token in twelve. Of six layers that is a
seventh of all products, in training (backwards too) as in extraction.

Shapes: N rows, L padded tokens a row, M masked positions, Q the most of them in a row, H hidden size, h heads, d size
of a head.
"""

from typing import Any

import torch
from torch import Tensor


def slots_of(masked_index_M: Tensor, rows: int, length: int, most: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The masked positions laid out as Q slots a row: row_M, slot_M, and the columns of the input column_NQ.

    A free slot has column 0. masked_index_M: int64, positions in the flattened [N * L] array, rising. most: Q; None
    asks the device.
    """
    row_M = masked_index_M // length
    # Not `bincount`, which waits for a GPU to find the largest row.
    counts_N = row_M.new_zeros(rows).scatter_add_(0, row_M, torch.ones_like(row_M))
    starts_N = counts_N.cumsum(0) - counts_N
    slot_M = torch.arange(len(row_M), device=row_M.device) - starts_N[row_M]
    column_NQ = row_M.new_zeros(rows, most if most is not None else int(counts_N.max()) if rows else 0)
    column_NQ[row_M, slot_M] = masked_index_M % length
    return row_M, slot_M, column_NQ


def masked_positions(
    layer: Any, hidden_NLH: Tensor, mask: Tensor | None, masked_index_M: Tensor, most: int | None = None
) -> Tensor:
    """[M, H]: what `layer`, a BertLayer, gives at the masked positions, by plain attention.

    mask: as transformers makes it, [N, 1, 1 or L, L]: bool, True where a query may see a key, or a number to add to the
    score; None lets every token see every other. masked_index_M: int64, positions in the flattened [N * L] array,
    rising.
    most: Q where it is known, at least the masked positions of every row; a GPU is waited for to find it out.
    Dropout is the layer's, drawn for these positions alone. Not supported: cross-attention, relative positions.
    """
    attention = layer.attention.self
    key_NhLd, value_NhLd = (
        part(hidden_NLH).unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
        for part in (attention.key, attention.value)
    )
    hidden_MH = hidden_NLH.flatten(0, 1).index_select(0, masked_index_M)
    return layer_at(layer, hidden_MH, (key_NhLd, value_NhLd), mask, masked_index_M, most)


def layer_at(
    layer: Any,
    hidden_MH: Tensor,
    keys_values: tuple[Tensor, ...],
    mask: Tensor | None,
    masked_index_M: Tensor,
    most: int | None = None,
) -> Tensor:
    """`masked_positions` from the hidden states there, and all keys and values [N, h, L, d]."""
    attention, (key_NhLd, value_NhLd) = layer.attention.self, keys_values
    rows, _, length, _ = key_NhLd.shape
    row_M, slot_M, column_NQ = slots_of(masked_index_M, rows, length, most)
    query_MH = attention.query(hidden_MH)
    # Free slots have a query of zeros; what they attend to is dropped below.
    query_NQH = query_MH.new_zeros(*column_NQ.shape, query_MH.shape[1]).index_put((row_M, slot_M), query_MH)
    query_NhQd = query_NQH.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
    scores_NhQL = torch.matmul(query_NhQd, key_NhLd.transpose(2, 3)) * attention.scaling
    if mask is not None:
        scores_NhQL = _masked(scores_NhQL, mask, column_NQ)
    weights_NhQL = torch.softmax(scores_NhQL, dim=-1, dtype=torch.float32).to(value_NhLd.dtype)
    context_NhQd = torch.matmul(attention.dropout(weights_NhQL), value_NhLd)
    context_MH = context_NhQd.transpose(1, 2).flatten(2)[row_M, slot_M]
    attended_MH = layer.attention.output(context_MH, hidden_MH)
    output_MH: Tensor = layer.output(layer.intermediate(attended_MH), attended_MH)
    return output_MH


def _masked(scores_NhQL: Tensor, mask: Tensor, column_NQ: Tensor) -> Tensor:
    if mask.shape[2] > 1:
        row_N1 = torch.arange(len(column_NQ), device=mask.device)[:, None]
        mask = mask.expand(len(column_NQ), -1, -1, -1)[row_N1, 0, column_NQ][:, None]
    if mask.dtype == torch.bool:
        return scores_NhQL.masked_fill(~mask, torch.finfo(scores_NhQL.dtype).min)
    return scores_NhQL + mask
