"""What a user sees of every stage while it runs: on a terminal, and in a file."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from bertkd_ray.cli import main
from bertkd_ray.core import console
from bertkd_ray.core.console import Progress
from bertkd_ray.pipeline.session import Session
from bertkd_ray.pipeline.stage_runs import tracked_curves
from bertkd_ray.training.curves import CurveRow
from tests.helpers.local_project import InProcessRuntime
from tests.helpers.small_config import write_config

STAGES = (
    "prepare, clean",
    "prepare, encode",
    "finetune",
    "extract",
    "distill/distilled",
    "distill/control",
    "translate",
)
PACE = r"\d+(,\d+)?/[\d,]+ \w+  \d+%  [\d.,]+[kM]? \w+/s  left [\dhms.]+"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class RowByRow(InProcessRuntime):
    """Hands out the curves a row at a time, as a long training does."""

    def train(self, pending: Any, worker: Any, arguments: Any, on_rows: Callable[[list[Any]], None]) -> None:
        super().train(pending, worker, arguments, lambda rows: [on_rows([row]) for row in rows])

    def close(self) -> None:
        """There is nothing to end."""


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_every_stage_tells_its_rate_and_the_time_left(tmp_path, monkeypatch, stream):
    """Lines that usually come every 0.1 s or every 10 s come at every step here, and at no other time."""
    config = write_config(tmp_path, log_every=1)
    monkeypatch.setattr(Session, "runtime", RowByRow())
    monkeypatch.setattr(console, "_DRAWN_EVERY", 0.0)
    monkeypatch.setattr(Progress, "_refresh_periodically", lambda self: None)
    monkeypatch.setattr(Progress.__init__, "__kwdefaults__", {**Progress.__init__.__kwdefaults__, "every": 1e-9})
    monkeypatch.setenv("TERM", "xterm")
    stderr = stream()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert main(["run", str(config), "teacher.steps=4", "student.steps=4", "tracking=none"]) == 0
    lines = re.split(r"\r\x1b\[K|\n", stderr.getvalue())
    told = {line.split("  ")[0] for line in lines if re.match(rf".+?  {PACE}", line)}
    assert set(STAGES) <= told


class NoRun:
    """Stands for a tracked run."""

    def log_metrics(self, *_: Any, **__: Any) -> None:
        """Keeps nothing."""


AFTER_A_RESTART = {100: 10.0, 200: 20.0, 300: 100.0, 310: 110.0}
"""Seconds, by step."""


def test_neither_the_start_of_the_workers_nor_what_a_checkpoint_held_makes_a_rate(monkeypatch):
    """500 steps of an earlier run, 10 that came after nobody knows how long, 10 in ten seconds."""
    stderr, now = io.StringIO(), [100.0]
    monkeypatch.setattr(sys, "stderr", stderr)
    defaults = {**Progress.__init__.__kwdefaults__, "clock": lambda: now[0]}
    monkeypatch.setattr(Progress.__init__, "__kwdefaults__", defaults)

    with tracked_curves("finetune", 600, NoRun()) as on_rows:
        long_ago = time.time() - 1000
        on_rows([CurveRow(step, long_ago, {"train/loss": 2.0}) for step in (490, 500)])
        for step in (510, 520):
            now[0] += 10
            on_rows([CurveRow(step, time.time(), {"train/loss": 1.5})])
    assert stderr.getvalue().splitlines() == [
        "finetune  520/600 steps  86%  1.0 steps/s  left 1m20s  loss 1.5",
        "finetune  520/600 steps  86%  in 20s  loss 1.5",
    ]


def test_after_a_restart_the_rate_is_that_of_what_was_computed_since(monkeypatch):
    """Two hundred steps, a restart that hands them out again, a hundred of which the start is unknown, and ten."""
    stderr, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", stderr)
    defaults = {**Progress.__init__.__kwdefaults__, "clock": lambda: now[0]}
    monkeypatch.setattr(Progress.__init__, "__kwdefaults__", defaults)
    start = time.time() + 1
    rows = {step: CurveRow(step, start + second, {"train/loss": 2.0}) for step, second in AFTER_A_RESTART.items()}
    with tracked_curves("finetune", 1000, NoRun()) as on_rows:
        for step, row in rows.items():
            now[0] = AFTER_A_RESTART[step]
            if step == 300:
                on_rows([rows[100], rows[200]])
            on_rows([row])
    assert stderr.getvalue().splitlines()[-2:] == [
        "finetune  310/1,000 steps  31%  1.0 steps/s  left 11m30s  loss 2",
        "finetune  310/1,000 steps  31%  in 1m50s  loss 2",
    ]


def test_what_a_restarted_worker_hands_out_again_makes_no_rate(monkeypatch):
    """Step 10, then nothing until a worker goes on from a checkpoint of step 800 that an earlier one wrote."""
    stderr, now, clock = io.StringIO(), [100.0], [time.time()]
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(time, "time", lambda: clock[0])
    defaults = {**Progress.__init__.__kwdefaults__, "clock": lambda: now[0]}
    monkeypatch.setattr(Progress.__init__, "__kwdefaults__", defaults)
    with tracked_curves("finetune", 1000, NoRun()) as on_rows:
        began = clock[0]
        for seconds, steps in ((10, [10]), (2000, []), (2, range(10, 801, 10)), (10, [810]), (10, [820])):
            now[0], clock[0] = now[0] + seconds, clock[0] + seconds
            on_rows([CurveRow(step, began + step if step <= 800 else clock[0], {"train/loss": 2.0}) for step in steps])
    assert stderr.getvalue().splitlines()[-2:] == [
        "finetune  820/1,000 steps  82%  1.0 steps/s  left 3m00s  loss 2",
        "finetune  820/1,000 steps  82%  in 33m52s  loss 2",
    ]
