"""What an update of every kind and a batch of extraction wait for the device for, with the calls that lead there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_extract import scorer_of
from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import GpuSetting
from benchmarks.waits import Wait, traced_waits, update_waits
from bertkd_ray.core.devices import Precision
from bertkd_ray.training.batch_plan import MicroBatch, StreamPosition

PAIRS = 64
PRECISIONS: tuple[Precision, ...] = ("bf16", "float32")
TEACHERS: dict[str, dict[str, Any]] = {
    "both": {},
    "BertAdam": {"optimizer": "bertadam"},
    "left to right": {"direction": "left_to_right"},
}
STUDENTS: dict[str, dict[str, Any]] = {
    "control": {"alpha": 0.0},
    "distilled": {"alpha": 0.5},
    "exact tail": {"alpha": 0.5, "tail": "exact", "temperature": 1.0},
    "symmetric": {"alpha": 0.5, "symmetric": True, "temperature": 2.0},
    "not at the end": {"alpha": 0.5, "at_end": False},
}


def measure(setting: GpuSetting, results: ResultTable) -> None:
    """A row a kind; the first time, which plans and allocates, does not count."""
    few = GpuSetting(replace(setting.sizes, pairs=PAIRS), setting.device)
    for kind, count in kinds(few):
        results.run(f"waits: {kind}", lambda kind=kind, count=count: _add(results, kind, count), 3.0)  # type: ignore[misc]


def kinds(setting: GpuSetting) -> Iterator[tuple[str, Callable[[], list[Wait]]]]:
    """What is looked at, and how its waits are counted."""
    for name, changes in TEACHERS.items():
        yield f"finetune, {name}", lambda changes=changes: _finetune(setting, **changes)  # type: ignore[misc]
    for name, kd in STUDENTS.items():
        yield f"distill, {name}", lambda kd=kd: _update(setting, setting.student_task(setting.student(), PAIRS, **kd))  # type: ignore[misc]
    for precision in PRECISIONS:
        yield f"extract, {precision}", lambda precision=precision: _extract(setting, precision)  # type: ignore[misc]


def _finetune(setting: GpuSetting, **changes: Any) -> list[Wait]:
    model = setting.teacher(direction=changes.get("direction", "both"))
    return _update(setting, setting.teacher_task(model, PAIRS, **changes))


def _update(setting: GpuSetting, task: Any) -> list[Wait]:
    batch = task.collate(MicroBatch(stream=0, epoch=0, rows=setting.table, after=StreamPosition(0, 1)))
    if setting.device.type == "cuda":
        batch = batch.pinned()
    update_waits(task, batch, setting.precision, setting.device)
    return update_waits(task, batch, setting.precision, setting.device)


def _extract(setting: GpuSetting, precision: Precision) -> list[Wait]:
    scorer = scorer_of(setting, setting.teacher(dropout=0.0), setting.sizes.extract_budgets[0], precision)
    src, tgt = setting.pairs
    mask = np.resize([True, False, False], int((tgt.lengths + 1).sum()))

    def work() -> None:
        scorer._score_batch(src, tgt, mask)

    with torch.inference_mode():
        work()
        return traced_waits(work, setting.device)


def _add(results: ResultTable, kind: str, count: Callable[[], list[Wait]]) -> None:
    traced = count()
    traces = [wait._asdict() for wait in traced]
    results.add("waits", kind, {"waits": len(traced)}, goal="0", details={"passed": not traced, "waits": traces})
