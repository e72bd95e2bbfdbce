"""Other ways to do the same, measured as long as there is time: what would be faster, and what would not."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.gpu_extract import report as report_extract
from benchmarks.gpu_extract import scorer_of
from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import GpuSetting
from benchmarks.gpu_timing import seconds
from benchmarks.gpu_train import Distilling, Finetuning
from benchmarks.gpu_train import report as report_training
from bertkd_ray.student import model as student_model
from bertkd_ray.student.loss import fused_kd_loss
from bertkd_ray.teacher.gpu_inference import GpuEncoder

COMPILING = 30.0
"""Seconds that compiling and measuring take, about."""


def measure(setting: GpuSetting, results: ResultTable) -> None:
    """In the order of what is hoped for; each by itself, since one may fail where the others do not."""
    for name, variant, needs in VARIANTS:
        if needs == COMPILING and not setting.sizes.compiles:
            results.leave_out(name, "all", "not compiled in miniature")
            continue
        results.run(name, partial(variant, setting, results), needs)
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()


def finetune_in_bf16(setting: GpuSetting, results: ResultTable) -> None:
    """All weights cast once a step, hidden states in bf16 from layer to layer."""
    budget = setting.sizes.finetune_budgets[0]
    task = setting.teacher_task(setting.teacher(), budget)
    task.objective = InBf16(task.objective)  # type: ignore[assignment]
    report_training(setting, results, Finetuning(task, budget), f"{budget:,} places, all in bf16", profiled=True)


def distill_in_bf16(setting: GpuSetting, results: ResultTable) -> None:
    """The student in bf16: weights cast once a step, hidden states from layer to layer."""
    for budget in setting.sizes.distill_budgets[:2]:
        task = setting.student_task(setting.student(), budget)
        task.objective = InBf16(task.objective)
        report_training(setting, results, Distilling(task, budget), f"{budget:,} tokens, all in bf16", profiled=False)


def extract_compiled(setting: GpuSetting, results: ResultTable) -> None:
    """A layer of the GPU's forward pass compiled once for all shapes."""
    model = setting.teacher(dropout=0.0)
    scorer = scorer_of(setting, model, setting.sizes.extract_budgets[0])
    scorer.encoder = GpuEncoder(model, compiled=True)
    report_extract(setting, results, scorer, f"{scorer.batch_tokens:,} places, compiled layers", profiled=True)


def finetune_compiled(setting: GpuSetting, results: ResultTable, *, in_bf16: bool = False) -> None:
    """Every layer but the last compiled, for all shapes at once."""
    budget = setting.sizes.finetune_budgets[0]
    model = setting.teacher()
    layers: Any = model.bert.encoder.layer
    for layer in layers[:-1]:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    task = setting.teacher_task(model, budget)
    if in_bf16:
        task.objective = InBf16(task.objective)  # type: ignore[assignment]
    kind = "compiled layers, all in bf16" if in_bf16 else "compiled layers"
    report_training(setting, results, Finetuning(task, budget), f"{budget:,} places, {kind}", profiled=True)


def distill_compiled(setting: GpuSetting, results: ResultTable, *, in_bf16: bool = False) -> None:
    """The feed-forward part of every layer compiled, for all shapes at once."""
    kind = "compiled feed-forward" + (", all in bf16" if in_bf16 else "")
    compiled = torch.compile(student_model.feed_forward, dynamic=True)
    for budget in setting.sizes.distill_budgets[:2]:
        task = setting.student_task(setting.student(), budget)
        if in_bf16:
            task.objective = InBf16(task.objective)
        with patch.object(student_model, "feed_forward", compiled):
            what = f"{budget:,} tokens, {kind}"
            report_training(setting, results, Distilling(task, budget), what, profiled=not in_bf16)


def loss_alone(setting: GpuSetting, results: ResultTable) -> None:
    """The fused loss with its gradients, by rows that are held at once: share of its three products' time."""
    size = setting.sizes.student
    rows = setting.sizes.distill_budgets[0] * 4 // 5
    draw = partial(torch.randn, device=setting.device)
    hidden, weight = (
        draw(rows, size.width).requires_grad_(),
        (0.05 * draw(size.vocabulary, size.width)).requires_grad_(),
    )
    targets = torch.randint(0, size.vocabulary, (rows,), device=setting.device)
    ids = (targets[:, None] + 1 + torch.arange(8, device=setting.device)) % size.vocabulary
    logits = draw(rows, 8)
    for block in (2_048, 1_024, 4_096, 8_192):

        def work(block: int = block) -> None:
            fused_kd_loss(
                hidden,
                weight,
                targets,
                ids,
                logits,
                alpha=0.5,
                temperature=10.0,
                label_smoothing=0.1,
                matmul_dtype=torch.bfloat16,
                block_rows=block,
            ).loss.backward()

        spent = statistics.median(seconds(work, setting.device, 5, warm_up=2))
        flops = 6.0 * rows * size.width * size.vocabulary / spent
        results.add("KD loss", f"{rows:,} positions, blocks of {block:,}", {"ms": 1e3 * spent}, flops=flops)


class InBf16(nn.Module):
    """An objective whose weights, buffers and hidden states are bf16; gradients come back to the float32 weights."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: Any) -> Any:
        """As the objective's."""
        own = [*self.objective.named_parameters(), *self.objective.named_buffers()]
        cast = {name: _in_bf16(tensor) for name, tensor in own}
        with torch.autocast(next(self.objective.parameters()).device.type, enabled=False):
            return functional_call(self.objective, cast, (batch,))


def _in_bf16(tensor: Tensor) -> Tensor:
    return tensor.bfloat16() if tensor.is_floating_point() else tensor


VARIANTS: list[tuple[str, Callable[[GpuSetting, ResultTable], None], float]] = [
    ("finetune in bf16", finetune_in_bf16, 8.0),
    ("distill in bf16", distill_in_bf16, 8.0),
    ("loss alone", loss_alone, 5.0),
    ("distill compiled", distill_compiled, COMPILING),
    ("finetune compiled", finetune_compiled, COMPILING),
    ("extract compiled", extract_compiled, COMPILING),
    ("distill compiled, in bf16", partial(distill_compiled, in_bf16=True), COMPILING),
    ("finetune compiled, in bf16", partial(finetune_compiled, in_bf16=True), COMPILING),
]
