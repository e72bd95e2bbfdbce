"""Other ways to make the updates of a training: what would be faster, and what would not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from unittest.mock import patch

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from benchmarks.baselines import padded_hidden
from benchmarks.gpu_constant import constant_batches
from benchmarks.gpu_rates import Rates
from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import GpuSetting, MemoryGroups
from benchmarks.gpu_timing import ProductRate
from benchmarks.gpu_train import Distilling, Finetuning
from benchmarks.loop import Updates
from bertkd_ray.core.devices import Precision
from bertkd_ray.core.padding import padded_length
from bertkd_ray.student import model as student_model
from bertkd_ray.student import task as student_task
from bertkd_ray.student.loss import fused_kd_loss
from bertkd_ray.training import packed
from bertkd_ray.training.batch_plan import BatchPlan, MicroBatch, Streams

CONSTANT_ROWS = 8
"""Parts of the budget, to a multiple of which packed hidden states are filled up where shapes are to be constant."""


@dataclass(frozen=True)
class Variant:
    """How an update differs from that of the training loop."""

    attention: Literal["eager", "sdpa"] = "eager"
    cudnn: bool = True
    """Whether fused attention may be cuDNN's."""
    backward_outside: bool = False
    """The backward pass outside of autocast."""
    cast: bool = False
    """bf16 copies of all weights, made once an update; hidden states in bf16 from layer to layer."""
    one_product: bool = False
    """Query, key and value of a teacher in one product, which a student's are already."""
    constant: bool = False
    """The same pairs in batches of few shapes."""
    compiled: bool = False
    """Layers compiled for each of these shapes, but for a teacher's last one and for what packs a student's rows."""
    packed: bool = True
    """A student's hidden states without padding."""
    block_rows: int | None = None
    """Rows of a student's loss at once."""


_ALL = Variant(backward_outside=True, cast=True, constant=True, compiled=True)
_BOTH = {
    "as today": Variant(),
    "backward outside of autocast": Variant(backward_outside=True),
    "weights cast once, all in bf16": Variant(cast=True),
    "fused attention": Variant(attention="sdpa"),
    "fused attention without cuDNN": Variant(attention="sdpa", cudnn=False),
    "constant shapes": Variant(constant=True),
    "constant shapes, compiled": Variant(constant=True, compiled=True),
}
FINETUNE = {
    **_BOTH,
    "query, key and value in one product": Variant(one_product=True),
    "all of these, plain attention": Variant(**{**vars(_ALL), "one_product": True}),
}
DISTILL = {
    **_BOTH,
    "padded hidden states": Variant(packed=False),
    "loss in blocks of 8,192 rows": Variant(block_rows=8_192),
    "all of these, plain attention": Variant(**{**vars(_ALL), "block_rows": 8_192}),
}


def finetune(setting: GpuSetting, results: ResultTable, *, compiles: bool = False) -> None:
    """Updates of a teacher of the first budget: today's, and the variants that compile, or the others."""
    budget = setting.sizes.finetune_budgets[0]
    what = Finetuning(finetune_task(setting, Variant(), budget), budget)
    _measure(setting, results, _chosen(FINETUNE, compiles), what, finetune_task)


def distill(setting: GpuSetting, results: ResultTable, *, compiles: bool = False) -> None:
    """Updates of a student, as those of a teacher."""
    budget = setting.sizes.distill_budgets[0]
    what = Distilling(distill_task(setting, Variant(), budget), budget)
    _measure(setting, results, _chosen(DISTILL, compiles), what, distill_task)


def _chosen(variants: dict[str, Variant], compiles: bool) -> dict[str, Variant]:
    return {name: variant for name, variant in variants.items() if variant == Variant() or variant.compiled == compiles}


OpenTask = Callable[[GpuSetting, Variant, int], Any]


def finetune_task(setting: GpuSetting, variant: Variant, budget: int) -> Any:
    """A teacher's task, with its random weights."""
    model = setting.teacher(attention=variant.attention, dropout=setting.sizes.dropout)
    task: Any = setting.teacher_task(model, budget)
    layers: Any = list(model.bert.encoder.layer)[:-1]
    for layer in layers:
        if variant.one_product:
            layer.attention.self.forward = partial(_attended_by_one_product, layer.attention.self)
        if variant.compiled:
            layer.forward = compiled(setting, layer.forward)
    return _with_cast(setting, task, variant)


def distill_task(setting: GpuSetting, variant: Variant, budget: int) -> Any:
    """A student's task, with its random weights."""
    task = setting.student_task(setting.student(attention=variant.attention, dropout=setting.sizes.dropout), budget)
    return _with_cast(setting, task, variant)


def _with_cast(setting: GpuSetting, task: Any, variant: Variant) -> Any:
    if variant.cast:
        task.objective = CastObjective(task.objective, setting.precision)
    return task


