"""Several ways to do the same work on one device: cold and warm, busy and in all, against the first of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import torch

from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_timing import kernels, seconds
from bertkd_ray.core.devices import synchronise

ROUNDS = 3
NEEDS, COMPILING = 8.0, 40.0
"""Seconds that a way takes, about, and one that is compiled."""
OpenWork = Callable[[], AbstractContextManager[Callable[[], object]]]
"""Sets up a way to do the work; within the context the function does it once."""


@dataclass
class Rates:
    """The ways of one work; the first that is measured is what the others are compared with."""

    results: ResultTable
    device: torch.device
    row: str
    unit: str
    amount: float
    """Of `unit` a second, what the work has."""
    flops: float | None = None
    """Of matrix products in the work as the first way does it, so that the share of all ways is of the same number."""
    product_rate: float | None = None
    _first_seconds: float | None = field(default=None, init=False)

    def add(self, variant: str, open_work: OpenWork, *, compiles: bool = False) -> None:
        """Measures a way where there is time; what it raises is written down."""
        name = f"{self.row}: {variant}"
        self.results.run(name, partial(self._measure, variant, open_work), COMPILING if compiles else NEEDS)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _measure(self, variant: str, open_work: OpenWork) -> None:
        if on_gpu := self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with open_work() as work:
            synchronise(self.device)
            started = time.perf_counter()
            work()
            synchronise(self.device)
            cold = time.perf_counter() - started
            rounds = seconds(work, self.device, ROUNDS, warm_up=0)
            warm = statistics.median(rounds)
            profile = kernels(work, self.device, warm)
        first = self._first_seconds = self._first_seconds or warm
        rates = {
            self.unit: self.amount / warm,
            "cold": self.amount / cold,
            "% busy": 100 * profile["busy_share"],
            "times the first": first / warm,
        }
        details = {"cold_seconds": cold, "seconds": rounds, "profile": profile}
        if on_gpu:
            details["peak_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        flops = self.flops / warm if self.flops else None
        self.results.add(self.row, variant, rates, flops=flops, product_rate=self.product_rate, details=details)
