"""Finetuning and distillation on a GPU, by the product's own loop: `training.trainer.fit` over row groups in memory."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import GpuSetting, MemoryGroups
from benchmarks.gpu_timing import ProductRate, Products, kernels, student_products, teacher_products
from benchmarks.loop import Alone, Unjudged, Updates
from bertkd_ray.core.padding import packed_rows
from bertkd_ray.plan.operations import TRAINING, Operations, student_forward, teacher_forward
from bertkd_ray.student.collate import StudentBatch
from bertkd_ray.teacher.task import TeacherBatch
from bertkd_ray.training.batch_plan import MicroBatch
from bertkd_ray.training.context import World
from bertkd_ray.training.curves import TRAIN_DATA_WAIT, TRAIN_LOSS
from bertkd_ray.training.trainer import TrainSettings, fit

FINETUNE_GOAL, DISTILL_GOAL = 0.45, 0.40
PARTS = 4
"""Times that the timed updates are looked at; the median counts."""
PROFILED_UPDATES = 3


def finetune(setting: GpuSetting, results: ResultTable) -> None:
    """Budgets with the device's own attention, the first one profiled; then plain attention."""
    budgets = setting.sizes.finetune_budgets
    other = "eager" if setting.attention == "sdpa" else "sdpa"
    for budget, attention in [*((each, setting.attention) for each in budgets), (budgets[0], other)]:
        if results.has_time("finetune", f"{budget:,} {attention}"):
            what = Finetuning(setting.teacher_task(setting.teacher(attention=attention), budget), budget)
            report(setting, results, what, f"{budget:,} places, {attention}", profiled=budget == budgets[0])


def distill(setting: GpuSetting, results: ResultTable) -> None:
    """All budgets with the device's own attention, profiled; then plain attention with the first."""
    budgets = setting.sizes.distill_budgets
    other = "eager" if setting.attention == "sdpa" else "sdpa"
    for budget, attention in [*((each, setting.attention) for each in budgets), (budgets[0], other)]:
        if results.has_time("distill", f"{budget} {attention}"):
            task = setting.student_task(setting.student(attention=attention), budget)
            report(setting, results, Distilling(task, budget), f"{budget:,} tokens, {attention}", profiled=True)


