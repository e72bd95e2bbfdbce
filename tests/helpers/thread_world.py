"""The workers of one group as threads of this process, whose sums and gathers wait for each other as collectives do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from bertkd_ray.training.context import World

T = TypeVar("T")
_TIMEOUT_SECONDS = 60


class _Exchange:
    def __init__(self, size: int) -> None:
        self._barrier, self._values = threading.Barrier(size), [None] * size

    def __call__(self, rank: int, value: Any) -> list[Any]:
        self._values[rank] = value
        self._barrier.wait(_TIMEOUT_SECONDS)
        values = list(self._values)
        # Nobody may write the next value before all have read this one.
        self._barrier.wait(_TIMEOUT_SECONDS)
        return values


@dataclass(frozen=True)
class _Member(World):
    exchange: Callable[[int, Any], list[Any]] = field(default=lambda rank, value: [value])

    def sum(self, values: Tensor) -> Tensor:
        first, *others = self.gather(values)
        return sum(others, first)

    def gather(self, value: Any) -> list[Any]:
        return self.exchange(self.rank, value)


def run_workers(functions: Sequence[Callable[[World], T]]) -> list[T]:
    """The results of a group of workers, each with its function; fails when they do not make the same collective calls.

    What they change must be each worker's own, as it is in processes: a model's mode, for example.
    """
    size = len(functions)
    exchange = _Exchange(size)
    members = [_Member(rank, size, exchange=exchange) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda function, member: function(member), functions, members))
