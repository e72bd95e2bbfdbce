"""BERT's embedding without the rows that no token of a corpus has, while a teacher trains on that corpus.

Of a multilingual BERT's 119,547 rows a corpus with V tokens has at most V + 4. The others are read by no batch: all
that would happen to them is the decay of their weights. Without them an update moves, and workers exchange, less.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import ConditionalMaskedLM

_WEIGHT = "bert.embeddings.word_embeddings.weight"


class PrunedEmbedding:
    """The embedding of a teacher that trains on a corpus; `bert_ids` and `specials` are numbers of the rows it has."""

    def __init__(self, teacher: ConditionalMaskedLM, bert_ids: NDArray[np.integer], specials: BertSpecials) -> None:
        """Leaves the teacher, whose weights are on the CPU, the rows that a corpus with these ids (int32[V]) has.

        They keep their order, so that sums over tokens have theirs.
        """
        self._teacher, embedding = teacher, teacher.bert.get_input_embeddings()
        self._whole: Tensor = embedding.weight.detach()
        rows = np.unique(np.concatenate([bert_ids, specials]))
        self._rows = torch.from_numpy(rows.astype(np.int64))
        self.bert_ids: NDArray[np.integer] = np.searchsorted(rows, bert_ids).astype(bert_ids.dtype)
        self.specials = BertSpecials(*np.searchsorted(rows, specials).tolist())
        padding = np.flatnonzero(rows == embedding.padding_idx).tolist()
        pruned = nn.Embedding.from_pretrained(
            self._whole[self._rows], freeze=False, padding_idx=padding[0] if padding else None
        )
        pruned.register_load_state_dict_pre_hook(self._without_rows)
        teacher.bert.set_input_embeddings(pruned)

    def accept_whole_moments(self, optimizer: torch.optim.Optimizer) -> None:
        """Makes the teacher's optimizer load the state of an earlier version, which has the moments of all rows."""
        weight = self._teacher.bert.get_input_embeddings().weight
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        (number,) = (number for number, parameter in enumerate(trained) if parameter is weight)

        def without_rows(_: torch.optim.Optimizer, state: dict[str, Any]) -> None:
            moments = state["state"].get(number, {})
            moments |= {name: self._pruned(value) for name, value in moments.items() if isinstance(value, Tensor)}

        optimizer.register_load_state_dict_pre_hook(without_rows)

    def load_whole(self, weights: dict[str, Tensor], *, decay: float) -> None:
        """Gives the teacher all rows again, and the weights of its training.

        weights: a `state_dict` of it, the embedding's rows pruned or (of an earlier version's checkpoint) whole.
        decay: what the training's decay has left of a weight without a gradient, for the rows that were away.
        """
        whole = weights[_WEIGHT]
        if len(whole) != len(self._whole):
            whole = (self._whole * decay).index_copy_(0, self._rows, whole.to(self._whole.device))
        padding = self._teacher.config.pad_token_id
        embedding = nn.Embedding.from_pretrained(whole, freeze=False, padding_idx=padding)
        self._teacher.bert.set_input_embeddings(embedding)
        self._teacher.load_state_dict({**weights, _WEIGHT: whole})

    def _without_rows(self, _: nn.Module, state: dict[str, Tensor], prefix: str, *__: Any) -> None:
        state |= {name: self._pruned(value) for name, value in state.items() if name == f"{prefix}weight"}

    def _pruned(self, values: Tensor) -> Tensor:
        """The rows that are left, where there are all of them."""
        is_whole = values.dim() == 2 and len(values) == len(self._whole)
        return values[self._rows] if is_whole else values


def decay_until(step: int, rate: Callable[[int], float], weight_decay: float) -> float:
    """What decoupled decay leaves of a weight without a gradient after so many updates: Π (1 - rate · decay).

    rate: the learning rate of a step, counted from 1.
    """
    return math.prod(1 - rate(each) * weight_decay for each in range(1, step + 1))
