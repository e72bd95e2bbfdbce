"""A teacher's forward pass on GPUs, whose time beside the matrix products goes into moving hidden states.

Under autocast hidden states are float32 between the layers, are cast for queries, keys and values each, and every
weight is cast at every batch. Here weights are cast once, hidden states are bf16 from layer to layer (LayerNorm and
softmax compute in float32 inside), and queries, keys and values are one product: less than half of the bytes. What the
process knows of a batch (whether there is padding, how many positions a row has masked) is an argument, so that nothing
waits for the device.

Shapes: N rows, L padded tokens a row, M masked positions, H hidden size, h heads, d size of a head.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bertkd_ray.teacher.last_layer import masked_positions
from bertkd_ray.teacher.model import ConditionalMaskedLM


class GpuEncoder:
    """Computes what a `ConditionalMaskedLM` in evaluation mode computes; holds a bf16 copy of its layers.

    Not supported: gradients.
    """

    def __init__(self, model: ConditionalMaskedLM) -> None:
        layers: list[Any] = list(model.bert.encoder.layer)
        last = layers.pop()
        self._embeddings = model.bert.embeddings
        self._layers = [_cast(layer) for layer in layers]
        self._last, self._transform = (deepcopy(part).eval().bfloat16() for part in (last, model.transform))
        self._heads = int(model.config.num_attention_heads)
        activation = last.intermediate.intermediate_act_fn
        epsilon = float(model.config.layer_norm_eps)

        def layer(hidden_NLH: Tensor, bias: Tensor | None, weights: list[Tensor]) -> Tensor:
            return _bert_layer(hidden_NLH, bias, weights, self._heads, activation, epsilon)

        self._compute_layer: Callable[..., Tensor] = layer

    @torch.no_grad()
    def __call__(
        self,
        input_ids_NL: Tensor,
        token_type_ids_NL: Tensor,
        attention_mask: Tensor | None,
        masked_index_M: Tensor,
        most: int | None = None,
    ) -> Tensor:
        """bf16[M, H], arguments as of the model's `forward`.

        attention_mask: None for a batch without padding. most: masked positions of the row that has most of them.
        """
        hidden_NLH = self._embeddings(input_ids=input_ids_NL, token_type_ids=token_type_ids_NL).bfloat16()
        bias = None
        if attention_mask is not None:
            bias = torch.zeros_like(attention_mask, dtype=torch.bfloat16)
            bias.masked_fill_(~attention_mask, torch.finfo(torch.bfloat16).min)
            bias = bias[:, None] if attention_mask.dim() == 3 else bias[:, None, None]
        for weights in self._layers:
            hidden_NLH = self._compute_layer(hidden_NLH, bias, weights)
        hidden_MH: Tensor = self._transform(masked_positions(self._last, hidden_NLH, bias, masked_index_M, most))
        return hidden_MH


def _bert_layer(
    hidden_NLH: Tensor, bias: Tensor | None, weights: list[Tensor], heads: int, activation: Any, epsilon: float
) -> Tensor:
    """One layer; bias: [N, 1, 1 or L, L], added to attention scores."""
    attend, attend_b, project, project_b, norm, norm_b, widen, widen_b, narrow, narrow_b, last, last_b = weights
    rows, length, width = hidden_NLH.shape
    projected = functional.linear(hidden_NLH, attend, attend_b).view(rows, length, 3, heads, width // heads)
    query_NhLd, key_NhLd, value_NhLd = projected.permute(2, 0, 3, 1, 4)
    mask = None if bias is None else bias.expand(rows, heads, length, length)
    context_NhLd = functional.scaled_dot_product_attention(query_NhLd, key_NhLd, value_NhLd, attn_mask=mask)
    context_NLH = context_NhLd.transpose(1, 2).reshape(rows, length, width)
    hidden_NLH = hidden_NLH + functional.linear(context_NLH, project, project_b)
    hidden_NLH = functional.layer_norm(hidden_NLH, (width,), norm, norm_b, epsilon)
    inner = activation(functional.linear(hidden_NLH, widen, widen_b))
    hidden_NLH = hidden_NLH + functional.linear(inner, narrow, narrow_b)
    return functional.layer_norm(hidden_NLH, (width,), last, last_b, epsilon)


def _cast(layer: Any) -> list[Tensor]:
    """The weights of a layer, in the order in which they are used."""
    attention, attended, output = layer.attention.self, layer.attention.output, layer.output
    projections = (attention.query, attention.key, attention.value)
    tensors = [torch.cat([part.weight for part in projections]), torch.cat([part.bias for part in projections])]
    for module in (attended.dense, attended.LayerNorm, layer.intermediate.dense, output.dense, output.LayerNorm):
        tensors += [module.weight, module.bias]
    return [tensor.detach().bfloat16() for tensor in tensors]
