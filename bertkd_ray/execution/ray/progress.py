"""What workers report while they are silent: an actor holds it, and the driver asks that every second."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bertkd_ray.core.console import log
from bertkd_ray.execution.interface import OnDone
from bertkd_ray.training.curves import CurveRow, RowCallback

_POLL_SECONDS = 1.0
ReportedRow = CurveRow | tuple[str, str, int]
"""A point of a curve, or a map's id, a file's name and how many of its pairs are done."""


def ready_progress_actor(progress_actor: Any = None) -> Any:
    """An empty progress actor: the given one while it lives, else a new one."""
    if progress_actor is not None:
        with suppress(ray.exceptions.RayActorError):
            ray.get(progress_actor.clear.remote())
            return progress_actor
    # No other node can take it away.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return _ProgressActor.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined] # a handle by the decorator


@ray.remote(num_cpus=0)
class _ProgressActor:
    """Holds workers' rows or counts that the driver has not yet taken, and the last error that the user must see."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._rows: list[ReportedRow] = []
        self._starts: list[tuple[int, str]] = []
        self._lost = ""
        self._error: BaseException | None = None

    def begin(self, world_size: int) -> None:
        self._starts.append((world_size, self._lost))
        self._lost = ""

    def lose(self, reason: str) -> None:
        self._lost = reason

    def fail(self, error: BaseException) -> None:
        self._error = error

    def error(self) -> BaseException | None:
        return self._error

    def add(self, rows: list[ReportedRow]) -> None:
        self._rows += rows

    def take(self) -> tuple[list[tuple[int, str]], list[ReportedRow]]:
        """The worker groups that have begun since the last call (size, and why the last one ended); the new rows."""
        taken = self._starts, self._rows
        self._starts, self._rows = [], []
        return taken


@contextmanager
def forwarded_rows(progress_actor: Any, on_rows: RowCallback, on_poll: Callable[[bool], None]) -> Iterator[None]:
    """Passes the workers' rows to `on_rows` while the block runs, and what is left after it.

    on_poll: called every second with whether workers have begun.
    """
    groups = 0

    def take() -> None:
        nonlocal groups
        starts, rows = ray.get(progress_actor.take.remote())
        for size, reason in starts:
            groups += 1
            if groups > 1:
                workers = f"{size} worker{'s' * (size > 1)}"
                log(f"training goes on from the newest checkpoint, with {workers}{f'; {reason}' * bool(reason)}")
        on_rows(rows)
        on_poll(groups > 0)

    with _polled(take):
        yield


@contextmanager
def forwarded_counts(progress_actor: Any, on_done: OnDone) -> Iterator[OnDone]:
    """A function for workers, of whose calls the newest come to `on_done` while the block runs."""

    def take() -> None:
        # A map does without its progress when the actor is lost.
        with suppress(ray.exceptions.RayActorError):
            for of_map, name, done in ray.get(progress_actor.take.remote())[1]:
                # A worker of an earlier map may be late.
                if of_map == report.map_id:
                    on_done(name, done)

    report = _Report(progress_actor, uuid.uuid4().hex)
    with _polled(take):
        yield report


@dataclass
class _Report:
    """Sends a count to the actor, unless it has just sent one."""

    progress_actor: Any
    map_id: str
    _next: float = 0.0

    def __call__(self, name: str, done: int) -> None:
        if (now := time.monotonic()) >= self._next:
            self._next = now + _POLL_SECONDS
            self.progress_actor.add.remote([(self.map_id, name, done)])


@contextmanager
def _polled(take: Callable[[], None]) -> Iterator[None]:
    """Calls a function every second while the block runs, in a thread, and once after it. Raises what it raises."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(_POLL_SECONDS):
            take()

    with ThreadPoolExecutor(1) as threads:
        polling = threads.submit(poll)
        try:
            yield
        finally:
            ended.set()
    polling.result()
    take()
