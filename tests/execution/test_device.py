"""The device that workers are given: the CPU where it is asked for, and no CPU in place of a GPU."""

from __future__ import annotations

import platform
import warnings
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import config_of
from bertkd_ray.core.errors import UserError
from bertkd_ray.execution.dead_letters import ErrorBudget
from bertkd_ray.execution.device import cuda_problem, open_device, require_cuda
from bertkd_ray.execution.local import LocalRuntime
from bertkd_ray.execution.resumable_map import FileJob, FinishedFile, resumable_map
from bertkd_ray.softlabels.extract import ExtractJob, ShardWriter
from bertkd_ray.translation.parts import TranslateJob
from bertkd_ray.translation.translate import StudentTranslator
from tests.helpers.local_project import Project
from tests.softlabels.test_extract import job as extract_job
from tests.translation.test_translate import translator

GPU = torch.device("cuda", 1)
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040)."


@pytest.fixture
def a_gpu(monkeypatch) -> None:
    """torch says that it can use one; whoever moves something there fails."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))


@pytest.fixture
def an_old_driver(monkeypatch) -> None:
    """As torch behaves on one: it warns, and says why only when it is made to begin."""

    def warn() -> bool:
        warnings.warn(f"CUDA initialization: {OLD_DRIVER}", stacklevel=1)
        return False

    def fail() -> None:
        raise RuntimeError(f"{OLD_DRIVER}\nPlease update it.")

    monkeypatch.setattr(torch.cuda, "is_available", warn)
    monkeypatch.setattr(torch.cuda, "init", fail)


def test_what_is_wanted_is_what_is_opened(a_gpu):
    assert (open_device("cpu"), open_device("cuda"), open_device(None)) == (torch.device("cpu"), GPU, GPU)


def test_a_gpu_that_torch_cannot_use_is_one_line(an_old_driver):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cuda_problem() == f"{OLD_DRIVER} Please update it."
        with pytest.raises(UserError) as error:
            open_device("cuda")
    assert str(error.value) == (
        f"device: {platform.node()} gives a GPU for this work, but torch cannot use it there ({OLD_DRIVER} Please "
        "update it.); install a torch for CUDA, and a driver that it knows, or set device=cpu"
    )


def test_one_node_of_several_is_named():
    require_cuda({"a": "", "b": ""})
    with pytest.raises(UserError, match=r"^device: b gives a GPU .*\(it sees none\)"):
        require_cuda({"a": "", "b": "it sees none"})


@dataclass(frozen=True)
class Seen(FinishedFile):
    device: str


class Teller:
    """An actor that says which device it opened."""

    def __init__(self, job: FileJob) -> None:
        self._device = open_device(job.device)

    def __call__(self, item: str) -> Seen:
        return Seen(item, 1, 0, self._device.type)


def runtime(device: str) -> LocalRuntime:
    tree = {"name": "x", "corpus": {"source": "demo"}, "runtime": "local", "device": device}
    return LocalRuntime(config_of(tree, "test"))


@pytest.mark.parametrize(("device", "opened"), [("cpu", "cpu"), ("auto", "cuda"), ("gpu", "cuda")])
def test_workers_without_ray_compute_where_the_configuration_says(tmp_path, a_gpu, device, opened):
    pending = PendingArtifact(Store(str(tmp_path)), "softlabels", "0" * 16, {}, {})
    job = FileJob(pending.store.uri, pending.staging, "", ErrorBudget("extract", 0.0, 1))
    files, _ = resumable_map(pending, runtime(device), ["a"], Teller, job, finished=lambda item: None, unit="pairs")
    assert [file.device for file in files] == [opened]
    seen: list[Any] = []
    runtime(device).train(pending, lambda job, context: seen.append(context.world.device.type), None, print)
    assert seen == [opened]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> tuple[ExtractJob, TranslateJob]:
    """Of actors that hold a teacher and a student, which are made by then."""
    project = Project(tmp_path_factory.mktemp("project"))
    return extract_job(project, project.corpus(), "scratch"), translator(project)._job


def test_actors_stay_on_the_cpu_although_a_gpu_is_there(jobs, a_gpu):
    """Ray hides no GPU from an actor that asks for none."""
    extract, translate = (replace(job, device="cpu") for job in jobs)
    assert ShardWriter(extract)._scorer.device == StudentTranslator(translate)._device == torch.device("cpu")
