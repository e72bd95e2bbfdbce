"""Extraction on a GPU: the scorer end to end, from token ids to soft labels in the process's memory."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import TOPK, GpuSetting
from benchmarks.gpu_timing import ProductRate, kernels, seconds, teacher_products
from bertkd_ray.core.devices import Precision
from bertkd_ray.core.padding import longest_first_batches
from bertkd_ray.core.ragged import Ragged, offsets_of
from bertkd_ray.plan.operations import Operations, TeacherSize, teacher_forward
from bertkd_ray.softlabels.scoring import Scorer
from bertkd_ray.teacher.gpu_inference import GpuEncoder
from bertkd_ray.teacher.masking import SPECIAL_TOKENS_PER_PAIR, expand_passes

PASSES = 7
ROUNDS = 5
GOAL = 0.55


def measure(setting: GpuSetting, results: ResultTable) -> None:
    """Budgets as the product scores them, the first one profiled; then by autocast, with fused and plain attention."""
    model = setting.teacher(dropout=0.0)
    first = setting.sizes.extract_budgets[0]
    for budget in setting.sizes.extract_budgets:
        if results.has_time("extract", f"{budget:,}"):
            scorer = scorer_of(setting, model, budget)
            report(setting, results, scorer, f"{budget:,} places", profiled=budget == first)
    for attention in ("sdpa", "eager"):
        if results.has_time("extract", f"autocast, {attention}"):
            model.set_attn_implementation(attention)
            scorer = scorer_of(setting, model, first)
            scorer.encoder = None
            report(setting, results, scorer, f"{first:,} places, autocast, {attention}")


def scorer_of(
    setting: GpuSetting,
    model: Any,
    budget: int,
    precision: Precision | None = None,
    topk: int = TOPK,
    scorer_class: type[Scorer] = Scorer,
) -> Scorer:
    """The product's scorer; on a CPU it is made to go the GPU's way."""
    scorer = scorer_class(
        model,
        setting.bert_ids,
        setting.specials,
        topk=topk,
        passes=PASSES,
        batch_tokens=budget,
        precision=precision or setting.precision,
        device=setting.device,
    )
    if scorer.precision == "bf16" and scorer.encoder is None:
        scorer.encoder = GpuEncoder(model)
    return scorer


def report(setting: GpuSetting, results: ResultTable, scorer: Scorer, variant: str, *, profiled: bool = False) -> None:
    """Measures a scorer over some fragments and writes the row down."""
    src, tgt = setting.pairs
    fragments = [
        np.arange(start, start + setting.sizes.fragment_pairs)
        for start in range(0, ROUNDS * setting.sizes.fragment_pairs, setting.sizes.fragment_pairs)
    ]
    taken = [(src.take(rows), tgt.take(rows), rows) for rows in fragments]
    scorer.score(*taken[0])
    spent = [seconds(lambda args=args: scorer.score(*args), setting.device, 1, warm_up=0)[0] for args in taken]  # type: ignore[misc]
    work = [Work.of(setting.sizes.teacher, args[0], args[1], scorer) for args in taken]
    rate = statistics.median(each.operations.computed / took for each, took in zip(work, spent, strict=True))
    biggest = work[0]
    products = teacher_products(setting.sizes.teacher, biggest.padded_tokens_a_batch, biggest.masked_a_batch)
    product_rate, shapes = ProductRate(setting.device, training=False, spent=results.product_seconds)(products)
    details: dict[str, Any] = {
        "seconds": spent,
        "places": sum(each.padded_tokens for each in work),
        "padding": 1 - sum(each.real for each in work) / sum(each.padded_tokens for each in work),
        "flops": sum(each.operations.computed for each in work),
        "useful": sum(each.operations.useful for each in work) / sum(each.operations.computed for each in work),
        "batches_a_fragment": biggest.batches,
        "products": shapes,
    }
    if profiled:
        details["profile"] = kernels(lambda: scorer.score(*taken[0]), setting.device, spent[0])
    pairs = setting.sizes.fragment_pairs
    positions = statistics.median(
        int((args[1].lengths + 1).sum()) / took for args, took in zip(taken, spent, strict=True)
    )
    results.add(
        "extract",
        variant,
        {"pairs/s": pairs / statistics.median(spent), "positions/s": positions},
        flops=rate,
        product_rate=product_rate,
        goal=GOAL,
        details=details,
    )


class Work:
    """What a fragment's batches are made of."""

    def __init__(self) -> None:
        self.operations = Operations(0.0, 0.0)
        self.padded_tokens = self.real = self.batches = self.padded_tokens_a_batch = self.masked_a_batch = 0

    @staticmethod
    def of(size: TeacherSize, src: Ragged, tgt: Ragged, scorer: Scorer) -> Work:
        """As the scorer cuts them."""
        positions, tokens = tgt.lengths + 1, src.lengths + tgt.lengths + SPECIAL_TOKENS_PER_PAIR
        order = np.argsort(-tokens, kind="stable")
        row_of_pass, mask = expand_passes(positions[order], scorer.passes)
        pair_of_pass = order[row_of_pass]
        masked = np.add.reduceat(mask, offsets_of(positions[pair_of_pass])[:-1], dtype=np.int64)
        work = Work()
        lengths = tokens[pair_of_pass]
        for rows in longest_first_batches(lengths, scorer.batch_tokens, scorer.pad_to):
            width = -(-int(lengths[rows].max()) // scorer.pad_to) * scorer.pad_to
            counted = zip(work.operations, teacher_forward(size, lengths[rows], width, masked[rows]), strict=True)
            work.operations = Operations(*map(sum, counted))
            work.padded_tokens += len(rows) * width
            work.real += int(lengths[rows].sum())
            work.batches += 1
            if len(rows) * width > work.padded_tokens_a_batch:
                work.padded_tokens_a_batch, work.masked_a_batch = len(rows) * width, int(masked[rows].sum())
        return work
