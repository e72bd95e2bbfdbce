"""The teacher's part of the distillation loss: what its soft labels, or those of several teachers, weigh which token.

Shapes: N positions, M teachers, k kept entries of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

Tail = Literal["renormalise", "exact"]


class SoftTargets(NamedTuple):
    """What M teachers give to the k tokens that each kept, and to all others, their weights in it."""

    ids_NMk: Tensor
    q_NMk: Tensor
    tail_NM: Tensor | None
    """the probability of all others, where the tail is exact"""

    @classmethod
    def none(cls, targets_N: Tensor, hidden_ND: Tensor) -> Self:
        """Those of no teacher."""
        shape = len(targets_N), 0, 0
        return cls(targets_N.new_empty(shape), hidden_ND.new_empty(shape), None)

    @classmethod
    def of(
        cls,
        ids: Tensor | None,
        logits: Tensor | None,
        logsumexp: Tensor | None,
        temperature: float,
        tail: Tail,
        vocabulary: int,
        weights: Sequence[float] | None,
    ) -> Self:
        """Those of labels [N, M, k] (logsumexp [N, M]) or, without weights, of one teacher's, [N, k].

        Raises ValueError for labels that are absent, and for weights that are not one a teacher or do not sum to 1.
        """
        if ids is None or logits is None:
            raise ValueError("alpha above 0 needs topk_ids and topk_logits")
        if weights is None:
            ids, logits, weights = ids[:, None], logits[:, None], [1.0]
            logsumexp = None if logsumexp is None else logsumexp[:, None]
        if ids.shape[1] != len(weights) or abs(sum(weights) - 1) > 1e-6 or min(weights) < 0:
            raise ValueError(f"{ids.shape[1]} teachers need as many weights that sum to 1, not {list(weights)}")
        logits_NMk = logits if logits.dtype == torch.float64 else logits.float()
        weight_M = logits_NMk.new_tensor(weights)
        # Of all tokens nothing is left for a tail.
        if tail == "renormalise" or ids.shape[2] == vocabulary:
            return cls(ids, weight_M[:, None] * torch.softmax(logits_NMk / temperature, dim=-1), None)
        if logsumexp is None:
            raise ValueError("tail='exact' needs logsumexp")
        q_NMk = torch.exp(logits_NMk - logsumexp[..., None])
        # Logits stored in float16 may round to a sum just above 1.
        q_NMk = q_NMk / q_NMk.sum(dim=-1, keepdim=True).clamp_min(1)
        return cls(ids, weight_M[:, None] * q_NMk, weight_M * (1 - q_NMk.sum(dim=-1)).clamp_min(0))

    def times(self, alpha: float | Tensor) -> Self:
        """The same under a weight, or under every position's own, [N]."""
        alpha_N1 = alpha[:, None] if isinstance(alpha, Tensor) else alpha
        alpha_N11 = alpha[:, None, None] if isinstance(alpha, Tensor) else alpha
        tail_NM = None if self.tail_NM is None else alpha_N1 * self.tail_NM
        return self._replace(q_NMk=alpha_N11 * self.q_NMk, tail_NM=tail_NM)
