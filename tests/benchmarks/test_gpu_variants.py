"""Variants of an update, in float32 and without dropout: the same loss and gradients, up to rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import gpu_variants
from benchmarks.gpu_setting import TINY, GpuSetting
from benchmarks.gpu_variants import DISTILL, FINETUNE, Variant, batches, in_effect, micro_batches

CPU = torch.device("cpu")
BUDGETS = {"finetune": 512, "distill": 256}
CASES = [(kind, name) for kind, variants in (("finetune", FINETUNE), ("distill", DISTILL)) for name in variants]


@pytest.fixture(scope="module")
def setting() -> GpuSetting:
    made = GpuSetting(replace(TINY, pairs=200), CPU)
    made.precision = "float32"
    return made


def sums(setting: GpuSetting, kind: str, variant: Variant) -> tuple[Tensor, dict[str, Tensor], list[Any]]:
    """The loss of some pairs, its gradients by parameter, and the batches."""
    budget, open_task = BUDGETS[kind], getattr(gpu_variants, f"{kind}_task")
    with in_effect(setting, variant, budget):
        task = open_task(setting, variant, budget)
        micros = micro_batches(setting, open_task(setting, Variant(), budget), budget, 3)
        ready = batches(variant, task, micros, budget)
        losses = []
        for batch in ready:
            loss, _ = task.objective(batch)
            loss.backward()
            losses.append(loss.detach())
    gradients = {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}
    return torch.stack(losses).sum(), gradients, ready


@pytest.fixture(scope="module")
def today(setting) -> dict[str, tuple[Tensor, dict[str, Tensor], list[Any]]]:
    return {kind: sums(setting, kind, Variant()) for kind in BUDGETS}


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_variant_computes_the_same(setting, today, kind, name):
    variant = (FINETUNE if kind == "finetune" else DISTILL)[name]
    loss, gradients, ready = sums(setting, kind, variant)
    torch.testing.assert_close(loss, today[kind][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(gradients, today[kind][1], rtol=1e-3, atol=1e-4)
    assert sum(batch.count for batch in ready) == sum(batch.count for batch in today[kind][2])


@pytest.mark.parametrize("kind", list(BUDGETS))
def test_constant_shapes_are_few(setting, today, kind):
    shapes: dict[int, set[int]] = {}
    for batch in sums(setting, kind, Variant(constant=True))[2]:
        ids = batch.input_ids if kind == "finetune" else batch.src_ids_NS
        shapes.setdefault(ids.shape[1], set()).add(ids.shape[0])
        assert ids.numel() <= BUDGETS[kind]
    assert all(width % 16 == 0 and len(rows) == 1 for width, rows in shapes.items())


def test_padding_counts_among_what_is_learnt_from_nowhere(setting):
    """The rows that fill a batch up have no position in it."""
    (last,) = (batch for batch in sums(setting, "distill", Variant(constant=True))[2][-1:])
    assert int(last.src_mask_NS.sum()) == len(last.src_index)
    assert last.src_mask_NS.flatten()[last.src_index].all()
