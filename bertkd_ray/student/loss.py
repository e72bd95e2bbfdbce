"""The distillation loss: label-smoothed cross-entropy mixed with the teacher's top-k soft labels.

For one target position with student log-probabilities log p over V tokens (temperature 1), true token y, and teacher
probabilities q over k kept tokens:

    loss = (1 - α) · [(1 - ε) · (-log p_y) + ε / (V - 2) · Σ_v (-log p_v)] + α · Σ_k q_k · (-log p_k)

The mass ε is spread over *all* V entries with weight 1 / (V - 2), as the distillation trainer of "Distilling Knowledge
Learned in BERT for Text Generation" (Chen et al., ACL 2020) does, for α = 0 too, so that two arms differ in α alone.
Only the teacher is divided by the temperature; there is no T² factor and no teacher entropy term. The `symmetric` form
is that of "Distilling the Knowledge in a Neural Network" (Hinton et al., 2015, section 2): the soft part is
α · T² · Σ_k q_k · (-log p'_k), with p' the student's softmax of its scores divided by T. α may be a position's own, 0
where the reference counts alone.

Several teachers m with weights w_m, which sum to 1, are one whose probabilities are theirs mixed, q = Σ_m w_m q^m. As
the soft part is linear in q, it is Σ_m w_m · Σ_k q^m_k · (-log p_k), each sum over the k tokens that teacher m kept.

Shapes: N positions, D width, V vocabulary, k kept teacher entries. Losses are sums over positions, in nats; the caller
divides by the number of target tokens of the whole global batch.

`kd_loss` is the plain statement of the formula; `fused_kd_loss` computes the same from hidden states without ever
holding [N, V].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bertkd_ray.student.soft_targets import SoftTargets, Tail

# Rows of logits held at once. CPU: fastest of 64 to 1,900 for 1,900 rows, D = 256, V = 14,136 (145 ms; 216 ms at 64,
# 208 ms at 1,900; 436 ms for autocast and autograd). Assumption for others: fewer, larger launches.
_BLOCK_ROWS = {"cpu": 512}
_BLOCK_ROWS_ELSEWHERE = 2048


class LossSums(NamedTuple):
    """Sums over N target positions. `loss` carries the gradient; the other two are detached."""

    loss: Tensor
    """scalar, nats: the training objective"""
    nll: Tensor
    """scalar, nats: -Σ log p_y without smoothing or teacher; exp(nll / N) is the perplexity"""
    correct: Tensor
    """int64 scalar: positions where no token scores above the true one (a tie counts; bf16 scores tie now and then)"""


def kd_loss(
    scores_NV: Tensor,
    targets_N: Tensor,
    topk_ids_Nk: Tensor | None = None,
    topk_logits_Nk: Tensor | None = None,
    logsumexp_N: Tensor | None = None,
    *,
    alpha: float | Tensor,
    temperature: float = 1.0,
    symmetric: bool = False,
    label_smoothing: float = 0.0,
    tail: Tail = "renormalise",
    teacher_weights: Sequence[float] | None = None,
) -> Tensor:
    """The loss of the module's formula, summed over N positions, by automatic differentiation and in any float dtype.

    scores_NV: raw scores before the softmax; targets_N int64; topk_ids_Nk int64, distinct within a row; topk_logits_Nk:
    the teacher's raw logits; logsumexp_N: of the teacher over its whole vocabulary, for `tail="exact"` only.

    tail: "renormalise" scales the k probabilities to sum to 1 (the paper's code). "exact" keeps them at their true size
    exp(logit - logsumexp) and sets the teacher's remaining mass m against the student's as one further class,
    m · (-log Σ_{v not kept} p_v); it needs temperature 1, because the tail at another temperature is not stored.

    teacher_weights: of M teachers, whose labels are [N, M, k], [N, M, k] and [N, M]; they sum to 1. Each has its own k
    tokens a position, renormalised or with its own tail, before they are mixed; None: the labels are of one teacher.

    alpha: one number, or floats [N], a position's own, which are not checked. With the number 0 the teacher is not read
    and may be None. Raises ValueError for options or inputs outside of this.
    """
    _check_options(alpha, temperature, label_smoothing, tail)
    vocabulary = scores_NV.shape[1]
    log_p_NV = torch.log_softmax(scores_NV, dim=-1)
    loss_N = (1 - label_smoothing) * -log_p_NV.gather(1, targets_N[:, None]).squeeze(1)
    if label_smoothing:
        loss_N = loss_N - label_smoothing / (vocabulary - 2) * log_p_NV.sum(dim=-1)
    if not isinstance(alpha, Tensor) and alpha == 0:
        return loss_N.sum()
    soft = SoftTargets.of(topk_ids_Nk, topk_logits_Nk, logsumexp_N, temperature, tail, vocabulary, teacher_weights)
    scale = temperature if symmetric else 1.0
    soft_log_p_NV = log_p_NV if scale == 1 else torch.log_softmax(scores_NV / scale, dim=-1)
    kd_N = torch.zeros_like(loss_N)
    for m in range(soft.ids_NMk.shape[1]):
        ids_Nk, q_Nk = soft.ids_NMk[:, m], soft.q_NMk[:, m].to(log_p_NV.dtype)
        kd_N = kd_N - scale**2 * (q_Nk * soft_log_p_NV.gather(1, ids_Nk)).sum(dim=-1)
        if soft.tail_NM is not None:
            tail_log_p_N = log_p_NV.scatter(1, ids_Nk, -torch.inf).logsumexp(dim=-1)
            kd_N = kd_N - soft.tail_NM[:, m].to(log_p_NV.dtype) * tail_log_p_N
    return ((1 - alpha) * loss_N + alpha * kd_N).sum()


def fused_kd_loss(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    topk_ids_Nk: Tensor | None = None,
    topk_logits_Nk: Tensor | None = None,
    logsumexp_N: Tensor | None = None,
    *,
    alpha: float | Tensor,
    temperature: float = 1.0,
    symmetric: bool = False,
    label_smoothing: float = 0.0,
    tail: Tail = "renormalise",
    teacher_weights: Sequence[float] | None = None,
    matmul_dtype: torch.dtype | None = None,
    block_rows: int | None = None,
) -> LossSums:
    """`kd_loss` of the scores hidden_ND @ weight_VD.T, with the gradients of both in closed form.

    Logits exist for `block_rows` rows at a time, in one buffer that is used again (None: a size measured to be fast for
    the device). Matrix products run in `matmul_dtype` (None: hidden's dtype); the softmax and all sums in float32, or
    float64 where hidden is float64. Autocast is neither needed nor obeyed. The other arguments are those of `kd_loss`.

    Gradients are computed in the forward pass, so call it under `torch.no_grad()` where none are wanted. Not supported:
    double backward, an output bias, N = 0.
    """
    _check_options(alpha, temperature, label_smoothing, tail)
    vocabulary = weight_VD.shape[0]
    gold = (1 - alpha) * (1 - label_smoothing)
    uniform = (1 - alpha) * label_smoothing / (vocabulary - 2) if label_smoothing else 0.0
    soft = SoftTargets.none(targets_N, hidden_ND)
    if has_teacher := isinstance(alpha, Tensor) or alpha > 0:
        labels = topk_ids_Nk, topk_logits_Nk, logsumexp_N
        soft = SoftTargets.of(*labels, temperature, tail, vocabulary, teacher_weights).times(alpha)
    hard, scale = gold + uniform * vocabulary, temperature if symmetric and has_teacher else 1.0
    objective = _Objective(targets_N, gold, uniform, hard, *soft, alpha, scale)
    block = block_rows or _BLOCK_ROWS.get(hidden_ND.device.type, _BLOCK_ROWS_ELSEWHERE)
    dtype = matmul_dtype or hidden_ND.dtype
    if torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad):
        return LossSums(*_FusedLoss.apply(hidden_ND, weight_VD, objective, dtype, block))  # type: ignore[no-untyped-call]
    return _loss_by_blocks(hidden_ND, weight_VD, objective, dtype, block, with_gradients=False)[0]


def soft_label_entropy(
    topk_logits_Nk: Tensor,
    logsumexp_N: Tensor | None = None,
    *,
    vocabulary: int,
    temperature: float = 1.0,
    tail: Tail = "renormalise",
) -> Tensor:
    """Entropy of the soft labels, nats, summed over N positions: -Σ_k q_k log q_k, with an exact tail -m log m more.

    What `kd_loss` with alpha 1 is above it is the divergence KL(q ‖ p) of the student p (at its own temperature, and
    for `symmetric` after division by T²); with an exact tail that over k + 1 classes. The arguments are `kd_loss`'s.
    """
    ids_Nk = torch.empty_like(topk_logits_Nk, dtype=torch.int64)
    soft = SoftTargets.of(ids_Nk, topk_logits_Nk, logsumexp_N, temperature, tail, vocabulary, None)
    entropy = -torch.xlogy(soft.q_NMk, soft.q_NMk).sum()
    return entropy if soft.tail_NM is None else entropy - torch.xlogy(soft.tail_NM, soft.tail_NM).sum()


def _check_options(alpha: float | Tensor, temperature: float, label_smoothing: float, tail: Tail) -> None:
    if not isinstance(alpha, Tensor) and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), not {label_smoothing}")
    if tail not in ("renormalise", "exact"):
        raise ValueError(f"tail must be 'renormalise' or 'exact', not {tail!r}")
    if tail == "exact" and temperature != 1:
        raise ValueError(f"tail='exact' needs temperature 1, not {temperature}: the tail at another is not known")


@dataclass(frozen=True)
class _Objective:
    """Σ over positions of Σ_v t_v · (-log p_v): t is `gold` at the target, `uniform` everywhere, plus the soft labels.

    The soft labels have α and the teachers' weights in them; there may be no teacher. What follows from α is one number
    or, where α is, [N].
    """

    targets_N: Tensor
    gold: float | Tensor
    uniform: float | Tensor
    hard: float | Tensor
    """Σ_v t_v of all but the soft labels"""
    ids_NMk: Tensor
    soft_NMk: Tensor
    tail_NM: Tensor | None
    """the weight of the mass that the student has left for what a teacher did not keep"""
    soft: float | Tensor
    """Σ of a row's soft labels, the tail's included"""
    scale: float
    """divides the student's scores under the soft labels, whose loss is multiplied by its square"""

    @property
    def mass(self) -> float | Tensor:
        """The weight of p in a row of the gradient, an exact tail's included."""
        return self.hard + self.soft * self.scale

    @property
    def factor(self) -> float:
        """What a block of gradients is to be multiplied by: the rows' mass, where all have the same."""
        return 1.0 if isinstance(mass := self.mass, Tensor) else mass

    def of(self, rows: slice) -> Self:
        """The objective of some of the positions."""
        parts: dict[str, Any] = {name: of[rows] for name, of in vars(self).items() if isinstance(of, Tensor)}
        return replace(self, **parts)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, objective: _Objective, dtype: torch.dtype, block_rows: int
    ) -> LossSums:
        sums, gradients = _loss_by_blocks(hidden_ND, weight_VD, objective, dtype, block_rows, with_gradients=True)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(sums.nll, sums.correct)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden_ND, grad_weight_VD = ctx.saved_tensors
        # Not in place: with retain_graph this runs again on the same tensors.
        return grad_hidden_ND * grad_loss, grad_weight_VD * grad_loss, None, None, None


def _loss_by_blocks(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    objective: _Objective,
    dtype: torch.dtype,
    block_rows: int,
    *,
    with_gradients: bool,
) -> tuple[LossSums, tuple[Tensor, ...]]:
    """The sums and, where asked for, the gradients of the loss with respect to hidden and weight."""
    exact = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
    positions, vocabulary, device = len(hidden_ND), len(weight_VD), hidden_ND.device
    height = min(block_rows, positions)
    hidden, weight = hidden_ND.detach().to(dtype), weight_VD.detach().to(dtype)
    weight_sum_D = weight.sum(dim=0, dtype=exact)
    scores = torch.empty(height, vocabulary, dtype=exact, device=device)
    rounded = scores if dtype == exact else torch.empty(height, vocabulary, dtype=dtype, device=device)
    loss_N, nll_N = scores.new_empty(positions), scores.new_empty(positions)
    correct_N = torch.empty(positions, dtype=torch.bool, device=device)
    gradients = _Gradients(hidden, weight, exact) if with_gradients else None
    with torch.autocast(device.type, enabled=False):
        for start in range(0, positions, height):
            rows = slice(start, min(start + height, positions))
            s_BV, r_BV = scores[: rows.stop - start], rounded[: rows.stop - start]
            torch.mm(hidden[rows], weight.t(), out=r_BV)
            if rounded is not scores:
                s_BV.copy_(r_BV)
            score_sum_B = hidden[rows].to(exact) @ weight_sum_D
            loss_N[rows], nll_N[rows], correct_N[rows] = _loss_and_gradient_(s_BV, score_sum_B, objective.of(rows))
            if gradients is not None:
                if rounded is not scores:
                    r_BV.copy_(s_BV)
                gradients.add(rows, r_BV)
    sums = LossSums(loss_N.sum(), nll_N.sum(), correct_N.sum())
    if gradients is None:
        return sums, ()
    grad_hidden, grad_weight = gradients.finish(objective)
    return sums, (grad_hidden.to(hidden_ND.dtype), grad_weight.to(weight_VD.dtype))


class _Gradients:
    """Gradients of hidden and weight from blocks of (mass · p - t') / factor, t' being targets and soft labels alone.

    The gradient of a row of scores is mass · p - t' - uniform. Factor and constant stay out of the [block, V] buffer;
    they are applied to the products, where they cost little. The sum over blocks for weight is kept at `exact`
    precision, in buffers that are used again: fresh memory for each product costs as much as the product (page faults).
    """

    def __init__(self, hidden_ND: Tensor, weight_VD: Tensor, exact: torch.dtype) -> None:
        self._hidden_ND, self._weight_VD, self._exact = hidden_ND, weight_VD, exact
        self._grad_hidden_ND = torch.empty_like(hidden_ND)
        self._grad_weight_VD = torch.zeros_like(weight_VD, dtype=exact)
        self._buffers: tuple[Tensor, Tensor] | None = None
        if weight_VD.dtype != exact:
            self._buffers = torch.empty_like(weight_VD), torch.empty_like(self._grad_weight_VD)

    def add(self, rows: slice, block_BV: Tensor) -> None:
        """The share of a slice of rows."""
        torch.mm(block_BV, self._weight_VD, out=self._grad_hidden_ND[rows])
        if self._buffers is None:
            self._grad_weight_VD.addmm_(block_BV.t(), self._hidden_ND[rows])
            return
        product_VD, exact_product_VD = self._buffers
        torch.mm(block_BV.t(), self._hidden_ND[rows], out=product_VD)
        self._grad_weight_VD.add_(exact_product_VD.copy_(product_VD))

    def finish(self, objective: _Objective) -> tuple[Tensor, Tensor]:
        """The gradients of hidden and weight, once every row was added."""
        factor, uniform = objective.factor, objective.uniform
        weight_sum_D = self._weight_VD.sum(dim=0, dtype=self._exact)
        grad_hidden_ND, grad_weight_VD = (
            self._grad_hidden_ND.to(self._exact) * factor,
            self._grad_weight_VD.mul_(factor),
        )
        if isinstance(uniform, Tensor):
            uniform_N = uniform.to(self._exact)
            hidden_sum_D = uniform_N @ self._hidden_ND.to(self._exact)
            return grad_hidden_ND.addr_(uniform_N, weight_sum_D, alpha=-1), grad_weight_VD.sub_(hidden_sum_D)
        hidden_sum_D = self._hidden_ND.sum(dim=0, dtype=self._exact)
        return grad_hidden_ND.sub_(weight_sum_D, alpha=uniform), grad_weight_VD.sub_(hidden_sum_D, alpha=uniform)


def _loss_and_gradient_(s_BV: Tensor, score_sum_B: Tensor, objective: _Objective) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, -log p_y and whether y scores highest, of each row; turns the scores into (mass · p - t') / factor."""
    targets_B1, ids_BK, scale = objective.targets_N[:, None], objective.ids_NMk.flatten(1), objective.scale
    mass, factor = objective.mass, objective.factor
    gold_B, soft_scores_BK = s_BV.gather(1, targets_B1).squeeze(1), s_BV.gather(1, ids_BK)
    scaled_BV = None if scale == 1 else s_BV / scale
    peak_B = s_BV.amax(dim=1)
    # In place, a row at a time in the first-level cache: faster than a pass of exp over the whole buffer.
    torch.softmax(s_BV, dim=1, out=s_BV)
    # The largest probability is at least 1 / V, so this logarithm is safe.
    lse_B = soft_lse_B = peak_B - s_BV.amax(dim=1).log()
    if scaled_BV is not None:
        soft_lse_B = scaled_BV.logsumexp(dim=1)
        hard_B1, soft_B1 = (_column(share / mass, s_BV) for share in (objective.hard, objective.soft * scale))
        s_BV.mul_(hard_B1).addcmul_(torch.softmax(scaled_BV, dim=1), soft_B1)
    loss_B = objective.hard * lse_B - objective.gold * gold_B - objective.uniform * score_sum_B
    soft_BK = objective.soft_NMk.flatten(1).to(s_BV.dtype)
    loss_B += scale**2 * (objective.soft * soft_lse_B - (soft_BK * soft_scores_BK).sum(dim=1) / scale)
    if objective.tail_NM is not None:
        tail_BM = objective.tail_NM.to(s_BV.dtype)
        log_left_BM = _subtract_tails_(s_BV, objective.ids_NMk, tail_BM / _column(mass, s_BV)).log()
        loss_B -= (tail_BM * (lse_B[:, None] + log_left_BM)).sum(dim=1)
    if isinstance(mass, Tensor):
        s_BV.mul_(_column(mass, s_BV))
    s_BV.scatter_add_(1, ids_BK, soft_BK * (-scale / factor))
    s_BV.scatter_add_(1, targets_B1, (torch.zeros_like(gold_B) - objective.gold / factor)[:, None])
    return loss_B, lse_B - gold_B, gold_B >= peak_B


def _column(value: float | Tensor, like_BV: Tensor) -> Tensor:
    """[B, 1] or, of one number, [1, 1]."""
    return value.to(like_BV.dtype)[:, None] if isinstance(value, Tensor) else like_BV.new_full((1, 1), value)


def _subtract_tails_(p_BV: Tensor, ids_BMk: Tensor, share_BM: Tensor) -> Tensor:
    """Subtracts, in place, share_m · p_v / left_m for every teacher m from every v that m did not keep.

    Returns left_BM, the sum of p over what each teacher did not keep. It is held above the smallest normal number, so
    that a student with nothing left for a tail has a finite loss.
    """
    left, tiny = [], torch.finfo(p_BV.dtype).tiny
    for ids_Bk in ids_BMk.unbind(1):
        kept_Bk = p_BV.gather(1, ids_Bk)
        left.append(p_BV.scatter_(1, ids_Bk, 0.0).sum(dim=1).clamp_min(tiny))
        p_BV.scatter_(1, ids_Bk, kept_Bk)
    left_BM = torch.stack(left, dim=1)
    part_BM, ids_BK = share_BM / left_BM, ids_BMk.flatten(1)
    # What one teacher kept may be another's tail; what all kept stays as it is, to the last bit.
    is_left_BMK = (ids_BMk[:, :, None, :] != ids_BK[:, None, :, None]).all(dim=-1)
    kept_BK = p_BV.gather(1, ids_BK) * (1 - torch.where(is_left_BMK, part_BM[..., None], 0.0).sum(dim=1))
    p_BV.mul_(1 - part_BM.sum(dim=1, keepdim=True)).scatter_(1, ids_BK, kept_BK)
    return left_BM
