"""What a process would wait for a GPU for, counted on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

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


class _Operators(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        indices = args[1] if name.startswith(("index", "_index")) and isinstance(args[1], list | tuple) else []
        if name in _OPERATORS or any(index is not None and index.dtype == torch.bool for index in indices):
            self._found.append(name)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _METHODS:
            self._found.append(func.__name__)
        return func(*args, **(kwargs or {}))


def waits(work: Callable[[], object]) -> list[str]:
    """Names of the calls in `work` that would wait for a GPU, in their order."""
    found: list[str] = []
    with _Operators(found), _Methods(found):
        work()
    return found


def update_waits(task: Any, batch: Any, precision: str = "float32") -> list[str]:
    """Those of an update of a training from its batch on the device: loss, gradients, clipping and optimizer."""
    parameters = [p for p in task.objective.parameters() if p.requires_grad]

    def update() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = task.objective(batch)
            (loss / batch.count).backward()
        torch.nn.utils.clip_grad_norm_(parameters, task.max_norm, foreach=True)
        task.optimizer.step()

    return waits(update)
