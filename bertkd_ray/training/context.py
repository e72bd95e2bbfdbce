"""What a training function is given: its job, its process group, its checkpoint and where to report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from bertkd_ray.config import Config
from bertkd_ray.training.curves import CurveRow
from bertkd_ray.training.preemption import Notice

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Value = TypeVar("Value")
KEPT, KEPT_LIST = "kept", "kept.json"
"""In a checkpoint: the directory of files that later checkpoints share, and a JSON object whose keys are the names of
those that this one needs."""


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")


@dataclass(frozen=True)
class TrainJob:
    """What all workers of a training are given: the store, directories in it, and the configuration."""

    storage: str
    artifact: str
    inputs: Mapping[str, str]
    """Directories by kind of artifact; the BERT's hash that entered the fingerprint, under `bert`."""
    config: Config = field(repr=False)
    """Not shown: Ray Train may keep its workers' arguments as text, and a URI in it may have a password."""


@dataclass(frozen=True)
class World:
    """A process group as one of its workers sees it: its rank, their number, and its device."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=_cpu)

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all workers, on the tensor's device; the argument itself where there is one."""
        if self.size > 1:
            import torch.distributed as dist

            values = values.clone()
            dist.all_reduce(values)
        return values

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        """The sums of numbers over all workers, exchanged in the host's memory, so that no device is waited for."""
        if self.size == 1:
            return numbers
        import torch

        summed: list[float] = self.sum(torch.tensor(numbers, dtype=torch.float64)).tolist()
        return summed

    def gather(self, value: Value) -> list[Value]:
        """Every worker's value, by rank."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values = [value] * self.size
        dist.all_gather_object(values, value)
        return values


class TrainContext(Protocol):
    """The process that trains: its place in the group, the checkpoint to go on from, and where to report."""

    @property
    def world(self) -> World:
        """The process group."""

    @property
    def restore(self) -> Path | None:
        """The directory of a checkpoint, as `save` of `on_checkpoint` wrote it, with all that its `KEPT_LIST` names.

        None to start from the beginning.
        """

    def notice(self) -> Notice:
        """What this worker has been told; called on every rank, once an update."""

    def on_rows(self, rows: list[CurveRow]) -> None:
        """Called on rank 0 with new rows of the curves."""

    def on_checkpoint(self, save: Callable[[Path], None], step: int) -> None:
        """Called on rank 0, in a thread, at a checkpoint; `save` writes it into a directory.

        Of what its `KEPT_LIST` names, `save` writes what no earlier checkpoint has. The one before has to stay until
        this one is whole.
        """
