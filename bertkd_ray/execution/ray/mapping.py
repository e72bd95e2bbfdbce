"""Maps over the cluster with Ray Data that go on as long as they get on, whatever dies."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray

from bertkd_ray.core import errors
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import ReportedError
from bertkd_ray.core.timeline import span

_NUMBER, _ERROR = "item_number", "reported_error"
_ACTOR_RESTARTS = 4
_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.NodeDiedError,
)
"""Errors of Ray that say that a process or a node has gone, not that the work itself is at fault."""


@dataclass(frozen=True)
class ActorPool:
    """How many actors a map may have, and how many GPUs each."""

    size: int
    gpus: int


def map_items(
    items: list[dict[str, Any]],
    function: Callable[..., dict[str, Any]] | type,
    arguments: dict[str, Any],
    pool: ActorPool,
    max_failures: int,
) -> Iterator[dict[str, Any]]:
    """Maps small items over the cluster with Ray Data, giving results as they come, in no fixed order.

    function: a function for tasks, or a class whose instances are actors made with `arguments`. An item names a piece
    of work (a fragment); its data is read and written by the worker, which may have to do it again. Lost processes and
    nodes are made up for by Ray; where it gives up, the rest is mapped anew as long as something was done in between,
    and else `max_failures` times. Raises a worker's ReportedError as it is.
    """
    waiting = dict(enumerate(items))
    failures = 0
    while waiting:
        before = len(waiting)
        try:
            for row in _mapped(waiting, function, arguments, pool).iter_rows():
                if _ERROR in row:
                    raise getattr(errors, row[_ERROR])(row["message"])
                del waiting[row.pop(_NUMBER)]
                yield row
        except ray.exceptions.RayError as error:
            failures = failures + 1 if len(waiting) == before else 0
            if not _is_lost(error) or failures > max_failures:
                raise
            log(f"workers were lost; going on with {len(waiting)} of {len(items)} parts")


def _mapped(
    items: dict[int, dict[str, Any]],
    function: Callable[..., dict[str, Any]] | type,
    arguments: dict[str, Any],
    pool: ActorPool,
) -> ray.data.Dataset:
    """The data set of results; each row has the number of its item."""
    numbered = [{**item, _NUMBER: number} for number, item in items.items()]
    dataset: Any = ray.data.from_items(numbered, override_num_blocks=len(numbered))
    if not isinstance(function, type):
        return dataset.map(_call_numbered, fn_kwargs={"function": function, "arguments": arguments})
    with warnings.catch_warnings():
        # Ray Data has no other way yet to bound the restarts of an actor.
        warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
        return dataset.map(
            _NumberedActor,
            fn_constructor_kwargs={"make": function, "arguments": arguments},
            compute=_strategy(min(pool.size, len(items))),
            num_cpus=1,
            num_gpus=pool.gpus,
            max_restarts=_ACTOR_RESTARTS,
            max_task_retries=_ACTOR_RESTARTS,
        )


def _strategy(size: int) -> ray.data.ActorPoolStrategy:
    """So many actors where there is room, all started at once; an item is given only to one that is free.

    Ray's own way is to begin with one actor, which is given several items before the next one starts: of two fragments
    both.
    """
    return ray.data.ActorPoolStrategy(
        min_size=1, max_size=size, initial_size=size, max_tasks_in_flight_per_actor=1, max_concurrent_calls_per_actor=1
    )


def _call_numbered(row: dict[str, Any], function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """A task of `Runtime.map`. What the user has to be told comes back as a row: Ray Data keeps only its traceback."""
    number = row.pop(_NUMBER)
    try:
        with span("map"):
            return {**function(row, **arguments), _NUMBER: number}
    except ReportedError as error:
        return {_ERROR: type(error).__name__, "message": str(error)}


class _NumberedActor:
    """An actor of `Runtime.map`."""

    def __init__(self, make: Callable[..., Any], arguments: dict[str, Any]) -> None:
        with span("start of an actor"):
            self._call = make(**arguments)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _call_numbered(row, self._call, {})


def _is_lost(error: BaseException | None) -> bool:
    """Whether a process or a node has gone, inside of whatever wrapper."""
    while error is not None:
        if isinstance(error, _LOST):
            return True
        error = getattr(error, "cause", None) or error.__cause__
    return False
