"""Extraction without padding: hidden states of real tokens alone, which attention of variable length alone divides.

Shapes: P real tokens of N rows, M masked positions, H hidden size, h heads, d size of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bertkd_ray.core.ragged import Ragged, offsets_of
from bertkd_ray.softlabels.scoring import Scorer, topk_scores
from bertkd_ray.teacher.gpu_inference import GpuEncoder
from bertkd_ray.teacher.masking import cmlm_batch


class Sequences:
    """Where sequences begin among rows, as attention kernels ask for it."""

    def __init__(self, lengths: NDArray[np.int64], to_device: Callable[[NDArray[Any]], Tensor]) -> None:
        self.lengths, self.longest = lengths.tolist(), int(lengths.max())
        self.starts = to_device(offsets_of(lengths).astype(np.int32))


def attend(query_MHd: Tensor, key_PHd: Tensor, value_PHd: Tensor, queries: Sequences, keys: Sequences) -> Tensor:
    """[M, h, d]: each sequence of queries attends to the sequence of keys of the same number; on a CPU one by one."""
    if query_MHd.device.type == "cuda":
        from torch.nn.attention.varlen import varlen_attn

        attended: Any = varlen_attn(
            query_MHd, key_PHd, value_PHd, queries.starts, keys.starts, queries.longest, keys.longest
        )
        return attended  # type: ignore[no-any-return]
    parts = zip(
        query_MHd.split(queries.lengths), key_PHd.split(keys.lengths), value_PHd.split(keys.lengths), strict=True
    )
    return torch.cat([_attended(*(states.transpose(0, 1) for states in part)).transpose(0, 1) for part in parts])


def _attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value)


def before_attention(hidden_PH: Tensor, weight: Tensor, bias: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Query, key and value of a layer, [P, h, d] each."""
    return functional.linear(hidden_PH, weight, bias).view(len(hidden_PH), 3, heads, -1).unbind(1)


def after_attention(
    hidden_PH: Tensor, context_PH: Tensor, weights: list[Tensor], activation: Any, epsilon: float
) -> Tensor:
    """The rest of a layer."""
    project, project_b, norm, norm_b, widen, widen_b, narrow, narrow_b, last, last_b = weights
    width = (hidden_PH.shape[-1],)
    hidden_PH = hidden_PH + functional.linear(context_PH, project, project_b)
    hidden_PH = functional.layer_norm(hidden_PH, width, norm, norm_b, epsilon)
    inner = activation(functional.linear(hidden_PH, widen, widen_b))
    hidden_PH = hidden_PH + functional.linear(inner, narrow, narrow_b)
    return functional.layer_norm(hidden_PH, width, last, last_b, epsilon)


class VariableLengthScorer(Scorer):
    """A scorer of a bidirectional teacher in bf16; `encoder` has to be there, and its layers' copies are what is used.

    before, after: what a layer does before and after attention, which may be compiled.
    """

    before: Callable[..., tuple[Tensor, ...]] = staticmethod(before_attention)
    after: Callable[..., Tensor] = staticmethod(after_attention)

    def _score_batch(self, src: Ragged, tgt: Ragged, mask: NDArray[np.bool_]) -> tuple[Tensor, Tensor, Tensor]:
        batch = cmlm_batch(src, tgt, mask, self.bert_ids, self.specials, 1)
        rows, width = batch.input_ids.shape
        real = np.flatnonzero(batch.attention_mask)
        packed_index = np.cumsum(batch.attention_mask.ravel()) - 1
        masked = np.bincount(batch.masked_index // width, minlength=rows)
        flat = (batch.input_ids.ravel()[real], batch.token_type_ids.ravel()[real], real % width)
        hidden_MH = self._encode(
            [self._to_device(part[None]) for part in flat],
            self._to_device(packed_index[batch.masked_index]),
            Sequences(batch.attention_mask.sum(axis=1), self._to_device),
            Sequences(masked, self._to_device),
        )
        output = self.model.output
        return topk_scores(hidden_MH, output.weight, output.bias, self.topk, precision=self.precision)

    def _encode(self, inputs: list[Tensor], masked_M: Tensor, rows: Sequences, masked_rows: Sequences) -> Tensor:
        """bf16[M, H]."""
        encoder: Any = self.encoder
        assert isinstance(encoder, GpuEncoder)
        model: Any = self.model
        heads, epsilon = encoder._heads, float(model.config.layer_norm_eps)
        activation = encoder._last.intermediate.intermediate_act_fn
        ids, types, positions = inputs
        embedded = encoder._embeddings(input_ids=ids, token_type_ids=types, position_ids=positions)
        hidden_PH: Tensor = embedded[0].bfloat16()
        for weight, bias, *others in encoder._layers:
            context = attend(*self.before(hidden_PH, weight, bias, heads), rows, rows)
            hidden_PH = self.after(hidden_PH, context.flatten(1), others, activation, epsilon)
        last = encoder._last
        attention = last.attention.self
        hidden_MH = hidden_PH.index_select(0, masked_M)
        query, key, value = (
            layer(hidden).unflatten(-1, (heads, -1))
            for layer, hidden in (
                (attention.query, hidden_MH),
                (attention.key, hidden_PH),
                (attention.value, hidden_PH),
            )
        )
        context = attend(query, key, value, masked_rows, rows).flatten(1)
        attended_MH = last.attention.output(context, hidden_MH)
        states: Tensor = encoder._transform(last.output(last.intermediate(attended_MH), attended_MH))
        return states
