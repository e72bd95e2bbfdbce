"""Training with Ray Train: worker groups that go on from the newest checkpoint, and know when they are to end."""

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import ray

from bertkd_ray.artifacts.artifact import STAGING, PendingArtifact
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.errors import DeviceMemoryError, ReportedError, TrainingDivergedError, UserError
from bertkd_ray.core.timeline import span
from bertkd_ray.execution.checkpoints import RAY_SNAPSHOT, download_checkpoint, keep_checkpoint, newest_without_ray
from bertkd_ray.execution.interface import Job, TrainWorker
from bertkd_ray.execution.ray.progress import forwarded_rows
from bertkd_ray.execution.ray.resources import StartWatch
from bertkd_ray.training.context import TrainContext, World
from bertkd_ray.training.curves import RowCallback
from bertkd_ray.training.preemption import Notice, sigterm_as_notice, sigterm_received

_TRAINING = "training"
_FOREIGN_CHECKPOINT = re.compile(rb'\\\\|"checkpoint_dir_name"(?!\s*:\s*"checkpoint_[\w.-]+")')  # Ray escapes nothing
_FINAL = (TrainingDivergedError, DeviceMemoryError)
_NOTICE_EVERY = 10
"""Updates between two questions whether a node is to end: an answer takes a round trip between all workers."""


def train(
    pending: PendingArtifact,
    config: Config,
    resources: dict[str, int],
    worker: TrainWorker[Job],
    job: Job,
    on_rows: RowCallback,
    progress_actor: Any,
) -> None:
    """Runs a training function on the configured workers, each with these resources, until it has ended everywhere.

    progress_actor: an empty one (`ready_progress_actor`), to which the workers report.
    A lost worker starts the job again from its newest checkpoint, at most `max_failures` times (drained nodes do not
    count); a lost driver goes on from it when the same command runs again. Raises the worker's own error when it is a
    ReportedError, and those that no restart would mend (`_FINAL`) at once. Raises UserError within a minute
    where no node holds a worker and none is being started, and ReportedError where the training's controller is lost.
    """
    from ray import train as ray_train

    from bertkd_ray.execution.ray.processes import InterruptibleTrainer, LossReporter, Processes, loss_reason

    _require_own_files(pending)
    # Ray's classes are typed as those of Ray Train's first version, which lacks these settings.
    settings: Any = ray_train
    on_gpu = "GPU" in resources
    trainer = InterruptibleTrainer(
        _enter,
        train_loop_config={
            _TRAINING: _Training(
                worker, job, progress_actor, int(resources["CPU"]), on_gpu, pending.store.uri, pending.staging
            )
        },
        backend_config=Processes(config.preemption_grace, on_gpu=on_gpu),
        scaling_config=settings.ScalingConfig(
            num_workers=config.workers,
            elastic_resize_monitor_interval_s=config.resize_every,
            use_gpu=on_gpu,
            resources_per_worker=resources,
        ),
        run_config=settings.RunConfig(
            name=pending.directory,
            storage_path=pending.store.uri_of(STAGING),
            callbacks=[LossReporter(progress_actor)],
            failure_config=settings.FailureConfig(
                max_failures=config.max_failures, preemption_grace_s=config.preemption_grace
            ),
        ),
    )
    watch = StartWatch(resources, config, trainer.end)

    def poll(begun: bool) -> None:
        if not begun:
            watch()
        elif config.worker_range[1] > 1 and isinstance(_error_of(progress_actor), DeviceMemoryError):
            trainer.end()

    with forwarded_rows(progress_actor, on_rows, poll):
        try:
            with span("Ray Train"):
                trainer.fit()
        except ray.train.TrainingFailedError as error:
            of_controller = getattr(error, "controller_failure", None)
            reported = of_controller if isinstance(of_controller, ReportedError) else None
            raise _error_of(progress_actor) or reported or error from None
        except ray.exceptions.RayActorError as error:
            lost = f"Ray lost what directs the training ({loss_reason(error)})"
            advice = "once the cluster is well, the same command goes on from the newest checkpoint"
            raise watch.problem or _error_of(progress_actor) or ReportedError(f"{lost}; {advice}") from None
    if isinstance(final := _error_of(progress_actor), _FINAL):
        raise final


