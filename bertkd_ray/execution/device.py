"""The device that a runtime gives its workers, and what is said where torch cannot use it."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from bertkd_ray.core.errors import UserError, one_line

if TYPE_CHECKING:
    import torch

DeviceType = Literal["cpu", "cuda"]


def open_device(wanted: DeviceType | None) -> torch.device:
    """The CPU, or the GPU that this process sees first; None: the GPU where torch can use one.

    Raises UserError for a GPU that torch cannot use.
    """
    import torch

    from bertkd_ray.core.devices import best_device

    if wanted == "cpu":
        return torch.device("cpu")
    if wanted == "cuda":
        require_cuda({platform.node(): cuda_problem()})
    return best_device()


def require_cuda(problems: Mapping[str, str]) -> None:
    """Raises UserError for the first of some nodes that has a `cuda_problem`."""
    for node, reason in problems.items():
        if reason:
            raise UserError(
                f"device: {node} gives a GPU for this work, but torch cannot use it there ({reason}); install a torch "
                "for CUDA, and a driver that it knows, or set device=cpu"
            )


def cuda_problem() -> str:
    """Why torch cannot use a GPU in this process, in one line; empty where it can."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an old driver, which the error names too
        if torch.cuda.is_available():
            return ""
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            return one_line(error)
    return "it sees none"
