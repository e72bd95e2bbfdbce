"""Clocks for a device that works while the process goes on: times, rates of matrix products, and kernels by time."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from bertkd_ray.core.devices import synchronise
from bertkd_ray.plan.operations import StudentSize, TeacherSize

TOP_KERNELS = 12


class Shape(NamedTuple):
    """A linear layer's product: [m, k] times the transpose of [n, k]."""

    m: int
    k: int
    n: int


Products = Counter[Shape]


def seconds(work: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 1) -> list[float]:
    """Wall seconds of every repeat, from the call until the device has done it."""
    times = []
    for index in range(warm_up + repeats):
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        if index >= warm_up:
            times.append(time.perf_counter() - started)
    return times


class ProductRate:
    """How fast the device does the linear products of some work, one after another and nothing else, in bf16."""

    def __init__(self, device: torch.device, *, training: bool, spent: float) -> None:
        """training: with the two products of the backward pass. spent: seconds a shape may take, about."""
        self._device, self._training, self._spent = device, training, spent

    def __call__(self, products: Products) -> tuple[float, list[dict[str, Any]]]:
        """FLOP/s over all products together, and FLOP/s of each shape forwards."""
        flops = took = 0.0
        each = []
        for shape, count in products.items():
            m, k, n = shape
            left, right = self._matrix(m, k), self._matrix(n, k)
            times = [self._time(left, right.t())]
            if self._training:
                gradient = self._matrix(m, n)
                times += [self._time(gradient, right), self._time(gradient.t(), left)]
            flops += count * len(times) * 2.0 * m * k * n
            took += count * sum(times)
            each.append({"shape": list(shape), "count": count, "tflops": [2e-12 * m * k * n / part for part in times]})
        return flops / took, each

    def _matrix(self, rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, device=self._device, dtype=torch.bfloat16)

    def _time(self, left: torch.Tensor, right: torch.Tensor) -> float:
        """Median seconds of a product."""
        shortest = min(seconds(lambda: left @ right, self._device, 2, warm_up=2))
        often = max(1, min(50, int(self._spent / 3 / max(shortest, 1e-7))))

        def many() -> None:
            for _ in range(often):
                left @ right

        return statistics.median(seconds(many, self._device, 3, warm_up=0)) / often


def teacher_products(size: TeacherSize, tokens: int, masked: int) -> Products:
    """Linear products of a forward pass; the last layer but for keys and values at masked positions alone."""
    h, f, inner = size.width, size.ffn, size.layers - 1
    products: Products = Counter()
    for shape, count in (
        (Shape(tokens, h, h), 4 * inner + 2),
        (Shape(tokens, h, f), inner),
        (Shape(tokens, f, h), inner),
        (Shape(masked, h, h), 3),
        (Shape(masked, h, f), 1),
        (Shape(masked, f, h), 1),
        (Shape(masked, h, size.vocabulary), 1),
    ):
        products[shape] += count
    return products


def student_products(size: StudentSize, src: int, tgt: int, targets: int, block: int = 2_048) -> Products:
    """Linear products of a forward pass over padded source and target tokens; the output layer in blocks of rows."""
    h, f, encoder, decoder = size.width, size.ffn, size.encoder_layers, size.decoder_layers
    products: Products = Counter()
    for shape, count in (
        (Shape(src, h, h), 4 * encoder + 2 * decoder),
        (Shape(src, h, f), encoder),
        (Shape(src, f, h), encoder),
        (Shape(tgt, h, h), 6 * decoder),
        (Shape(tgt, h, f), decoder),
        (Shape(tgt, f, h), decoder),
        (Shape(min(targets, block), h, size.vocabulary), max(1, round(targets / block))),
    ):
        products[shape] += count
    return products


def kernels(work: Callable[[], object], device: torch.device, wall: float | None = None) -> dict[str, Any]:
    """What the device did during `work`: the kernels that took longest, and the share of the time that it was busy.

    wall: seconds that `work` takes when nobody looks; None takes the time under the profiler, which is longer.
    """
    on_gpu = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    work()
    synchronise(device)
    with profile(activities=[activity]) as profiler:
        started = time.perf_counter()
        work()
        synchronise(device)
        looked_at = time.perf_counter() - started
    name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = [(getattr(event, name) / 1e6, event.key, event.count) for event in profiler.key_averages()]
    events = sorted((event for event in events if event[0] > 0), reverse=True)
    busy = sum(event[0] for event in events)
    return {
        "busy_seconds": busy,
        "wall_seconds": wall or looked_at,
        "wall_seconds_profiled": looked_at,
        "busy_share": min(1.0, busy / (wall or looked_at)),
        "launches": sum(event[2] for event in events),
        "top": [
            {"kernel": key[:160], "seconds": spent, "share_of_busy": spent / busy, "count": count}
            for spent, key, count in events[:TOP_KERNELS]
        ],
    }
