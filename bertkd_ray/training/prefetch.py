"""Micro-batches collated ahead of the update that is being computed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from bertkd_ray.training.batch_plan import MicroBatch, Streams

_UPDATES_AHEAD = 2


class CollatedBatch(Protocol):
    """A collated micro-batch."""

    @property
    def count(self) -> int:
        """Positions that the loss is summed over."""

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model sees, padding included."""

    def to(self, device: torch.device) -> CollatedBatch:
        """The same batch on another device."""


CollatedUpdate = list[tuple[MicroBatch, CollatedBatch]]
"""The micro-batches of one update, each with its tensors."""


def pin_memory(batch: Any) -> Any:
    """A copy of a dataclass of tensors in memory from which a GPU copies while this process goes on."""
    tensors = {name: value.pin_memory() for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return replace(batch, **tensors)


def prefetch(streams: Streams, collate: Callable[[MicroBatch], CollatedBatch]) -> Iterator[CollatedUpdate]:
    """Collates the next updates in a thread while the present one is computed."""
    ready: queue.Queue[CollatedUpdate | BaseException] = queue.Queue(_UPDATES_AHEAD)
    ended = threading.Event()

    def produce() -> None:
        try:
            while not ended.is_set():
                item = [(micro, collate(micro)) for micro in streams.step()]
                while not ended.is_set():
                    try:
                        ready.put(item, timeout=0.2)
                        break
                    except queue.Full:
                        continue
        except BaseException as error:
            # Handed to the loop, which raises it where the batch is missed.
            ready.put(error)

    thread = threading.Thread(target=produce, name="collate", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
