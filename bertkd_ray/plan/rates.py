"""How fast devices multiply matrices, and which share of that the stages reach: what a plan divides operations by.

A rate is that of plain bf16 matrix products of the models' own shapes, which any machine can measure of itself; a
utilisation is a stage's matrix FLOP/s, end to end, over that rate. Not modelled: storage and networks that are slower
than the devices, and the time in which devices wait for each other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from bertkd_ray.config import Config
from bertkd_ray.core.devices import Precision, best_device, padding_multiple, resolve_precision, synchronise
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import DISTILL, EXTRACT, FINETUNE, TRANSLATE
from bertkd_ray.plan.operations import StudentSize, TeacherSize


@dataclass(frozen=True)
class Device:
    """The speed of a device."""

    name: str
    flops: Mapping[str, float]
    """FLOP/s of matrix products as the stage has them, by stage."""
    utilisation: Mapping[str, float]
    """Share of the rate by stage; `translate` is all decoding, that of validation too."""
    rate_source: str
    """Where the rate is from, in words."""
    utilisation_source: str
    """Where the shares are from, in words."""
    padding_multiple: int
    """Batches are padded to a multiple of so many tokens."""
    is_gpu: bool
    launch_seconds: float = 0.0
    """From one launch to the next, where the device computes faster than the process launches."""

    def with_rate(self, flops: float) -> Device:
        """The same device at another rate, whatever the stage."""
        return replace(self, flops=dict.fromkeys(self.utilisation, flops), rate_source="as given")


_MEASURED_ON_GPU = "measured on an H100, benchmarks/results/gpu-h100.json"
_GPU_UTILISATION = {FINETUNE.name: 0.24, EXTRACT.name: 0.29, DISTILL.name: 0.19, TRANSLATE.name: 0.03}
"""Batches of 16,384 tokens (65,536 in extract: 0.37), of 24,576 target tokens, of 1,000 sentences with beam 5."""
_GPU_FLOPS = {FINETUNE.name: 633e12, EXTRACT.name: 656e12, DISTILL.name: 586e12, TRANSLATE.name: 586e12}
LAUNCHES_A_LAYER = {FINETUNE.name: 154, EXTRACT.name: 28, DISTILL.name: 238}
"""Of a forward pass with plain attention, of training with all else of an update: those of the profiles over layers and
passes, 5,532 / (12 · 3), 2,712 / (12 · 8) and 8,583 / (12 · 3)."""
_LAUNCH_SECONDS = 28e-6
"""12.5 updates a second of the student, 2,861 launches each; the GPU was busy for 93% of the time, so that the process
may be a little faster. Decoding, where it was busy for 42%, took 23 µs."""


def _gpu(name: str) -> Device:
    padding, source = padding_multiple(torch.device("cuda")), _MEASURED_ON_GPU
    return Device(name, _GPU_FLOPS, _GPU_UTILISATION, source, source, padding, True, _LAUNCH_SECONDS)


# An H200 is the same chip with more and faster memory; it has not been measured.
DEVICES: dict[str, Device] = {"h100": _gpu("H100"), "h200": _gpu("H200")}
"""Devices by the name that `--device` takes: one GPU each, an SXM module."""

_MEASURED_ON_CPU = "measured on two cores of an AMD EPYC, benchmarks/results/cpu.json"
_CPU_UTILISATION = {FINETUNE.name: 0.63, EXTRACT.name: 0.60, DISTILL.name: 0.62, TRANSLATE.name: 0.10}
"""What stages reach of a CPU's own product rate; `translate` of that of distillation's shapes."""


def known_device(name: str) -> Device:
    """A device of the table. Raises UserError for another name."""
    if name.lower() not in DEVICES:
        raise UserError(f"--device {name}: known are {', '.join(DEVICES)}; or give --rate TFLOPS")
    return DEVICES[name.lower()]


def own_device(device: torch.device, flops: Mapping[str, float]) -> Device:
    """This machine's device with measured product rates."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {os.cpu_count()} cores"
    shares = _GPU_UTILISATION if device.type == "cuda" else _CPU_UTILISATION
    source = _MEASURED_ON_GPU if device.type == "cuda" else _MEASURED_ON_CPU
    here, is_gpu = "measured here just now", device.type == "cuda"
    launch_seconds = _LAUNCH_SECONDS if is_gpu else 0.0
    return Device(name, flops, shares, here, source, padding_multiple(device), is_gpu, launch_seconds)


def product_rate(
    shape: tuple[int, int, int], precision: Precision, device: torch.device, *, seconds: float = 0.3
) -> float:
    """FLOP/s of this machine for products of one shape, the median of as many as the seconds allow, three at least.

    shape: rows, inner size and columns.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inner, generator=generator).to(device, dtype)
    right = torch.randn(inner, columns, generator=generator).to(device, dtype)
    out = left @ right
    spent: list[float] = []
    while sum(spent) < seconds or len(spent) < 3:
        synchronise(device)
        started = time.perf_counter()
        torch.mm(left, right, out=out)
        synchronise(device)
        spent.append(time.perf_counter() - started)
    return 2.0 * rows * inner * columns / sorted(spent)[len(spent) // 2]


def chosen_device(
    config: Config, name: Device | str | None, tflops: float | None, teacher: TeacherSize, student: StudentSize
) -> Device:
    """The named device, one with the given rate, or this machine's own."""
    if isinstance(name, Device):
        return name
    own = torch.device("cpu") if config.device == "cpu" else best_device()
    if name is not None or tflops is not None:
        device = own_device(own, {}) if name is None else known_device(name)
        return device if tflops is None else device.with_rate(1e12 * tflops)
    precision = resolve_precision(config.precision, own)
    before = torch.get_num_threads()
    torch.set_num_threads(config.cpus_per_worker or os.cpu_count() or 1)
    try:
        rates = {
            stage: product_rate((rows, shape.width, shape.ffn), precision, own)
            for stage, rows, shape in (
                (FINETUNE.name, config.teacher.batch_tokens // config.teacher.micro_batches, teacher),
                (DISTILL.name, config.student.batch_tokens // config.student.micro_batches, student),
            )
        }
    finally:
        torch.set_num_threads(before)
    return own_device(own, {**rates, EXTRACT.name: rates[FINETUNE.name], TRANSLATE.name: rates[DISTILL.name]})
