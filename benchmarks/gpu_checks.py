"""Whether a GPU computes in bf16 what it computes in float32, and in float32 what a CPU does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_extract import scorer_of
from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import TOPK, GpuSetting
from bertkd_ray.core.devices import Precision, autocast
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.softlabels.shards import SoftLabels, decode_labels
from bertkd_ray.student.collate import StudentBatch, collate
from bertkd_ray.student.loss import fused_kd_loss
from bertkd_ray.student.model import decoder_hidden

BF16, FLOAT32 = 1e-2, 1e-4
PAIRS, SCORED_PAIRS = 32, 256
TIE = 2.0**-5
"""Of the largest logit: tokens so near to each other are tied in bf16, which has eight bits, after all layers."""
CPU = torch.device("cpu")
KD: dict[str, Any] = {"alpha": 0.5, "temperature": 10.0, "label_smoothing": 0.1}


def topk(setting: GpuSetting, results: ResultTable) -> None:
    """Sets of the k best tokens in bf16 against float32, and by how much in float32 what is not found is better."""
    src, tgt = setting.pairs
    rows = np.arange(min(SCORED_PAIRS, setting.sizes.fragment_pairs))
    model, budget = setting.teacher(dropout=0.0), setting.sizes.extract_budgets[0]
    # Twice as many in float32, so that what was found instead has its score there too.
    exact = scorer_of(setting, model, budget, "float32", 2 * TOPK).score(src.take(rows), tgt.take(rows), rows)
    for name in ("product", "autocast"):
        scorer = scorer_of(setting, model, budget, "bf16")
        if name == "autocast":
            scorer.encoder = None
        figures = topk_difference(exact, scorer.score(src.take(rows), tgt.take(rows), rows))
        allowed = TIE * figures["largest logit"]
        verdict = {"passed": figures["lost by at most"] <= allowed, "allowed": allowed}
        variant = f"top-k, bf16 ({name}) against float32"
        results.add("check", variant, figures, goal=f"lost by < {allowed:.2g}", details=verdict)


def topk_difference(exact: SoftLabels, rough: SoftLabels) -> dict[str, float]:
    """Shares of positions and entries that are equal; what a token that was not found is better than the one that was.

    exact: has more entries a position than rough; logits and losses are in nats.
    """
    k = rough.topk_ids.shape[1]
    logits = exact.topk_logits.astype(np.float64)
    equal, common, lost, errors = [], [], [0.0], []
    for ids, scores, rough_ids, scored in zip(
        exact.topk_ids.tolist(), logits, rough.topk_ids.tolist(), rough.topk_logits.astype(np.float64), strict=True
    ):
        score_of = dict(zip(ids, scores.tolist(), strict=True))
        both = set(ids[:k]) & set(rough_ids)
        equal.append(len(both) == k)
        common.append(len(both) / k)
        if len(both) < k:
            best_missed = max(score_of[token] for token in ids[:k] if token not in both)
            lost.append(best_missed - min(score_of.get(token, scores[-1]) for token in rough_ids))
        errors += [
            abs(score_of[token] - score) for token, score in zip(rough_ids, scored, strict=True) if token in score_of
        ]
    return {
        "% equal sets": 100 * float(np.mean(equal)),
        "% common": 100 * float(np.mean(common)),
        "lost by at most": max(lost),
        "median error": float(np.median(errors)),
        "largest error": float(np.max(errors)),
        "logsumexp error": float(np.abs(exact.logsumexp - rough.logsumexp).max()),
        "largest logit": float(np.abs(logits).max()),
    }


def losses(setting: GpuSetting, results: ResultTable) -> None:
    """The loss and its gradients: bf16 against float32 here, float32 here against a CPU; then through all layers."""
    model = setting.student(dropout=0.0)
    batch = labelled(setting)
    with torch.no_grad():
        hidden = decoder_hidden(model, batch.to(setting.device))
    weight = model.get_output_embeddings().weight
    here = kd(hidden, weight, batch, setting.device, None)
    _add(
        results, "KD loss, bf16 against float32", kd(hidden, weight, batch, setting.device, torch.bfloat16), here, BF16
    )
    _add(results, "KD loss, float32 against CPU", here, kd(hidden, weight, batch, CPU, None), FLOAT32)
    whole = {precision: through(model, batch, setting.device, precision) for precision in ("float32", "bf16")}
    _add(results, "student, bf16 against float32", whole["bf16"], whole["float32"], BF16, binding=False)
    torch.nn.Module.to(model, CPU)
    _add(results, "student, float32 against CPU", whole["float32"], through(model, batch, CPU, "float32"), FLOAT32)


def labelled(setting: GpuSetting) -> StudentBatch:
    """A few pairs with their soft labels, on the CPU."""
    src, tgt = (Ragged.from_arrow(setting.table.slice(0, PAIRS)[name]) for name in ("src_ids", "tgt_ids"))
    return collate(src, tgt, decode_labels(setting.table.slice(0, PAIRS)))


Gradients = tuple[float, list[Tensor]]


def kd(
    hidden: Tensor, weight: Tensor, batch: StudentBatch, device: torch.device, dtype: torch.dtype | None
) -> Gradients:
    """The loss of given hidden states, and its gradients for them and for the output layer's weight."""
    inputs = [tensor.detach().to(device, torch.float32).requires_grad_() for tensor in (hidden, weight)]
    there = batch.to(device)
    loss = fused_kd_loss(
        *inputs,
        there.targets_P,
        there.topk_ids_Pk,
        there.topk_logits_Pk,
        there.logsumexp_P,
        **KD,
        matmul_dtype=dtype,
    ).loss
    loss.backward()
    return float(loss.detach()), [tensor.grad.cpu() for tensor in inputs if tensor.grad is not None]


def through(model: Any, batch: StudentBatch, device: torch.device, precision: Precision) -> Gradients:
    """The loss of the whole student and the gradients of all of its weights."""
    model.zero_grad(set_to_none=True)
    there = batch.to(device)
    with autocast(device, precision):
        hidden = decoder_hidden(model, there)
        loss = fused_kd_loss(
            hidden,
            model.get_output_embeddings().weight,
            there.targets_P,
            there.topk_ids_Pk,
            there.topk_logits_Pk,
            there.logsumexp_P,
            **KD,
            matmul_dtype=torch.bfloat16 if precision == "bf16" else None,
        ).loss
    loss.backward()
    return float(loss.detach()), [p.grad.detach().cpu().clone() for p in model.parameters() if p.grad is not None]


def difference(computed: Gradients, expected: Gradients) -> tuple[float, float]:
    """Of the loss and of all gradients together, each relative to what is expected."""
    apart = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(computed[1], expected[1], strict=True))
    size = sum(float(tensor.double().square().sum()) for tensor in expected[1])
    return abs(computed[0] - expected[0]) / abs(expected[0]), (apart / size) ** 0.5


def _add(
    results: ResultTable, variant: str, computed: Gradients, expected: Gradients, limit: float, *, binding: bool = True
) -> None:
    loss, gradient = difference(computed, expected)
    verdict = {"passed": bool(loss < limit and gradient < limit), "binding": binding, "limit": limit}
    results.add(
        "check", variant, {"loss error": loss, "gradient error": gradient}, goal=f"< {limit:g}", details=verdict
    )
