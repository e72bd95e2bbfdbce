"""What `bertkd run configs/demo.yaml` takes outside of the stages' compute, and where it goes.

The command runs as a user runs it, with few steps, since its overhead does not depend on them. All its processes mark
what they do (`bertkd_ray.core.timeline`). Compute is the time in which at least one worker is in its training loop, or
at work on a part of a map; everything else counts as overhead, the driver's own share of the stages (cutting the text,
the vocabulary, scores and their bootstrap) too.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import ROOT
from benchmarks.setting import Setting
from benchmarks.table import Row
from benchmarks.timing import Spread
from bertkd_ray.core.timeline import VARIABLE

GOAL = "< 30 s"
OVERRIDES = (
    "teacher.steps=60",
    "teacher.eval_every=60",
    "student.steps=60",
    "student.warmup_steps=10",
    "student.eval_every=60",
)
COMPUTE = "compute"
OTHER = "the command itself: imports, hashes, text, scores, MLflow runs"
CAUSES: dict[str, tuple[str, ...]] = {
    COMPUTE: ("fit", "map"),
    "workers: libraries and models": ("train function", "start of an actor"),
    "Ray Train: controller and worker processes": ("Ray Train",),
    "Ray Data: plan and actor processes": ("Ray Data",),
    "ray.init": ("ray.init",),
    "ray.shutdown": ("ray.shutdown",),
    "MLflow: import and store": ("tracker",),
    "report: figures, page, models in MLflow": ("report",),
}
"""What the marks mean; of marks at the same time the first in this order counts."""
_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Mark:
    """A line of the timeline: seconds since 1970, and of CPU."""

    name: str
    begin: float
    end: float
    cpu: float


def measure(setting: Setting, rounds: int) -> list[Row]:
    """One row: seconds, with the causes and the CPU seconds beside them. Every round is a whole run of minutes."""
    runs = [_run() for _ in range(max(1, rounds // 5))]
    chosen = sorted(runs, key=lambda run: float(run["overhead_s"]))[len(runs) // 2]
    return [
        Row(
            "`bertkd run` on the demo outside of compute",
            "s",
            Spread.of([run["overhead_s"] for run in runs]),
            goal=GOAL,
            details={**chosen, "load_after": os.getloadavg()[0]},
        )
    ]


def _run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="overhead-") as directory:
        timeline = Path(directory) / "timeline"
        words = ["run", "configs/demo.yaml", f"storage={directory}/store", *OVERRIDES]
        code = "import sys; from bertkd_ray.cli import main; sys.exit(main())"
        environment = {**os.environ, VARIABLE: str(timeline), "HF_HUB_OFFLINE": "1"}
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
            environment.pop(name, None)
        begin = time.time()
        command = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        cpu, processes = _watched(command)
        end = time.time()
        if command.returncode:
            raise RuntimeError(f"bertkd {' '.join(words)} failed: {command.stderr.read()[-2000:]}")  # type: ignore[union-attr]
        marks = [_mark(line) for line in timeline.read_text().splitlines()]
    seconds = causes(marks, begin, end)
    compute_cpu = sum(mark.cpu for mark in marks if mark.name in CAUSES[COMPUTE])
    return {
        "wall_s": end - begin,
        "overhead_s": end - begin - seconds[COMPUTE],
        "causes_s": {name: round(value, 2) for name, value in seconds.items()},
        "cpu_s": cpu,
        "overhead_cpu_s": cpu - compute_cpu,
        "processes": processes,
    }


def causes(marks: list[Mark], begin: float, end: float) -> dict[str, float]:
    """Seconds from begin to end by cause; each moment belongs to one, and what no mark covers to `OTHER`."""
    edges = sorted({begin, end, *(min(max(edge, begin), end) for mark in marks for edge in (mark.begin, mark.end))})
    seconds = dict.fromkeys([*CAUSES, OTHER], 0.0)
    for left, right in itertools.pairwise(edges):
        names = {mark.name for mark in marks if mark.begin <= left and mark.end >= right}
        cause = next((cause for cause, of in CAUSES.items() if names.intersection(of)), OTHER)
        seconds[cause] += right - left
    return seconds


def _mark(line: str) -> Mark:
    tree = json.loads(line)
    return Mark(tree["name"], tree["begin"], tree["end"], tree["cpu"])


def _watched(command: subprocess.Popen[str]) -> tuple[float, int]:
    """Waits for the end; CPU seconds of the command and all it started, as last seen, and how many processes."""
    seen: dict[int, float] = {}
    while command.poll() is None:
        try:
            root = psutil.Process(command.pid)
            family = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for process in family:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seen[process.pid] = times.user + times.system
        time.sleep(_SAMPLE_SECONDS)
    command.wait()
    return sum(seen.values()), len(seen)
