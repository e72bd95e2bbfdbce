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

from bertkd_ray.core.devices import Precision, padding_multiple, synchronise
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import DISTILL, EXTRACT, FINETUNE, TRANSLATE


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

    def with_rate(self, flops: float) -> Device:
        """The same device at another rate, whatever the stage."""
        return replace(self, flops=dict.fromkeys(self.utilisation, flops), rate_source="as given")


_MEASURED_ON_GPU = "measured on an H100, benchmarks/results/gpu-h100.json"
_GPU_UTILISATION = {FINETUNE.name: 0.24, EXTRACT.name: 0.29, DISTILL.name: 0.19, TRANSLATE.name: 0.03}
"""Batches of 16,384 tokens (65,536 in extract: 0.37), of 24,576 target tokens, of 1,000 sentences with beam 5."""
_GPU_FLOPS = {FINETUNE.name: 633e12, EXTRACT.name: 656e12, DISTILL.name: 586e12, TRANSLATE.name: 586e12}


def _gpu(name: str) -> Device:
    padding = padding_multiple(torch.device("cuda"))
    return Device(name, _GPU_FLOPS, _GPU_UTILISATION, _MEASURED_ON_GPU, _MEASURED_ON_GPU, padding, is_gpu=True)


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
    is_gpu = device.type == "cuda"
    return Device(name, flops, shares, "measured here just now", source, padding_multiple(device), is_gpu=is_gpu)


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
