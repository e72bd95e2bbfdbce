"""Which device computes, and in which precision."""

from typing import Literal

import torch

Precision = Literal["bf16", "float32"]


def best_device() -> torch.device:
    """The GPU that this process sees first, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def synchronise(device: torch.device) -> None:
    """Returns when the device has done what it was given; raises when it cannot be used any more."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def resolve_precision(wanted: Literal["auto", "bf16", "float32"], device: torch.device) -> Precision:
    """`auto` becomes bf16 where the hardware multiplies bf16: CUDA from Ampere on, CPUs with AMX or AVX512-BF16."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    # torch tells CPU features through these two functions alone; without them plain float32 is the safe answer.
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return "bf16" if any(getattr(torch.cpu, probe, bool)() for probe in probes) else "float32"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """bf16 autocast on this device, or a context that does nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def padding_multiple(device: torch.device, positions: int | None = None) -> int:
    """Rows are padded to a multiple of so many tokens: 8 where the hardware multiplies in tiles of 8, on CPUs 1.

    positions: embeddings of a model that has no more; where 8 does not divide them, a row might get too long, so 1.
    On a CPU a padded token of a teacher's batch takes as long at 41, 42 or 43 tokens a row as at 40, and rounding up
    to 8 was 8% more padded tokens.
    """
    return 1 if device.type == "cpu" or (positions or 0) % 8 else 8


def resolve_attention(
    wanted: Literal["auto", "eager", "sdpa"], device: torch.device, *, training: bool
) -> Literal["eager", "sdpa"]:
    """`auto` is `sdpa` for inference on a GPU, else plain attention.

    On a CPU the backward of the fused kernel is the slower one. On an H100 updates with ever new shapes were 2.1 to 2.6
    times as fast with plain attention: the device waits while fused attention is planned for a shape.
    """
    if wanted != "auto":
        return wanted
    return "sdpa" if device.type == "cuda" and not training else "eager"
