"""The fidelity of soft labels: how much they agree with the references, over all positions and over parts of them."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.softlabels.shards import SoftLabels
from bertkd_ray.teacher.masking import with_eos

PARTS = ("end", "not_end", "gold_first", "gold_not_first")
"""The end of the sentence and the other positions; those whose reference token is the teacher's best and the others."""


@dataclass(frozen=True)
class Fidelity:
    """Sums over target positions that tell how good soft labels are; add the fragments' and call `report`.

    positions: how many. topk_mass: probability (temperature 1, whole vocabulary) on the k entries. gold_first,
    gold_in_topk: positions whose reference token is the best entry, one of the k. entropy_t1, entropy_t10: nats, of the
    k entries renormalised, at temperatures 1 and 10. gold_nll: nats, negative log probability (temperature 1, whole
    vocabulary) of the reference token where it is one of the k; of others it is not stored.
    """

    positions: int = 0
    topk_mass: float = 0.0
    gold_first: int = 0
    gold_in_topk: int = 0
    entropy_t1: float = 0.0
    entropy_t10: float = 0.0
    gold_nll: float = 0.0

    def __add__(self, other: Fidelity) -> Fidelity:
        return Fidelity(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def report(self) -> dict[str, float]:
        """`positions` and the mean of every other sum over them (NaN without positions).

        `gold_perplexity` instead of `gold_nll`: the perplexity of the references that are among the k.
        """
        names = ("topk_mass", "gold_first", "gold_in_topk", "entropy_t1", "entropy_t10")
        means = {name: getattr(self, name) / self.positions if self.positions else math.nan for name in names}
        perplexity = math.exp(self.gold_nll / self.gold_in_topk) if self.gold_in_topk else math.nan
        return {"positions": float(self.positions), **means, "gold_perplexity": perplexity}


def fidelity(labels: SoftLabels, tgt: Ragged) -> Fidelity:
    """The sums of `Fidelity` over one fragment. tgt: the references the labels belong to, without EOS."""
    return _sums(labels, with_eos(tgt), np.ones(len(labels.logsumexp), bool))


def fidelity_by_part(labels: SoftLabels, tgt: Ragged) -> dict[str, Fidelity]:
    """`fidelity` over parts of a fragment's positions, by the names of `PARTS`.

    The ends of sentences and the other positions are all of them, and so are those whose reference token is the best of
    the k and the others.
    """
    gold_P = with_eos(tgt)
    is_end_P = np.zeros(len(gold_P), bool)
    is_end_P[labels.offsets[1:] - 1] = True
    is_first_P = (labels.topk_ids[:, :1] == gold_P[:, None]).any(axis=1)
    chosen = (is_end_P, ~is_end_P, is_first_P, ~is_first_P)
    return {part: _sums(labels, gold_P, chosen_P) for part, chosen_P in zip(PARTS, chosen, strict=True)}


def _sums(labels: SoftLabels, gold_P: NDArray[np.integer], chosen_P: NDArray[np.bool_]) -> Fidelity:
    gold_P = gold_P[chosen_P]
    logits_Pk = labels.topk_logits[chosen_P].astype(np.float64)
    # Logits rounded to float16 may exceed the logsumexp.
    logs_Pk = logits_Pk - labels.logsumexp[chosen_P, None]
    mass_P = np.exp(logs_Pk).sum(axis=1)
    hits_Pk = labels.topk_ids[chosen_P] == gold_P[:, None]
    return Fidelity(
        positions=len(gold_P),
        # Logits rounded to float16 can sum to a per mille more than one.
        topk_mass=float(np.minimum(mass_P, 1.0).sum()),
        gold_first=int(hits_Pk[:, :1].sum()),
        gold_in_topk=int(hits_Pk.sum()),
        entropy_t1=_entropy_sum(logits_Pk),
        entropy_t10=_entropy_sum(logits_Pk / 10.0),
        gold_nll=float(-np.minimum(logs_Pk[hits_Pk], 0.0).sum()),
    )


def _entropy_sum(logits_Pk: NDArray[np.float64]) -> float:
    weights = np.exp(logits_Pk - logits_Pk.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return float(-(probabilities * logs).sum())
