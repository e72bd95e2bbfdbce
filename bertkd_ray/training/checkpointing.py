"""When a training writes checkpoints, and the thread that writes them while it goes on.

The loop waits for a copy of weights and optimizer in the host's memory, and for the checkpoint before to be written.
Writing and uploading happen in a thread of rank 0. Without a fixed number of steps, the next checkpoint is so far off
that checkpoints cost at most 2% of the time.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from bertkd_ray.training.checkpoint import Checkpoint
from bertkd_ray.training.context import TrainContext

LARGEST_SHARE = 0.02
"""Share of a training's time that its checkpoints cost, where their interval is not fixed."""
LEAST_SECONDS = 30.0
"""Seconds between two of them, at least; of the first, whose cost nobody knows, from the start."""
_WRITING_BESIDE_A_GPU = 0.1
"""What a second of the thread costs of a training that does not compute on the thread's core, so that it writes for at
most a fifth of the time. Chosen, not measured."""


def interval_seconds(blocked: float, written: float, *, on_gpu: bool) -> float:
    """Seconds from one checkpoint to the next, where it keeps the loop waiting and its thread busy for so many."""
    cost = blocked + written * (_WRITING_BESIDE_A_GPU if on_gpu else 1.0)
    return max(LEAST_SECONDS, cost / LARGEST_SHARE)


class Checkpointing:
    """The checkpoints of one worker of a training; only that of rank 0 writes any."""

    def __init__(self, context: TrainContext, every: int | None, written: dict[str, str]) -> None:
        """every: steps between two; None is by their cost. written: checksums of weights that earlier ones hold."""
        self._context, self._every, self._written = context, every, written
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[float] | None = None
        self._started = time.perf_counter()
        self._blocked, self._interval = 0.0, LEAST_SECONDS

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint follows the update of this step; where they go by their cost, rank 0 alone knows."""
        if self._writing is not None and self._writing.done():
            self._finish()
        if self._every is not None:
            return step % self._every == 0
        is_free = self._context.world.rank == 0 and self._writing is None
        return is_free and time.perf_counter() - self._started >= self._interval

    def write(self, copy: Callable[[], Checkpoint], step: int, *, wait: bool) -> None:
        """Writes the checkpoint that `copy` gives, in the thread; returns once it is copied, or with `wait` written.

        Raises what the writing of the one before has raised, and with `wait` of this one.
        """
        if self._context.world.rank:
            return
        self._started = time.perf_counter()
        self._finish()
        self._writing = self._pool.submit(self._write, copy(), step)
        self._blocked = time.perf_counter() - self._started
        if wait:
            self._finish()

    def close(self) -> None:
        """Waits until the last one is written. Raises what its writing raises."""
        try:
            self._finish()
        finally:
            self._pool.shutdown()

    def _finish(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            on_gpu = self._context.world.device.type != "cpu"
            self._interval = interval_seconds(self._blocked, writing.result(), on_gpu=on_gpu)

    def _write(self, checkpoint: Checkpoint, step: int) -> float:
        """Seconds that it took."""
        started = time.perf_counter()
        checksums: dict[str, str] = {}

        def save(directory: Path) -> None:
            checksums.update(checkpoint.write(directory, self._written))

        self._context.on_checkpoint(save, step)
        self._written = checksums
        return time.perf_counter() - started
