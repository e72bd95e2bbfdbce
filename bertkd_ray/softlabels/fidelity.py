"""The fidelity of soft labels: how much they agree with the references."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.softlabels.shards import SoftLabels
from bertkd_ray.teacher.masking import with_eos


@dataclass(frozen=True)
class Fidelity:
    """Sums over target positions that tell how good soft labels are; add the fragments' and call `report`.

    positions: how many. topk_mass: probability (temperature 1, whole vocabulary) on the k entries. gold_first,
    gold_in_topk: positions whose reference token is the best entry, one of the k. entropy_t1, entropy_t10: nats, of the
    k entries renormalised, at temperatures 1 and 10.
    """

    positions: int = 0
    topk_mass: float = 0.0
    gold_first: int = 0
    gold_in_topk: int = 0
    entropy_t1: float = 0.0
    entropy_t10: float = 0.0

    def __add__(self, other: Fidelity) -> Fidelity:
        return Fidelity(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def report(self) -> dict[str, float]:
        """`positions` and the mean of every other sum over them (NaN without positions)."""
        names = ("topk_mass", "gold_first", "gold_in_topk", "entropy_t1", "entropy_t10")
        means = {name: getattr(self, name) / self.positions if self.positions else math.nan for name in names}
        return {"positions": float(self.positions), **means}


def fidelity(labels: SoftLabels, tgt: Ragged) -> Fidelity:
    """The sums of `Fidelity` over one fragment. tgt: the references the labels belong to, without EOS."""
    gold_P = with_eos(tgt)
    logits_Pk = labels.topk_logits.astype(np.float64)
    mass_P = np.exp(logits_Pk - labels.logsumexp[:, None]).sum(axis=1)
    hits_Pk = labels.topk_ids == gold_P[:, None]
    return Fidelity(
        positions=len(gold_P),
        # Logits rounded to float16 can sum to a per mille more than one.
        topk_mass=float(np.minimum(mass_P, 1.0).sum()),
        gold_first=int(hits_Pk[:, :1].sum()),
        gold_in_topk=int(hits_Pk.sum()),
        entropy_t1=_entropy_sum(logits_Pk),
        entropy_t10=_entropy_sum(logits_Pk / 10.0),
    )


def _entropy_sum(logits_Pk: NDArray[np.float64]) -> float:
    weights = np.exp(logits_Pk - logits_Pk.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return float(-(probabilities * logs).sum())
