"""Maps over the cluster with Ray Data that go on as long as they get on, whatever dies."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray

from bertkd_ray.core.console import log
from bertkd_ray.core.errors import ReportedError
from bertkd_ray.core.timeline import span
from bertkd_ray.execution.interface import Item, Job, MapWorker, Result, bind_worker

_COLUMN = "item"
_ACTOR_RESTARTS = 4
_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.NodeDiedError,
)
"""Errors of Ray that say that a process or a node has gone, not that the work itself is at fault."""


_Value = TypeVar("_Value")


@dataclass(frozen=True)
class _Numbered(Generic[_Value]):
    """An item, its result, or in place of it the error that the user must see, of which Ray Data keeps no class."""

    number: int
    value: _Value


_Row = dict[str, _Numbered[_Value]]


def map_items(
    items: Sequence[Item], worker: MapWorker[Item, Job, Result], job: Job, *, slots: int, gpus: int, max_failures: int
) -> Iterator[Result]:
    """Maps small items over the cluster with Ray Data, giving results as they come, in no fixed order.

    worker: a function for tasks, or a class whose instances are actors made with the job, at most `slots` at once with
    so many GPUs each. An item is the name of a fragment; its data is read and written by the worker, which may
    have to do it again. Lost processes and nodes are made up for by Ray; where it gives up, the rest is mapped anew as
    long as something was done in between, and else `max_failures` times. Raises a worker's ReportedError as it is.
    """
    waiting = dict(enumerate(items))
    failures = 0
    while waiting:
        before = len(waiting)
        try:
            for row in _mapped(waiting, worker, job, slots, gpus).iter_rows():
                outcome: _Numbered[Result | ReportedError] = row[_COLUMN]
                if isinstance(outcome.value, ReportedError):
                    raise outcome.value
                del waiting[outcome.number]
                yield outcome.value
        except ray.exceptions.RayError as error:
            failures = failures + 1 if len(waiting) == before else 0
            if not _is_lost(error) or failures > max_failures:
                raise
            log(f"workers were lost; going on with {len(waiting)} of {len(items)} items")


def _mapped(
    items: dict[int, Item], worker: MapWorker[Item, Job, Result], job: Job, slots: int, gpus: int
) -> ray.data.Dataset:
    """The data set of outcomes."""
    # Objects in one column, which Ray carries as they are.
    rows = [{_COLUMN: _Numbered(number, item)} for number, item in items.items()]
    dataset: Any = ray.data.from_items(rows, override_num_blocks=len(rows))
    if not isinstance(worker, type):
        mapped: ray.data.Dataset = dataset.map(_compute, fn_kwargs={"compute": bind_worker(worker, job)})
        return mapped
    size = min(slots, len(items))
    # So many actors where there is room, all started at once; an item is given only to one that is free. Ray's own way
    # is to begin with one actor, which is given several items before the next one starts: of two fragments both.
    strategy = ray.data.ActorPoolStrategy(
        min_size=1, max_size=size, initial_size=size, max_tasks_in_flight_per_actor=1, max_concurrent_calls_per_actor=1
    )
    with warnings.catch_warnings():
        # Ray Data has no other way yet to bound the restarts of an actor.
        warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
        mapped = dataset.map(
            _MapActor,
            fn_constructor_kwargs={"worker": worker, "job": job},
            compute=strategy,
            num_cpus=1,
            num_gpus=gpus,
            max_restarts=_ACTOR_RESTARTS,
            max_task_retries=_ACTOR_RESTARTS,
        )
    return mapped


def _compute(row: _Row[Item], compute: Callable[[Item], Result]) -> _Row[Result | ReportedError]:
    numbered = row[_COLUMN]
    try:
        with span("map"):
            return {_COLUMN: _Numbered(numbered.number, compute(numbered.value))}
    except ReportedError as error:
        return {_COLUMN: _Numbered(numbered.number, error)}


class _MapActor(Generic[Item, Result]):
    def __init__(self, worker: MapWorker[Item, Job, Result], job: Job) -> None:
        self._error: ReportedError | None = None
        try:
            with span("start of an actor"):
                self._compute = bind_worker(worker, job)
        except ReportedError as error:
            # Ray would take it for a lost actor, and start the next one.
            self._error = error

    def __call__(self, row: _Row[Item]) -> _Row[Result | ReportedError]:
        if self._error is not None:
            return {_COLUMN: _Numbered(row[_COLUMN].number, self._error)}
        return _compute(row, self._compute)


def _is_lost(error: BaseException | None) -> bool:
    """Whether a process or a node has gone, inside of whatever wrapper."""
    return error is not None and (
        isinstance(error, _LOST) or _is_lost(getattr(error, "cause", None) or error.__cause__)
    )
