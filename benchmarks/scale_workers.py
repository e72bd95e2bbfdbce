"""Two workers of one thread against one, through Ray Train; and what the machine itself gives two processes.

Beside them stands how long two processes take to add up gradients of this size with nothing else to do.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from benchmarks.copies import grown
from benchmarks.setting import Setting
from benchmarks.table import Row
from benchmarks.timing import Spread, ratios
from benchmarks.training import student_of, teacher_of
from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.config import Config
from bertkd_ray.execution.ray.session import RayRuntime
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.student import distill
from bertkd_ray.teacher import finetune
from bertkd_ray.teacher.source import model_hash
from bertkd_ray.training.curves import TRAIN_POSITIONS_PER_SECOND, CurveRow

STEPS = {"finetune": 14, "distill": 20}
WARM_UP = 2
"""Rows of the curves, two updates each, that do not count."""
GOAL = "≥ 1.8"
BUCKET = 25 * 2**20 // 4
"""Float32 numbers that are exchanged at a time, as by torch's DistributedDataParallel."""
EXCHANGES = 9
_numbers = itertools.count(1)


def measure(setting: Setting, rounds: int) -> list[Row]:
    """A row a stage. A round is a training of one worker, one of two, and two of one worker at the same time."""
    return [_measure(stage, setting, min(rounds, 3)) for stage in STEPS]


def _measure(stage: str, setting: Setting, rounds: int) -> Row:
    corpus = grown(setting.corpus, 1)
    task = (teacher_of if stage == "finetune" else student_of)(setting)
    gradient = sum(parameter.numel() for parameter in task.objective.parameters() if parameter.requires_grad)
    one_worker, two_workers = (_config(setting.config, stage, workers) for workers in (1, 2))
    runtime = RayRuntime(one_worker)
    runtime.start()
    train = partial(_train, stage, corpus, setting.bert)
    alone: list[float] = []
    together: list[float] = []
    apart: list[float] = []
    updates: list[float] = []
    try:
        for _ in range(rounds):
            alone.append(_rate(train(one_worker)))
            rows = train(two_workers)
            together.append(_rate(rows))
            updates.append(seconds_an_update(rows))
            with ThreadPoolExecutor(2) as threads:
                apart.append(rate_of_both(*threads.map(train, (one_worker, one_worker))))
    finally:
        runtime.close()
    return Row(
        f"{stage}, two workers of one thread against one worker of one thread",
        "positions/s",
        Spread.of(together),
        Spread.of(alone),
        ratios(together, alone),
        GOAL,
        details={
            "positions_per_second": {"one": alone, "two": together, "two trainings of one at once": apart},
            "two processes that exchange nothing, against one": ratios(apart, alone).median,
            "two workers against two processes that exchange nothing": ratios(together, apart).median,
            "seconds of an update of two workers": updates,
            "seconds to add up gradients": exchange_seconds(gradient),
            "numbers of a gradient": gradient,
            "micro_batches": 2,
            "batch_tokens": getattr(one_worker, "teacher" if stage == "finetune" else "student").batch_tokens,
        },
    )


def _config(config: Config, stage: str, workers: int) -> Config:
    section = "teacher" if stage == "finetune" else "student"
    steps = STEPS[stage]
    tree: dict[str, Any] = config.model_dump(exclude_unset=True)
    tree |= {"runtime": "ray", "workers": workers, "cpus_per_worker": 1, "log_every": 2, "checkpoint_every": 10 * steps}
    for name in ("teacher", "student"):
        tree[name] = {**tree.get(name, {}), "micro_batches": 2, "batch_tokens": 4096}
    tree[section] |= {"steps": steps, "eval_every": steps}
    tree["arms"] = {"only": {}}
    tree["kd"] = {**tree.get("kd", {}), "alpha": 0.0}
    return Config.model_validate(tree)


def _train(stage: str, corpus: Artifact, bert: str, config: Config) -> list[CurveRow]:
    """The curves of one training, whose artifact is removed."""
    rows: list[CurveRow] = []
    runtime = RayRuntime(config)
    kind = "teacher" if stage == "finetune" else "student"
    work = PendingArtifact(corpus.store, kind, f"{next(_numbers):016x}", {}, {"bert": model_hash(bert)})
    for directory in (work.directory, work.staging):
        corpus.store.delete(directory)
    module = finetune if stage == "finetune" else distill
    module.make(work, StageContext(config, runtime, {"corpus": corpus}, bert, rows.extend))
    corpus.store.delete(work.directory)
    return [row for row in rows if TRAIN_POSITIONS_PER_SECOND in row.metrics][WARM_UP:]


def _rate(rows: list[CurveRow]) -> float:
    return statistics.median(row.metrics[TRAIN_POSITIONS_PER_SECOND] for row in rows)


def seconds_an_update(rows: list[CurveRow]) -> float:
    """The median between two rows of the curves."""
    pairs = itertools.pairwise(rows)
    return statistics.median((b.time - a.time) / (b.step - a.step) for a, b in pairs)


def exchange_seconds(numbers: int) -> float:
    """The median of how long two processes of one thread take to add up a gradient of so many float32 numbers."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        torch.multiprocessing.spawn(_exchange, (directory, numbers), nprocs=2)  # type: ignore[no-untyped-call]
        return float((Path(directory) / "seconds").read_text())


def _exchange(rank: int, directory: str, numbers: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    parts = torch.zeros(numbers).split(BUCKET)
    seconds = []
    for _ in range(EXCHANGES + 1):
        dist.barrier()
        started = time.perf_counter()
        for work in [dist.all_reduce(part, async_op=True) for part in parts]:
            work.wait()
        seconds.append(time.perf_counter() - started)
    if rank == 0:
        (Path(directory) / "seconds").write_text(str(statistics.median(seconds[1:])))
    dist.destroy_process_group()


@dataclass(frozen=True)
class _Span:
    begin: float
    end: float


def rate_of_both(first: list[CurveRow], second: list[CurveRow]) -> float:
    """Positions a second of two trainings together, while both went on: of each its median, added up.

    Raises ValueError when they did not overlap.
    """
    span = _Span(max(first[0].time, second[0].time), min(first[-1].time, second[-1].time))
    within = [[row for row in rows if span.begin <= row.time <= span.end] for rows in (first, second)]
    if not all(within):
        raise ValueError("the two trainings were not at work at the same time; train longer")
    return sum(_rate(rows) for rows in within)
