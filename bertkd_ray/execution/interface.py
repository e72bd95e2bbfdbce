"""What a stage asks of whoever runs its workers: to train on a worker group, and to map over a pool.

`execution.ray.session` implements it with Ray, `execution.local` in this process.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar, cast

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.execution.device import DeviceType
from bertkd_ray.training.context import TrainContext
from bertkd_ray.training.curves import RowCallback

Job = TypeVar("Job")
"""What all workers of a stage are given: a frozen dataclass of the stage."""
Item = TypeVar("Item")
"""The name of one item of work (a fragment), plain data; the worker reads and writes its data."""
Result = TypeVar("Result")
"""What a worker tells of an item that is done (counts), a frozen dataclass."""

TrainWorker = Callable[[Job, TrainContext], None]
"""A training function, called once in every process of the group."""
MapWorker = Callable[[Item, Job], Result] | Callable[[Job], Callable[[Item], Result]]
"""A function for tasks, or a class whose instances, made of the job, are actors called with one item after another."""

OnDone = Callable[[str, int], None]
"""Takes the name of an item's file and how many of its pairs are done; they are fewer once it is begun again."""


class Runtime(Protocol):
    """Whoever runs the workers of stages."""

    def start(self) -> None:
        """Makes workers possible; to be called before `train` and `map`, any number of times."""

    def close(self) -> None:
        """Ends what `start` began."""

    @property
    def address(self) -> str:
        """What other processes find as `RAY_ADDRESS`, to work on what was started too; empty where there is nothing."""

    @property
    def device(self) -> DeviceType:
        """What workers compute on, once it is started. Raises UserError when `device: gpu` finds none."""

    def train(self, pending: PendingArtifact, worker: TrainWorker[Job], job: Job, on_rows: RowCallback) -> None:
        """Runs a training function in every process of a worker group, until it has ended everywhere.

        pending: the artifact being made, beside which the checkpoints lie. on_rows: called in this process with new
        rows of the curves. A training that was cut off goes on from its newest checkpoint.
        """

    def trainings_at_once(self) -> int:
        """How many trainings have room beside each other, on GPUs that would be idle otherwise; 1 at least."""

    def map(self, items: Sequence[Item], worker: MapWorker[Item, Job, Result], job: Job) -> Iterator[Result]:
        """The results of all items as they come, in no fixed order; an item may be computed more than once."""

    def reporting(self, on_done: OnDone) -> AbstractContextManager[OnDone]:
        """A function that workers of a map may call from anywhere; newest calls come to `on_done`, in any thread."""


def bind_worker(worker: MapWorker[Item, Job, Result], job: Job) -> Callable[[Item], Result]:
    """A worker of a map as a function of an item: an actor made of the job, or the function with it."""
    if isinstance(worker, type):
        return cast("Callable[[Job], Callable[[Item], Result]]", worker)(job)
    function = cast("Callable[[Item, Job], Result]", worker)
    return lambda item: function(item, job)
