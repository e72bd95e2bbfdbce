"""How Ray Train sets up the processes of a worker group.

A module of its own because it loads Ray Train, which other processes have no use for.
"""

import platform
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import UserCallback
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import placement_group_callback
from ray.train.v2._internal.execution.controller import placement_group_cleaner
from ray.train.v2._internal.execution.controller.placement_group_cleaner import PlacementGroupCleaner
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from bertkd_ray.execution.device import cuda_problem, require_cuda
from bertkd_ray.training.preemption import handle_sigterm

_LONGEST_REASON = 200
_ABORT_SECONDS = 10.0


class Cleaner(PlacementGroupCleaner):
    """Removes the workers of a training whose controller is dead, as the cluster's own table of actors says.

    Ray's asks the state API, which takes a busy machine's answer without the controller for its death, and knows of no
    death at all where no dashboard runs.
    """


def is_actor_alive(actor_id: str, timeout: float) -> bool:
    """Whether the cluster's table of actors has the actor (id as hex), and not as dead; yes where it cannot tell."""
    try:
        return ray._private.state.actors(actor_id).get("State") not in (None, "DEAD")
    except (ray.exceptions.RayError, RuntimeError):
        return True


# What every training's controller makes the actor of, whose process loads this module with the class.
placement_group_callback.PlacementGroupCleaner = Cleaner  # type: ignore[attr-defined] # imported there
placement_group_cleaner.is_actor_alive = is_actor_alive  # type: ignore[attr-defined] # imported there


@dataclass
class LossReporter(UserCallback):
    """Tells the driver, from the controller, why workers ended that did not end by themselves."""

    progress_actor: Any

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Hands on one line, of the first worker that has one."""
        rank, error = min(worker_exceptions.items())
        self.progress_actor.lose.remote(f"worker {rank}: {loss_reason(error)}")


def loss_reason(error: Exception) -> str:
    """What Ray says of a lost worker, or the last line of what one raised."""
    text = str(getattr(error, "health_check_failure", error)).strip()
    _, _, death = text.partition("is dead because ")
    return (" ".join(death.split()) or text.rpartition("\n")[2])[:_LONGEST_REASON]


class InterruptibleTrainer(DataParallelTrainer):
    """A training that Ctrl-C ends, whatever its controller waits for, as an interrupt of this program.

    Ray's own answer to Ctrl-C asks the controller, which hears nothing while it waits for resources, and stays in place
    when the training is over.
    """

    _controller: Any = None

    def fit(self) -> Any:
        """Trains to the end. Only in the main thread can an interrupt, or `end`, come before it."""
        try:
            return super().fit()
        except KeyboardInterrupt:
            self.end()
            raise

    def end(self) -> None:
        """Ends the controller, and with it the workers; `fit` raises RayActorError."""
        if self._controller is None:
            return
        # Asked, it gives the workers' resources back; it does not hear while it waits for them.
        with suppress(ray.exceptions.RayError):
            ray.get(self._controller.abort.remote(), timeout=_ABORT_SECONDS)
        with suppress(ray.exceptions.RayError):
            ray.kill(self._controller)

    def _register_sigint_handler(self, controller: Any) -> None:
        self._controller = controller


class _Setup(Backend):
    """Ray's torch process group, and workers that take SIGTERM as a notice.

    A group of one without a GPU has nobody to talk to, so that neither it nor the controller need load torch for it.
    """

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Runs in the controller when the workers are there. Raises UserError where torch cannot use their GPUs."""
        if backend_config.on_gpu:
            nodes, problems = worker_group.execute(platform.node), worker_group.execute(cuda_problem)
            require_cuda(dict(zip(nodes, problems, strict=True)))
        process_group = backend_config.process_group(len(worker_group))
        process_group.backend_cls().on_start(worker_group, process_group)
        # Runs in the main thread of each worker, where alone signals can be handled.
        worker_group.execute(handle_sigterm, backend_config.grace)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Runs in the controller before the workers end."""
        process_group = backend_config.process_group(len(worker_group))
        process_group.backend_cls().on_shutdown(worker_group, process_group)


@dataclass
class Processes(BackendConfig):
    """How the workers are set up."""

    grace: float
    """Seconds from SIGTERM to the end."""
    on_gpu: bool

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls."""
        return _Setup

    @property
    def train_func_context(self) -> Any:
        """Entered in each worker around the training function."""
        return self.process_group(1).train_func_context

    def process_group(self, workers: int) -> BackendConfig:
        """Ray's settings of a torch process group, or those of none where none is needed."""
        if workers == 1 and not self.on_gpu:
            return BackendConfig()
        from ray.train.torch import TorchConfig

        # What lies in the host's memory (counts, objects) is exchanged there, without waiting for the GPU.
        return TorchConfig(backend="cpu:gloo,cuda:nccl" if self.on_gpu else "gloo")
