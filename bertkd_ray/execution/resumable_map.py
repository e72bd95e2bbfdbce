"""A map that makes a file of every item, keeps those of an earlier run, and bears pairs that cannot be computed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.console import Progress
from bertkd_ray.execution.attempts import Attempt, dead_letters_of
from bertkd_ray.execution.dead_letters import DeadLetters, ErrorBudget
from bertkd_ray.execution.device import DeviceType
from bertkd_ray.execution.fault_isolation import FaultIsolation
from bertkd_ray.execution.interface import Item, MapWorker, OnDone, Runtime

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FileJob:
    """What all workers of such a map are given; a stage adds its settings and inputs."""

    storage: str
    staging: str
    """The pending artifact's, as the corpus a directory in the store."""
    corpus: str
    budget: ErrorBudget
    report: OnDone = field(default=lambda name, done: None, kw_only=True)
    """Takes the counts of the item that is being computed; `resumable_map` sets it, and `device`."""
    device: DeviceType | None = field(default=None, kw_only=True)
    """What the workers compute on; None: a GPU where torch can use one."""

    def isolation(
        self, store: Store, ids: NDArray[np.int64], attempt: Attempt, fragment: str, device: torch.device
    ) -> FaultIsolation:
        """The fault isolation of an item whose pairs, with these ids, stand in a fragment of the corpus."""
        from bertkd_ray.core.devices import synchronise

        return FaultIsolation(
            ids,
            attempt,
            fragment,
            require=lambda dead_letters: self.budget.require(dead_letters, store, self.staging),
            synchronise=lambda: synchronise(device),
            on_done=partial(self.report, attempt.name),
        )


@dataclass(frozen=True)
class FinishedFile:
    """What is known of the file of an item."""

    name: str
    pairs: int
    """Pairs of the item, dead letters included."""
    dead_letters: int
    """Pairs that could not be computed."""


MapJob = TypeVar("MapJob", bound=FileJob)
File = TypeVar("File", bound=FinishedFile)


def resumable_map(
    pending: PendingArtifact,
    runtime: Runtime,
    items: Sequence[Item],
    worker: MapWorker[Item, MapJob, File],
    job: MapJob,
    *,
    finished: Callable[[Item], File | None],
    unit: str,
) -> tuple[list[File], DeadLetters]:
    """The files of all items in no fixed order, and the pairs that are in none.

    finished: the file of an item if an earlier run made it. unit: what pairs are called on the progress line. Without
    a missing file the runtime is not started. Raises UserError as soon as the budget is exceeded.
    """
    files: dict[str, File] = {}
    dead_letters = DeadLetters(pending, job.budget)

    def add(file: File) -> None:
        files[file.name] = file
        if file.dead_letters:
            dead_letters.add(dead_letters_of(pending.store, pending.staging, file.name))

    missing = []
    for item in items:
        if file := finished(item):
            add(file)
        else:
            missing.append(item)
    if missing:
        runtime.start()
        lock, done = threading.Lock(), {file.name: file.pairs for file in files.values()}
        with Progress(job.budget.pairs, job.budget.stage, unit, initial=sum(done.values())) as progress:

            def on_done(name: str, pairs: int) -> None:
                with lock:
                    # A count of a file that is finished is late.
                    done[name] = files[name].pairs if name in files else pairs
                    progress.update(sum(done.values()))

            with runtime.reporting(on_done) as report:
                for file in runtime.map(missing, worker, replace(job, report=report, device=runtime.device)):
                    add(file)
                    on_done(file.name, file.pairs)
    return list(files.values()), dead_letters