def compiled(setting: GpuSetting, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled anew for each shape; in miniature traced alone."""
    backend = "inductor" if setting.sizes.compiles else "aot_eager"
    return torch.compile(function, dynamic=False, backend=backend)


@contextmanager
def in_effect(setting: GpuSetting, variant: Variant, budget: int) -> Iterator[None]:
    """What a variant changes outside of the task."""
    with ExitStack() as changes:
        if not variant.cudnn:
            changes.callback(torch.backends.cuda.enable_cudnn_sdp, torch.backends.cuda.cudnn_sdp_enabled())
            torch.backends.cuda.enable_cudnn_sdp(False)
        if not variant.packed:
            changes.enter_context(patch.object(student_task, "decoder_hidden", padded_hidden))
        if variant.block_rows:
            loss = partial(fused_kd_loss, block_rows=variant.block_rows)
            changes.enter_context(patch.object(student_task, "fused_kd_loss", loss))
        if variant.constant:
            multiple = max(1, budget // CONSTANT_ROWS)
            changes.enter_context(
                patch.object(packed, "packed_rows", lambda tokens: padded_length(tokens + 1, multiple))
            )
        if variant.compiled:
            changes.enter_context(torch._dynamo.config.patch(recompile_limit=256))
            for name in ("feed_forward", "_attended"):
                function = compiled(setting, getattr(student_model, name))
                changes.enter_context(patch.object(student_model, name, function))
        yield


def micro_batches(setting: GpuSetting, task: Any, budget: int, count: int) -> list[MicroBatch]:
    """The first of the batch plan."""
    groups: Any = MemoryGroups(setting.table)
    streams = Streams(BatchPlan(groups.rows, 1, 1), budget=budget, read=groups.read, lengths=task.lengths)
    try:
        return [streams.step()[0] for _ in range(count)]
    finally:
        streams.close()


def batches(variant: Variant, task: Any, micros: list[MicroBatch], budget: int) -> list[Any]:
    """The pairs of micro-batches, collated as the variant has them."""
    if not variant.constant:
        return [task.collate(micro) for micro in micros]
    rows = pa.concat_tables(micro.rows for micro in micros).combine_chunks()
    return list(constant_batches(task, rows, budget))


def _measure(
    setting: GpuSetting, results: ResultTable, variants: dict[str, Variant], what: Any, open_task: OpenTask
) -> None:
    budget = what.budget
    micros = micro_batches(setting, what.task, budget, setting.sizes.updates)
    today = [what.task.collate(micro) for micro in micros]
    largest = max(today, key=lambda batch: batch.padded_tokens)
    product_rate, _ = ProductRate(setting.device, training=True, spent=results.product_seconds)(
        what.products(setting, largest)
    )
    rates = Rates(
        results,
        setting.device,
        f"{what.row}, {budget:,} tokens",
        what.unit,
        sum(what.tokens(batch) for batch in today),
        sum(what.operations(setting, batch).computed for batch in today),
        product_rate,
    )
    for name, variant in variants.items():
        rates.add(name, partial(_updates, setting, variant, micros, budget, open_task), compiles=variant.compiled)


@contextmanager
def _updates(
    setting: GpuSetting, variant: Variant, micros: list[MicroBatch], budget: int, open_task: OpenTask
) -> Iterator[Callable[[], object]]:
    with in_effect(setting, variant, budget):
        task = open_task(setting, variant, budget)
        ready = batches(variant, task, micros, budget)
        if setting.device.type == "cuda":
            ready = [batch.pinned() for batch in ready]
        update = Updates(task, setting.precision, setting.device, backward_outside=variant.backward_outside)
        yield lambda: [update(batch) for batch in ready]


class CastObjective(nn.Module):
    """An objective whose weights, buffers and hidden states are bf16; gradients come back to the float32 weights."""

    def __init__(self, objective: nn.Module, precision: Precision = "bf16") -> None:
        """precision: "float32" makes copies as they are."""
        super().__init__()
        self.objective, self._dtype = objective, torch.bfloat16 if precision == "bf16" else torch.float32

    def forward(self, batch: Any) -> Any:
        """As the objective's."""
        own = [*self.objective.named_parameters(), *self.objective.named_buffers()]
        cast = {name: tensor.to(self._dtype) if tensor.is_floating_point() else tensor for name, tensor in own}
        with torch.autocast(next(self.objective.parameters()).device.type, enabled=False):
            return functional_call(self.objective, cast, (batch,))


def _attended_by_one_product(
    attention: Any, hidden_NLH: Tensor, attention_mask: Tensor | None = None, **_: Any
) -> tuple[Tensor, None]:
    """Plain self-attention of BERT."""
    parts = attention.query, attention.key, attention.value
    weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
    heads = attention.num_attention_heads
    projected = functional.linear(hidden_NLH, weight, bias).unflatten(-1, (3, heads, -1))
    query_NhLd, key_NhLd, value_NhLd = projected.permute(2, 0, 3, 1, 4)
    scores_NhLL = torch.matmul(query_NhLd, key_NhLd.transpose(2, 3)) * attention.scaling
    if attention_mask is not None:
        scores_NhLL = scores_NhLL + attention_mask
    context_NhLd = torch.matmul(attention.dropout(functional.softmax(scores_NhLL, dim=-1)), value_NhLd)
    return context_NhLd.transpose(1, 2).flatten(2), None