class Finetuning:
    """The teacher's training: its batches, and what is counted of them."""

    row, goal, unit = "finetune", FINETUNE_GOAL, "non-padding tokens/s"

    def __init__(self, task: Any, budget: int) -> None:
        self.task, self.budget = task, budget

    def operations(self, setting: GpuSetting, batch: TeacherBatch) -> Operations:
        """FLOPs of an update."""
        rows, width = batch.input_ids.shape
        real = batch.attention_mask.sum(dim=1).numpy()
        masked = np.bincount(batch.masked_index.numpy() // width, minlength=rows)
        forward = teacher_forward(setting.sizes.teacher, real, width, masked)
        return Operations(TRAINING * forward.computed, TRAINING * forward.useful)

    def tokens(self, batch: TeacherBatch) -> int:
        """Tokens of a batch that the rate counts."""
        return int(batch.attention_mask.sum())

    def products(self, setting: GpuSetting, batch: TeacherBatch) -> Products:
        """Matrix products of a forward pass."""
        return teacher_products(setting.sizes.teacher, batch.padded_tokens, batch.count)


class Distilling:
    """The student's training: its batches, and what is counted of them."""

    row, goal, unit = "distill", DISTILL_GOAL, "target tokens/s"

    def __init__(self, task: Any, budget: int) -> None:
        self.task, self.budget = task, budget

    def operations(self, setting: GpuSetting, batch: StudentBatch) -> Operations:
        """FLOPs of an update."""
        rows, width = batch.decoder_input_ids_NT.shape
        src = batch.src_mask_NS.sum(dim=1).numpy()
        tgt = np.bincount(batch.target_index_P.numpy() // width, minlength=rows)
        packed = packed_rows(len(batch.src_index)), packed_rows(batch.count)
        forward = student_forward(setting.sizes.student, src, tgt, batch.src_mask_NS.shape[1], width, rows=packed)
        return Operations(TRAINING * forward.computed, TRAINING * forward.useful)

    def tokens(self, batch: StudentBatch) -> int:
        """Tokens of a batch that the rate counts."""
        return batch.count

    def products(self, setting: GpuSetting, batch: StudentBatch) -> Products:
        """Matrix products of a forward pass."""
        src, tgt = packed_rows(len(batch.src_index)), packed_rows(batch.count)
        return student_products(setting.sizes.student, src, tgt, batch.count)


class Recorded(Unjudged):
    """Without validation; keeps its batches: the one of update i is `batches[i - 1]`."""

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.batches: list[Any] = []
        self.model = torch.nn.Identity()  # no weights are kept

    def collate(self, micro: MicroBatch) -> Any:
        """One micro-batch an update, so these are the updates in their order."""
        self.batches.append(self._task.collate(micro))
        return self.batches[-1]


@dataclass(frozen=True)
class Timed:
    """Timed updates."""

    batches: list[list[Any]]
    """By part."""
    seconds: list[float]
    data_wait: list[float]
    loss: float


def timed(setting: GpuSetting, what: Any) -> Timed:
    """Trains for the sizes' updates, after half as many that do not count, and half as many again to end with."""
    every = max(1, setting.sizes.steps // PARTS)
    warm_up = max(1, PARTS // 2)
    steps = every * (warm_up + PARTS)
    settings = TrainSettings(
        steps=steps,
        batch_tokens=what.budget,
        micro_batches=1,
        seed=1,
        eval_every=steps + 1,
        checkpoint_every=steps + 1,
        log_every=every,
    )
    recorded, context = Recorded(what.task), Alone(World(device=setting.device))
    groups: Any = MemoryGroups(setting.table)
    fit(recorded, groups, settings, context, setting.precision)
    batches = [recorded.batches[start : start + every] for start in range(0, steps, every)]
    times = [row.time for row in context.rows]
    # The row of a part is written once the device has done its updates.
    spent = [after - before for before, after in pairwise(times)]
    waits = [row.metrics[TRAIN_DATA_WAIT] for row in context.rows]
    return Timed(batches[warm_up:], spent[warm_up - 1 :], waits[warm_up:], context.rows[-1].metrics[TRAIN_LOSS])


def report(setting: GpuSetting, results: ResultTable, what: Any, variant: str, *, profiled: bool) -> Timed:
    """Trains, and writes the row down."""
    measured = timed(setting, what)
    operations = [[what.operations(setting, batch) for batch in part] for part in measured.batches]
    flops = [sum(counted.computed for counted in part) for part in operations]
    tokens = [sum(what.tokens(batch) for batch in part) for part in measured.batches]
    spent = measured.seconds
    largest = max((batch for part in measured.batches for batch in part), key=lambda batch: batch.padded_tokens)
    rate = ProductRate(setting.device, training=True, spent=results.product_seconds)
    product_rate, shapes = rate(what.products(setting, largest))
    updates = len(measured.batches[0])
    details: dict[str, Any] = {
        "seconds": spent,
        "updates": updates,
        "flops": flops,
        "useful": sum(counted.useful for part in operations for counted in part) / sum(flops),
        "data_wait": measured.data_wait,
        "loss": measured.loss,
        "largest_batch": {"padded_tokens": largest.padded_tokens, "count": largest.count},
        "products": shapes,
    }
    if setting.device.type == "cuda":
        details["peak_gib"] = torch.cuda.max_memory_allocated(setting.device) / 2**30
        torch.cuda.reset_peak_memory_stats(setting.device)
    if profiled:
        part = measured.batches[-1][:PROFILED_UPDATES]
        share = sum(what.operations(setting, batch).computed for batch in part) / flops[-1]
        update = Updates(what.task, setting.precision, setting.device)
        details["profile"] = kernels(lambda: [update(batch) for batch in part], setting.device, share * spent[-1])
    rates = {
        what.unit: statistics.median(amount / took for amount, took in zip(tokens, spent, strict=True)),
        "updates/s": updates / statistics.median(spent),
        "% wait": 100 * statistics.median(measured.data_wait),
    }
    achieved = statistics.median(amount / took for amount, took in zip(flops, spent, strict=True))
    results.add(what.row, variant, rates, flops=achieved, product_rate=product_rate, goal=what.goal, details=details)
    return measured


def data_wait(setting: GpuSetting, results: ResultTable) -> None:
    """The share of its time that the loop waited for batches, in the rows that are there."""
    for row in results.rows:
        if "data_wait" in row["details"]:
            waits = row["details"]["data_wait"]
            rates = {"% median": 100 * statistics.median(waits), "% most": 100 * max(waits)}
            results.add("data wait", f"{row['row']}, {row['variant']}", rates, goal="< 2%")
