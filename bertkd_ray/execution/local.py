"""Stages in this process, without Ray: one worker, which trains and maps one thing after another.

For a debugger, for a profile, and for machines where Ray is not installed. Artifacts are the same as Ray's, and so are
their names. Checkpoints lie in the store, so that a training that was cut off goes on. Not supported: several workers,
and pairs that kill their process (they kill this one; under Ray they are rejected).
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.config import Config
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import DamagedCheckpointError, UserError
from bertkd_ray.execution.checkpoints import download_checkpoint, keep_checkpoint, whole_checkpoints
from bertkd_ray.execution.device import DeviceType, cuda_problem, open_device
from bertkd_ray.execution.interface import Item, Job, MapWorker, OnDone, Result, TrainWorker, bind_worker
from bertkd_ray.training.context import World
from bertkd_ray.training.curves import CurveRow, RowCallback
from bertkd_ray.training.preemption import Notice, PreemptedError


class LocalRuntime:
    """Implements `execution.interface.Runtime` where `runtime: local` is configured."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def start(self) -> None:
        """Gives torch its threads and its device; repeated calls change nothing."""
        import torch

        if self._config.device == "gpu" and not torch.cuda.is_available():
            raise UserError(
                f"device: gpu, but this machine has no GPU; set device=auto or device=cpu (torch: {cuda_problem()})"
            )
        if self._config.cpus_per_worker:
            torch.set_num_threads(self._config.cpus_per_worker)

    def close(self) -> None:
        """Nothing was started."""

    @property
    def address(self) -> str:
        """Empty."""
        return ""

    @property
    def device(self) -> DeviceType:
        """The GPU where torch can use one, unless `device: cpu` is configured."""
        return "cpu" if self._config.device == "cpu" or open_device(None).type == "cpu" else "cuda"

    def train(self, pending: PendingArtifact, worker: TrainWorker[Job], job: Job, on_rows: RowCallback) -> None:
        """Runs a training function as the only worker, from its newest whole checkpoint or from the start.

        Ctrl-C and SIGTERM end it between two steps, with a checkpoint.
        """
        world = World(device=open_device(self.device))
        with _interrupts_noted() as interrupted, suppress(PreemptedError):
            for checkpoint in (*reversed(whole_checkpoints(pending.store, pending.staging)), None):
                with scratch_directory("restore-") as scratch:
                    if checkpoint:
                        download_checkpoint(pending.store, pending.staging, checkpoint, scratch)
                    restore = scratch if checkpoint else None
                    try:
                        worker(job, LocalTrainContext(pending, world, restore, on_rows, interrupted))
                        break
                    except DamagedCheckpointError as error:
                        log(f"{checkpoint} is skipped: {error}")
        if interrupted.is_set():
            raise KeyboardInterrupt

    def trainings_at_once(self) -> int:
        """One: this process has one device."""
        return 1

    def map(self, items: Sequence[Item], worker: MapWorker[Item, Job, Result], job: Job) -> Iterator[Result]:
        """Maps items in their order; a class is made once, with the job, and called with every item."""
        yield from map(bind_worker(worker, job), items)

    def reporting(self, on_done: OnDone) -> AbstractContextManager[OnDone]:
        """The function itself: the worker is in this process."""
        return nullcontext(on_done)


@dataclass(frozen=True)
class LocalTrainContext:
    """Implements `training.context.TrainContext` for a training in this process."""

    pending: PendingArtifact
    world: World
    restore: Path | None
    on_new_rows: RowCallback
    interrupted: threading.Event = field(default_factory=threading.Event)

    def notice(self) -> Notice:
        """Ctrl-C or SIGTERM; otherwise nobody sends this process away in good time."""
        return Notice.TERMINATE if self.interrupted.is_set() else Notice.NONE

    def on_rows(self, rows: list[CurveRow]) -> None:
        """Hands rows of the curves on at once."""
        self.on_new_rows(rows)

    def on_checkpoint(self, save: Callable[[Path], None], step: int) -> None:
        """Keeps this checkpoint in the store's directory of unfinished work, and no older one."""
        keep_checkpoint(self.pending.store, self.pending.staging, save, step)


@contextmanager
def _interrupts_noted() -> Iterator[threading.Event]:
    """Notes the first Ctrl-C or SIGTERM in the block, which in torch's own code could abort; the second interrupts."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    with ExitStack() as handlers:

        def note(number: int, frame: object) -> None:
            interrupted.set()
            handlers.close()

        for number in (signal.SIGINT, signal.SIGTERM):
            handlers.callback(signal.signal, number, signal.signal(number, note))
        yield interrupted
