"""Gradients of an update, of micro-batches that are cut into parts where the device's memory does not hold them.

Loss and gradients are sums over positions, so the parts of a micro-batch, added up, are the whole. Only dropout
differs: the parts have draws of their own.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bertkd_ray.core.console import log
from bertkd_ray.core.devices import Precision, autocast
from bertkd_ray.core.keyed_random import keyed_seed
from bertkd_ray.training.batch_plan import MicroBatch
from bertkd_ray.training.dropout import seeded_dropout
from bertkd_ray.training.prefetch import CollatedBatch, CollatedUpdate


class PartSums(NamedTuple):
    """What the objective gave for a batch, detached."""

    loss: Tensor
    stats: Tensor
    batch: CollatedBatch


@dataclass
class GradientAccumulation:
    """Adds up an update's gradients in the parameters of a model."""

    model: nn.Module
    """The objective, under several workers in DistributedDataParallel: forward(batch) -> (loss sum, sums)."""
    collate: Callable[[MicroBatch], CollatedBatch]
    device: torch.device
    precision: Precision
    seed: int
    too_large: int = sys.maxsize
    """The fewest padded tokens of a batch for which memory was too small."""

    def add(self, micros: CollatedUpdate, scale: float, step: int, zero_grad: Callable[[], None]) -> list[PartSums]:
        """The sums of all parts; the gradients are those of the losses times `scale`, and of nothing before.

        A batch that finds no memory is cut in two, and the update begun again. Raises torch.OutOfMemoryError for one
        of one row, and where several workers have begun to exchange gradients.
        """
        while True:
            zero_grad()
            parts = [part for micro, batch in micros for part in self._parts(micro, batch)]
            sums: list[PartSums] = []
            # Nothing is kept of the error, which would hold on to memory.
            if self._add(parts, scale, step, sums):
                return sums
            self.too_large = min(self.too_large, parts[len(sums)].batch.padded_tokens)
            log(
                f"warning: memory is too small for {self.too_large} tokens at once; batches that large are computed in "
                "parts, with the same sums; more micro_batches save the time"
            )
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _add(self, parts: list["_BatchPart"], scale: float, step: int, sums: list[PartSums]) -> bool:
        """Adds to the sums one part after the other; False at the first that memory is too small for."""
        for index, part in enumerate(parts):
            # Gradients are exchanged once an update, with its last part.
            exchanged, model = index + 1 == len(parts), self.model
            alone = not isinstance(model, DistributedDataParallel)
            quiet = nullcontext() if exchanged or alone else model.no_sync()  # type: ignore[operator] # DDP's
            streams = [micro.stream for micro in (part.micro, *part.micro.joined)]
            seed = keyed_seed(self.seed, step, *streams, *part.number)
            in_backward = False
            try:
                with quiet, autocast(self.device, self.precision), seeded_dropout(seed, self.device):
                    loss, stats = model(part.batch.to(self.device))
                    in_backward = True
                    (loss * scale).backward()
            except torch.OutOfMemoryError:
                if len(part.micro.rows) == 1 or (in_backward and exchanged and not alone):
                    raise
                return False
            sums.append(PartSums(loss.detach(), stats.detach(), part.batch))
        return True

    def _parts(self, micro: MicroBatch, batch: CollatedBatch, *number: int) -> list["_BatchPart"]:
        if batch.padded_tokens < self.too_large or len(micro.rows) == 1:
            return [_BatchPart(micro, batch, number)]
        half = len(micro.rows) // 2
        first = replace(micro, rows=micro.rows.slice(0, half))
        second = replace(micro, rows=micro.rows.slice(half))
        return [
            *self._parts(first, self.collate(first), *number, 0),
            *self._parts(second, self.collate(second), *number, 1),
        ]


class _BatchPart(NamedTuple):
    micro: MicroBatch
    batch: CollatedBatch
    number: tuple[int, ...]
    """Which half of which half; empty of a whole micro-batch."""
