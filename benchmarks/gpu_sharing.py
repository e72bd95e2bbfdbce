"""Two worker processes on one GPU that exchange gradients by gloo, against one process: the curve, and the rate."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import GpuSetting, MemoryGroups, Sizes
from benchmarks.loop import Alone, Unjudged
from bertkd_ray.training.context import World
from bertkd_ray.training.curves import TRAIN_LOSS, TRAIN_POSITIONS_PER_SECOND
from bertkd_ray.training.trainer import TrainSettings, fit

STEPS = 8
LIMIT = 1e-4
"""Relative difference of losses, in float32 and without dropout: the order of sums alone differs."""
Curve = list[dict[str, float]]


def measure(setting: GpuSetting, results: ResultTable) -> None:
    """One row: the rates, their ratio, and how far the losses are apart."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as directory:
        arguments = directory, setting.sizes, str(setting.device)
        alone = train(0, 1, *arguments[1:])
        torch.multiprocessing.spawn(_train, arguments, nprocs=2)  # type: ignore[no-untyped-call]
        shared: Curve = json.loads((Path(directory) / "curve.json").read_text(encoding="utf-8"))
    apart = max(abs(a[TRAIN_LOSS] / b[TRAIN_LOSS] - 1) for a, b in zip(shared, alone, strict=True))
    rates = {
        "positions/s of two": _rate(shared),
        "of one": _rate(alone),
        "ratio": _rate(shared) / _rate(alone),
        "apart": apart,
    }
    details = {"passed": apart < LIMIT, "one": alone, "two": shared}
    results.add("sharing", "two gloo processes, one GPU", rates, goal=f"apart < {LIMIT:g}", details=details)


def train(rank: int, size: int, sizes: Sizes, device: str) -> Curve:
    """The curve of a student's few updates of two micro-batches, as a worker of a group."""
    setting = GpuSetting(sizes, torch.device(device))
    budget = 2 * sizes.distill_budgets[min(1, len(sizes.distill_budgets) - 1)]
    task: Any = Unjudged(setting.student_task(setting.student(dropout=0.0), budget))
    task.collate = task._task.collate
    settings = TrainSettings(
        steps=STEPS,
        batch_tokens=budget,
        micro_batches=2,
        seed=1,
        eval_every=STEPS + 1,
        checkpoint_every=STEPS + 1,
        log_every=1,
    )
    context, groups = Alone(World(rank, size, setting.device)), MemoryGroups(setting.table)
    fit(task, groups, settings, context, "float32")  # type: ignore[arg-type] # row groups in memory
    return [dict(row.metrics) for row in context.rows]


def _train(rank: int, directory: str, sizes: Sizes, device: str) -> None:
    # NCCL has no two ranks on one GPU.
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    curve = train(rank, 2, sizes, device)
    if rank == 0:
        (Path(directory) / "curve.json").write_text(json.dumps(curve), encoding="utf-8")
    dist.destroy_process_group()


def _rate(curve: Curve) -> float:
    return statistics.median(row[TRAIN_POSITIONS_PER_SECOND] for row in curve[STEPS // 2 :])
