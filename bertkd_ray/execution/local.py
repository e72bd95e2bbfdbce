"""Stages in this process, without Ray: one worker, which trains and maps one thing after another.

For a debugger, for a profile, and for machines where Ray is not installed. Artifacts are the same as Ray's, and so are
their names. Checkpoints lie in the store, so that a training that was cut off goes on. Not supported: several workers,
and pairs that kill their process (they kill this one; under Ray they are rejected).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.core.errors import UserError
from bertkd_ray.training.preemption import Notice

if TYPE_CHECKING:
    from bertkd_ray.config import Config
    from bertkd_ray.training.trainer import HistoryRow, World

_LAST_FILE = "training.pt"
"""Of a checkpoint the file that is uploaded last: with it the checkpoint is whole."""


class LocalRuntime:
    """Stands where `execution.ray.session.Runtime` does when `runtime: local` is configured."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def start(self) -> None:
        """Gives torch its threads and its device; repeated calls change nothing."""
        if self._config.device == "cpu":
            # Before the first use of CUDA: the stages take the first GPU that they see.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import torch

        if self._config.device == "gpu" and not torch.cuda.is_available():
            raise UserError("device: gpu, but this machine has no GPU; set device=auto or device=cpu")
        if self._config.cpus_per_worker:
            torch.set_num_threads(self._config.cpus_per_worker)

    def close(self) -> None:
        """Nothing was started."""

    def train(
        self,
        draft: PendingArtifact,
        worker: Callable[[dict[str, Any], Any], None],
        arguments: dict[str, Any],
        on_rows: Callable[[list[HistoryRow]], None],
    ) -> None:
        """Runs a training function as the only worker, from its newest checkpoint or from the start."""
        from bertkd_ray.core.devices import best_device
        from bertkd_ray.training.trainer import World

        with scratch_directory("restore-") as scratch:
            restore = _newest_checkpoint(draft, scratch)
            worker(arguments, LocalHost(draft, World(device=best_device()), restore, on_rows))

    def map(
        self,
        items: list[dict[str, Any]],
        function: Callable[..., dict[str, Any]] | type,
        arguments: dict[str, Any] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Maps items in their order; a class is made once, with the arguments, and called with every item."""
        call = function(**(arguments or {})) if isinstance(function, type) else None
        for item in items:
            yield call(item) if call else function(item, **(arguments or {}))


@dataclass(frozen=True)
class LocalHost:
    """What a training function needs of the process it runs in; implements `training.trainer.Host`."""

    draft: PendingArtifact
    workers: World
    restore: Path | None
    on_new_rows: Callable[[list[HistoryRow]], None]

    def notice(self) -> Notice:
        """Nobody sends this process away in good time."""
        return Notice.NONE

    def on_rows(self, rows: list[HistoryRow]) -> None:
        """Hands rows of the curves on at once."""
        self.on_new_rows(rows)

    def on_checkpoint(self, save: Callable[[Path], None], row: HistoryRow) -> None:
        """Keeps this checkpoint in the store's directory of unfinished work, and no older one."""
        store, name = self.draft.store, f"checkpoint-{int(row['step']):09d}"
        with scratch_directory("checkpoint-") as directory:
            save(directory)
            store.upload(directory, self.draft.staging, name)
        for older in _checkpoints(self.draft):
            if older != name:
                store.delete(self.draft.staging, older)


def _checkpoints(draft: PendingArtifact) -> list[str]:
    """The whole checkpoints, the oldest first."""
    found = (Path(name) for name, _ in draft.store.files(draft.staging))
    return sorted(path.parts[0] for path in found if path.name == _LAST_FILE and len(path.parts) == 2)


def _newest_checkpoint(draft: PendingArtifact, scratch: Path) -> Path | None:
    names = _checkpoints(draft)
    if not names:
        return None
    draft.store.download(scratch, draft.staging, names[-1])
    return scratch