def _error_of(progress_actor: Any) -> BaseException | None:
    """What a worker has reported; None where nothing was, and where the actor is lost too."""
    with suppress(ray.exceptions.RayActorError):
        error: BaseException | None = ray.get(progress_actor.error.remote())
        return error
    return None


def _require_own_files(pending: PendingArtifact) -> None:
    """Raises UserError where Ray Train, which follows links and deletes what its snapshot names, would go elsewhere."""
    store, staging = pending.store, pending.staging
    snapshot = store.read(staging, RAY_SNAPSHOT) if store.exists(staging, RAY_SNAPSHOT) else b""
    elsewhere = [RAY_SNAPSHOT] if _FOREIGN_CHECKPOINT.search(snapshot) else []
    if wrong := [*store.links(staging), *elsewhere]:
        file = store.display_uri(staging, wrong[0])
        raise UserError(f"storage: {file} is a link, or names checkpoints elsewhere; remove it to begin anew")


@dataclass(frozen=True)
class RayTrainContext:
    """Implements `training.context.TrainContext` in a worker of Ray Train."""

    world: World
    restore: Path | None
    on_rows: RowCallback
    store: Store
    staging: str
    _updates: Iterator[int] = field(default_factory=itertools.count)
    _ends_soon: threading.Event = field(default_factory=threading.Event)

    def notice(self) -> Notice:
        """SIGTERM, or the announced end of the node of one of the workers; the latter is told once."""
        from ray.train import get_preemption_info

        # All workers ask at the same updates, since they wait for each other's question.
        asks = next(self._updates) % _NOTICE_EVERY == 0 and not self._ends_soon.is_set()
        ends_soon = asks and get_preemption_info() is not None
        if ends_soon:
            self._ends_soon.set()
        if sigterm_received.is_set():
            return Notice.TERMINATE
        return Notice.CHECKPOINT if ends_soon else Notice.NONE

    def on_checkpoint(self, save: Callable[[Path], None], step: int) -> None:
        """Keeps this checkpoint in the store's directory of unfinished work, and no older one."""
        keep_checkpoint(self.store, self.staging, save, step)


@dataclass(frozen=True)
class _Training(Generic[Job]):
    """What a worker of Ray Train is given."""

    worker: TrainWorker[Job]
    job: Job
    progress_actor: Any
    threads: int
    on_gpu: bool
    storage: str
    staging: str


def _enter(config: dict[str, _Training[Job]]) -> None:
    """The train function that Ray runs in every worker."""
    import torch
    from ray.train import get_context
    from ray.train.torch import get_device

    training, context = config[_TRAINING], get_context()
    torch.set_num_threads(training.threads)
    device = get_device() if training.on_gpu else torch.device("cpu")
    world = World(context.get_world_rank(), context.get_world_size(), device)
    store, progress_actor = Store(training.storage), training.progress_actor
    with scratch_directory("restore-") as scratch:
        restore = scratch if _restore(scratch, store, training.staging, world) else None
        if world.rank == 0:
            progress_actor.begin.remote(world.size)
        train_context: TrainContext = RayTrainContext(
            world, restore, progress_actor.add.remote, store, training.staging
        )
        try:
            with sigterm_as_notice(), span("train function"):
                training.worker(training.job, train_context)
        except ReportedError as error:
            ray.get(progress_actor.fail.remote(error))
            # All workers have the same gradient, so all end here; an error would make Ray train to it again. Where one
            # of several lacks memory, the driver ends the others.
            if not isinstance(error, TrainingDivergedError) and not (
                isinstance(error, DeviceMemoryError) and world.size == 1
            ):
                raise


def _restore(directory: Path, store: Store, staging: str, world: World) -> bool:
    """Copies the newest checkpoint into a directory; False where there is none."""
    from ray.train import get_checkpoint

    with store.reporting_errors("read", STAGING):
        # Those of an earlier version, which Ray Train knows until the first of this one has removed them.
        of_ray = get_checkpoint() if store.exists(staging, RAY_SNAPSHOT) else None
        # One look for all, since the answer may change: the last group's thread may have been ended in its upload.
        is_of_ray, name = world.gather((of_ray is not None, newest_without_ray(store, staging)))[0]
        if is_of_ray and of_ray is not None:
            of_ray.to_directory(directory)
        elif name:
            download_checkpoint(store, staging, name, directory)
        return bool(is_of_ray or name)
