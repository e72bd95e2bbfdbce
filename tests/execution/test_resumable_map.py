"""What a map keeps of an earlier run, and when it ends for pairs that cannot be computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.console import Progress
from bertkd_ray.core.errors import UserError
from bertkd_ray.execution.attempts import Attempt
from bertkd_ray.execution.dead_letters import DeadLetter, ErrorBudget
from bertkd_ray.execution.resumable_map import FileJob, FinishedFile, resumable_map
from tests.helpers.local_project import InProcessRuntime

PAIRS = 10


@pytest.fixture
def pending(tmp_path) -> PendingArtifact:
    return PendingArtifact(Store(str(tmp_path)), "softlabels", "0123456789abcdef", {}, {})


def compute(name: str, job: FileJob) -> FinishedFile:
    """A file whose pairs are all computed, but for one of `bad`."""
    rejects = [DeadLetter(3, "ValueError: no", 1, "train/a.parquet")] if name == "bad" else []
    Attempt(Store(job.storage), job.staging, name).finish(rejects)
    return FinishedFile(name, PAIRS, len(rejects))


def mapped(
    pending: PendingArtifact,
    runtime: InProcessRuntime,
    names: list[str],
    earlier: set[str],
    share: float = 0.0,
    compute=compute,
) -> tuple[list[FinishedFile], int]:
    budget = ErrorBudget("extract", share, PAIRS * len(names))
    job = FileJob(pending.store.uri, pending.staging, "corpus", budget)
    files, dead_letters = resumable_map(
        pending,
        runtime,
        names,
        compute,
        job,
        finished=lambda name: FinishedFile(name, PAIRS, 0) if name in earlier else None,
        unit="pairs",
    )
    return files, len(dead_letters)


def test_what_an_earlier_run_finished_is_kept(pending):
    runtime = InProcessRuntime()
    files, rejects = mapped(pending, runtime, ["a", "b", "c"], earlier={"b"})
    assert runtime.mapped == ["a", "c"]
    assert sorted(file.name for file in files) == ["a", "b", "c"]
    assert rejects == 0


def test_nothing_missing_starts_nothing(pending, monkeypatch):
    runtime = InProcessRuntime()
    monkeypatch.setattr(runtime, "start", lambda: pytest.fail("started"))
    files, _ = mapped(pending, runtime, ["a"], earlier={"a"})
    assert files == [FinishedFile("a", PAIRS, 0)]
    assert runtime.mapped == []


def test_rejected_pairs_are_gathered_up_to_the_budget(pending):
    assert mapped(pending, InProcessRuntime(), ["a", "bad"], earlier=set(), share=0.05)[1] == 1
    with pytest.raises(UserError, match=r"extract: 1 of 20 pairs rejected \(5\.000%\), more than max_rejects"):
        mapped(pending, InProcessRuntime(), ["a", "bad"], earlier=set(), share=0.01)


class Counted(InProcessRuntime):
    """Hands out the function that workers report to."""

    def reporting(self, on_done):
        self.report = on_done
        return super().reporting(on_done)


def compute_in_batches(name: str, job: FileJob) -> FinishedFile:
    """A file whose pairs are computed two at a time."""
    store = Store(job.storage)
    attempt = Attempt(store, job.staging, name)
    isolation = job.isolation(store, np.arange(PAIRS), attempt, "train/a.parquet", torch.device("cpu"))
    isolation.run(np.arange(PAIRS).reshape(-1, 2), np.arange(PAIRS), lambda rows: None)
    return FinishedFile(name, PAIRS, 0)


@pytest.fixture
def shown(monkeypatch) -> list[int]:
    """What the progress line is told."""
    counts: list[int] = []
    monkeypatch.setattr(Progress, "update", lambda self, done: counts.append(done))
    return counts


def test_progress_moves_with_every_batch_of_a_file(pending, shown):
    mapped(pending, InProcessRuntime(), ["a", "b"], earlier={"b"}, compute=compute_in_batches)
    assert shown == [12, 14, 16, 18, 20, 20]


def test_a_file_that_is_begun_again_or_reports_late_is_counted_once(pending, shown):
    runtime = Counted()

    def lost_once(name: str, job: FileJob) -> FinishedFile:
        job.report("a", 8)  # by a worker that is then lost
        if name == "b":
            job.report("a", 6)
        return compute_in_batches(name, job)

    mapped(pending, runtime, ["a", "b"], earlier=set(), compute=lost_once)
    runtime.report("a", 4)
    assert shown == [8, 2, 4, 6, 8, 10, 10, 10, 10, 12, 14, 16, 18, 20, 20, 20]
