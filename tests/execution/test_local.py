"""The runtime without Ray: what it runs, and that a training that was cut off goes on to the same end."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.cli import main
from bertkd_ray.config import Config, load_config
from bertkd_ray.core.errors import DamagedCheckpointError, UserError
from bertkd_ray.execution.local import LocalRuntime, LocalTrainContext
from bertkd_ray.training.context import TrainContext, World
from bertkd_ray.training.curves import CurveRow
from bertkd_ray.training.preemption import Notice, PreemptedError
from tests.helpers.small_config import write_config


def runtime(**keys: Any) -> LocalRuntime:
    return LocalRuntime(Config.model_validate({"name": "x", "corpus": {"source": "demo"}, "runtime": "local", **keys}))


class Doubler:
    made = 0

    def __init__(self, factor: int) -> None:
        type(self).made += 1
        self.factor = factor

    def __call__(self, item: dict[str, int]) -> dict[str, int]:
        return {"value": item["value"] * self.factor}


def test_a_class_is_made_once_and_called_with_every_item_in_order():
    Doubler.made = 0
    items = [{"value": value} for value in (3, 1, 2)]
    assert list(runtime().map(items, Doubler, 2)) == [{"value": 6}, {"value": 2}, {"value": 4}]
    assert Doubler.made == 1


def test_a_function_is_called_with_item_and_job():
    found = runtime().map([{"value": 3}], lambda item, add: {"value": item["value"] + add}, 4)
    assert list(found) == [{"value": 7}]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match=r"device: gpu, but this machine has no GPU; set device=auto"):
        runtime(device="gpu").start()


def test_several_workers_are_refused(tmp_path):
    path = write_config(tmp_path)
    with pytest.raises(UserError, match=r"workers: 2 need Ray; set workers=1 or runtime=ray"):
        load_config(path, ["runtime=local", "workers=2"])


@pytest.fixture
def pending(tmp_path) -> PendingArtifact:
    return PendingArtifact(Store(str(tmp_path)), "student", "0123456789abcdef", {}, {})


def save(text: str) -> Any:
    def write(directory: Path) -> None:
        for name in ("progress.json", "training.pt"):
            (directory / name).write_text(text)

    return write


def test_the_newest_whole_checkpoint_is_gone_on_from(pending):
    context = LocalTrainContext(pending, World(), None, lambda rows: None)
    for step in (5, 10):
        context.on_checkpoint(save(f"step {step}"), step)
    kept = {name for name, _ in pending.store.files(pending.staging)}
    assert kept == {"checkpoint-000000010/progress.json", "checkpoint-000000010/training.pt"}
    pending.store.write(b"cut off", pending.staging, "checkpoint-000000015", "progress.json")
    seen: list[str] = []
    runtime().train(
        pending, lambda arguments, context: seen.append((context.restore / "training.pt").read_text()), {}, print
    )
    assert seen == ["step 10"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_taken_between_two_steps_and_the_second_one_at_once(pending, monkeypatch, number):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    # Whatever trained in this process before may have left handlers of its own.
    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    steps: list[Notice] = []

    def work(_: Any, context: TrainContext) -> None:
        for _ in range(2):
            steps.append(context.notice())
            signal.raise_signal(number)
        raise AssertionError("the second is not waited for")

    def leave(_: Any, context: TrainContext) -> None:
        signal.raise_signal(number)
        steps.append(context.notice())
        raise PreemptedError

    try:
        for worker in (work, leave):
            with pytest.raises(KeyboardInterrupt):
                runtime().train(pending, worker, {}, print)
            assert [signal.getsignal(each) for each in before] == [interrupt, interrupt]
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert steps == [Notice.NONE, Notice.TERMINATE, Notice.TERMINATE]


def test_a_checkpoint_that_does_not_load_is_skipped_with_a_line(pending, capsys):
    for step in (5, 10):
        with tempfile.TemporaryDirectory() as directory:
            save(f"step {step}")(Path(directory))
            pending.store.upload(Path(directory), pending.staging, f"checkpoint-{step:09d}")
    tried: list[str] = []

    def worker(job: Any, context: Any) -> None:
        tried.append((context.restore / "training.pt").read_text() if context.restore else "the start")
        if tried[-1] == "step 10":
            raise DamagedCheckpointError("the checkpoint is damaged: File is not a zip file")

    runtime().train(pending, worker, {}, print)
    assert tried == ["step 10", "step 5"]
    assert (
        "checkpoint-000000010 is skipped: the checkpoint is damaged: File is not a zip file" in capsys.readouterr().err
    )


def test_a_new_training_starts_at_the_beginning(pending):
    seen: list[Any] = []
    runtime().train(pending, lambda arguments, context: seen.append((arguments, context.restore)), {"a": 1}, print)
    assert seen == [({"a": 1}, None)]


@pytest.mark.slow
def test_a_pipeline_runs_without_ray_and_a_training_goes_on_to_the_same_student(tmp_path, capsys, monkeypatch):
    path = str(write_config(tmp_path))
    arms = 'arms={"control": {"kd.alpha": 0}}'
    common = ["runtime=local", "tracking=none", "checkpoint_every=4", arms]
    monkeypatch.setitem(sys.modules, "ray", None)  # an import of it would raise

    def run(storage: str) -> dict[str, Any]:
        assert main(["run", path, *common, f"storage={tmp_path / storage}", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    whole = run("whole")
    stop_at = 14

    def interrupted(self: LocalTrainContext, rows: list[CurveRow]) -> None:
        if rows[-1].step >= stop_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalTrainContext, "on_rows", interrupted)
        assert main(["distill", path, *common, f"storage={tmp_path / 'cut'}"]) != 0
    resumed = run("cut")
    assert resumed["stages"]["distill/control"]["status"] == "resumed"
    weights = [
        Path(found["stages"]["distill/control"]["path"], "model", "model.safetensors").read_bytes()
        for found in (whole, resumed)
    ]
    assert weights[0] == weights[1]
