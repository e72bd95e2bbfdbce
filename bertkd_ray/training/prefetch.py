"""Micro-batches collated ahead of the update that is being computed."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from bertkd_ray.training.batch_plan import MicroBatch, Streams

_UPDATES_AHEAD = 3


@dataclass(frozen=True)
class CollatedBatch(ABC):
    """The tensors of a micro-batch."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Positions that the loss is summed over."""

    @property
    @abstractmethod
    def padded_tokens(self) -> int:
        """Tokens that the model sees, padding included."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device; from pinned memory to a GPU the process does not wait for the copy."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Self:
        """A copy in memory from which a GPU copies while this process goes on."""
        return self._changed(Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, **{name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)})


CollatedUpdate = list[tuple[MicroBatch, CollatedBatch]]
"""The forward passes of one update: micro-batches, joined or each by itself, with their tensors."""


def prefetch(
    streams: Streams,
    collate: Callable[[MicroBatch], CollatedBatch],
    passes: Callable[[list[MicroBatch]], list[MicroBatch]] = list,
) -> Generator[CollatedUpdate, None, None]:
    """Collates the next updates in a thread, which ends with the generator, while the present one is computed.

    passes: joins an update's micro-batches to forward passes.
    """
    pool = ThreadPoolExecutor(1, "collate")

    def next_update() -> CollatedUpdate:
        return [(micro, collate(micro)) for micro in passes(streams.step())]

    try:
        ahead = deque(pool.submit(next_update) for _ in range(_UPDATES_AHEAD))
        while True:
            update = ahead.popleft().result()
            ahead.append(pool.submit(next_update))
            yield update
    finally:
        pool.shutdown(cancel_futures=True)
