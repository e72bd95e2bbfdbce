"""Hidden states without padding, [R, D]; attention alone sees them as padded sequences.

R is the number of tokens and at least one row more, which stands for padding, rounded up: kernels are made for few
shapes. Rows behind the tokens hold anything finite and have a gradient of exactly 0, since nothing that is read depends
on them.

Shapes: N sequences of at most L tokens, P tokens in all, h heads of d numbers, D = h · d, c vectors of D numbers a
token (query, key, value).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from bertkd_ray.core.padding import packed_rows


class Packing:
    """Where the tokens of padded sequences stand among rows of hidden states."""

    def __init__(self, index_P: Tensor, sequences: int, length: int, heads: int) -> None:
        """index_P: int64, rising: positions of the tokens in the flattened [N * L] array."""
        self.tokens, self.rows, self.length = len(index_P), packed_rows(len(index_P)), length
        self._shape = heads, sequences, length
        self.column_P = index_P % length
        """int64: where a token stands in its sequence, counted from 0."""
        self._sequence_P = index_P // length
        row_NL = torch.full((sequences * length,), self.tokens, device=index_P.device)
        self._row_NL = row_NL.scatter_(0, index_P, torch.arange(self.tokens, device=index_P.device))
        self._indices: dict[int, tuple[Tensor, Tensor]] = {}

    def rows_at(self, index_M: Tensor) -> Tensor:
        """int64[M]: the rows of tokens at such positions in the flattened [N * L] array."""
        return self._row_NL.index_select(0, index_M)

    def filled(self, values_P: Tensor) -> Tensor:
        """[R]: a number of each token, then zeros."""
        return torch.cat([values_P, values_P.new_zeros(self.rows - self.tokens)])

    def padded(self, rows_RE: Tensor, vectors: int) -> tuple[Tensor, ...]:
        """c tensors [N, h, L, d] of [R, c * D]."""
        heads, sequences, length = self._shape
        states = rows_RE.reshape(self.rows * vectors * heads, -1)
        padded: Tensor = _Padded.apply(states, *self._index(vectors))  # type: ignore[no-untyped-call]
        return padded.view(vectors, sequences, heads, length, -1).unbind(0)

    def packed(self, states_NhLd: Tensor) -> Tensor:
        """[R, D] of [N, h, L, d]."""
        states = states_NhLd.reshape(-1, states_NhLd.shape[-1])
        rows: Tensor = _Packed.apply(states, *self._index(1), self.rows * self._shape[0])  # type: ignore[no-untyped-call]
        return rows.view(self.rows, -1)

    def _index(self, vectors: int) -> tuple[Tensor, Tensor]:
        """Of [R, c, h] rows: the positions of the tokens' in [c, N, h, L], and for each of those its row."""
        if vectors not in self._indices:
            (heads, sequences, length), device = self._shape, self._row_NL.device
            vector_c, head_h = torch.arange(vectors, device=device), torch.arange(heads, device=device)
            sequence_Pc = self._sequence_P[:, None] + vector_c * sequences
            position = (sequence_Pc[..., None] * heads + head_h) * length + self.column_P[:, None, None]
            row_cNL = self._row_NL.view(sequences, 1, length) * vectors + vector_c[:, None, None, None]
            self._indices[vectors] = position.flatten(), (row_cNL * heads + head_h[:, None]).flatten()
        return self._indices[vectors]


def projected(hidden_RD: Tensor, *parts: Any) -> Tensor:
    """[R, c * D]: what c linear layers give, in one product."""
    weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
    return functional.linear(hidden_RD, weight, bias)


def attended(attention: Any, states: tuple[Tensor, ...], mask: Tensor | None, share: float) -> Tensor:
    """[N, h, T, d] of query [N, h, T, d], key and value [N, h, S, d], as transformers' module computes it.

    mask: a number to add to every score; for fused attention also bool, True where a query may see a key. None lets
    every token see every other. share: of weights that are dropped.
    """
    query_NhTd, key_NhSd, value_NhSd = states
    if attention.config._attn_implementation == "sdpa":
        return functional.scaled_dot_product_attention(query_NhTd, key_NhSd, value_NhSd, mask, dropout_p=share)
    scores_NhTS = torch.matmul(query_NhTd, key_NhSd.transpose(2, 3)) * attention.scaling
    if mask is not None:
        scores_NhTS = scores_NhTS + mask
    weights_NhTS = functional.dropout(functional.softmax(scores_NhTS, dim=-1), share)
    return torch.matmul(weights_NhTS, value_NhSd)


class _Padded(torch.autograd.Function):
    """A selection whose gradient is one too, of the tokens' positions: at padding it is 0, and not read."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, position: Tensor, row: Tensor) -> Tensor:
        ctx.save_for_backward(position)
        ctx.rows = len(rows)
        return rows.index_select(0, row)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _selected(gradient, ctx.saved_tensors[0], ctx.rows), None, None


class _Packed(torch.autograd.Function):
    """The opposite; the gradient of padding is that of the row behind the tokens, which is 0."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, position: Tensor, row: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(row)
        return _selected(states, position, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient.index_select(0, ctx.saved_tensors[0]), None, None, None


def _selected(states: Tensor, position: Tensor, rows: int) -> Tensor:
    """The states at positions, then zeros."""
    selected = states.new_empty(rows, states.shape[1])
    torch.index_select(states, 0, position, out=selected[: len(position)])
    selected[len(position) :].zero_()
    return selected
