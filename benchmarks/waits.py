"""What a process waits for a GPU for: on a GPU as torch tells it, on a CPU the calls that would."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.loop import Updates
from bertkd_ray.core.devices import Precision

_OPERATORS = {
    "_local_scalar_dense",
    "nonzero",
    "bincount",
    "masked_select",
    "equal",
    "is_nonzero",
    "unique",
    "_unique2",
}
"""Operators of torch whose result's size or value the process has to know."""
_METHODS = {"tolist", "numpy", "item", "cpu", "__bool__", "__int__", "__float__", "__index__"}
_SYNCHRONISES = "synchronizing CUDA operation"
"""In what torch warns of in its debug mode."""
_FRAMES = 12
CPU = torch.device("cpu")


class Wait(NamedTuple):
    """A call that waits, and the innermost frames that lead to it."""

    call: str
    trace: str

    @classmethod
    def here(cls, call: str) -> Wait:
        """Of the caller."""
        return cls(call, "".join(traceback.format_stack()[-_FRAMES - 2 : -2]))


class _Operators(TorchDispatchMode):
    def __init__(self, calls: list[Wait]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        indices = args[1] if name.startswith(("index", "_index")) and isinstance(args[1], list | tuple) else []
        if name in _OPERATORS or any(index is not None and index.dtype == torch.bool for index in indices):
            self._calls.append(Wait.here(name))
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, calls: list[Wait]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _METHODS:
            self._calls.append(Wait.here(func.__name__))
        return func(*args, **(kwargs or {}))


def traced_waits(work: Callable[[], object], device: torch.device = CPU) -> list[Wait]:
    """The calls in `work` that wait for the device, in their order; on a CPU those that would wait for a GPU."""
    calls: list[Wait] = []
    if device.type == "cuda":
        _watch_gpu(work, calls)
    else:
        with _Operators(calls), _Methods(calls):
            work()
    return calls


def waits(work: Callable[[], object]) -> list[str]:
    """Names of the calls in `work` that would wait for a GPU, in their order."""
    return [wait.call for wait in traced_waits(work)]


def update_waits(task: Any, batch: Any, precision: Precision = "float32", device: torch.device = CPU) -> list[Wait]:
    """Those of an update of a training: the batch's way to the device, loss, gradients, clipping and optimizer."""
    update = Updates(task, precision, device)
    return traced_waits(lambda: update(batch), device)


def _watch_gpu(work: Callable[[], object], calls: list[Wait]) -> None:
    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        if _SYNCHRONISES in str(message):
            calls.append(Wait.here(str(message).partition("(")[0].strip()))

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
