"""The progress line of a map on a real Ray session, with a worker that dies."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.console import Progress
from bertkd_ray.execution.attempts import Attempt
from bertkd_ray.execution.dead_letters import ErrorBudget
from bertkd_ray.execution.ray.progress import forwarded_counts, ready_progress_actor
from bertkd_ray.execution.ray.session import RayRuntime
from bertkd_ray.execution.resumable_map import FileJob, FinishedFile, resumable_map

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PAIRS, BATCHES = 100, 25
SECONDS = 0.2
"""A batch; a file takes five."""


class Slow:
    """An actor that is killed once, in the 20th batch of file `b`."""

    def __init__(self, job: FileJob) -> None:
        self._job = job

    def __call__(self, name: str) -> FinishedFile:
        store = Store(self._job.storage)
        attempt = Attempt(store, self._job.staging, name)
        isolation = self._job.isolation(store, np.arange(PAIRS), attempt, "train/a.parquet", torch.device("cpu"))

        def compute(rows: np.ndarray) -> None:
            time.sleep(SECONDS)
            if name == "b" and rows[0] >= PAIRS * 0.8 and not attempt.is_retry:
                os.kill(os.getpid(), signal.SIGKILL)

        isolation.run(np.arange(PAIRS).reshape(BATCHES, -1), np.arange(PAIRS), compute)
        return FinishedFile(name, PAIRS, 0)


def test_the_line_moves_inside_of_files_and_goes_back_with_a_lost_worker(tmp_path: Path, monkeypatch, ray_session):
    runtime = RayRuntime(Config.model_validate({"name": "progress", "corpus": {"source": "demo"}}))
    pending = PendingArtifact(Store(str(tmp_path)), "softlabels", "0123456789abcdef", {}, {})
    job = FileJob(pending.store.uri, pending.staging, "corpus", ErrorBudget("extract", 0.0, 2 * PAIRS))
    shown: list[int] = []
    monkeypatch.setattr(Progress, "update", lambda self, done: shown.append(done))
    files, _ = resumable_map(pending, runtime, ["a", "b"], Slow, job, finished=lambda name: None, unit="pairs")
    assert sorted(file.name for file in files) == ["a", "b"]
    assert len({count for count in shown if count % PAIRS}) >= 6
    assert any(later < earlier for earlier, later in itertools.pairwise(shown))
    assert max(shown) == shown[-1] == 2 * PAIRS


def test_counts_of_an_earlier_map_and_a_lost_actor_are_no_failure(ray_session):
    counts: list[tuple[str, int]] = []
    actor = ready_progress_actor()
    with forwarded_counts(actor, lambda name, done: counts.append((name, done))) as earlier:
        earlier("a", 1)
    with forwarded_counts(actor, lambda name, done: counts.append((name, done))) as report:
        earlier("a", 2)
        report("b", 3)
        report("b", 4)  # too soon
    assert counts == [("a", 1), ("b", 3)]
    with forwarded_counts(actor, lambda name, done: counts.append((name, done))) as report:
        ray.kill(actor)
        report("c", 5)
        time.sleep(1.5)
    assert ("c", 5) not in counts
