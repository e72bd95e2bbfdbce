"""Ray: one session for a whole pipeline, jobs of Ray Train and maps of Ray Data.

Nothing is started before the first stage that has something to compute. Workers are silent; what they have to say goes
through an actor that the driver asks, so that progress and curves have one writer.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.config import Config
from bertkd_ray.core.environment import default_variables
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.timeline import span
from bertkd_ray.execution.device import DeviceType
from bertkd_ray.execution.interface import Item, Job, MapWorker, OnDone, Result, TrainWorker
from bertkd_ray.execution.ray import cluster_address
from bertkd_ray.execution.ray.cluster import init_errors, require_cluster, require_shared_storage
from bertkd_ray.execution.ray.mapping import map_items
from bertkd_ray.execution.ray.progress import forwarded_counts, ready_progress_actor
from bertkd_ray.execution.ray.resources import alive_nodes, require_room, room_for, worker_resources
from bertkd_ray.execution.ray.training import train
from bertkd_ray.training.curves import RowCallback

# Of a session with this machine alone: nobody watches for the end of other nodes, and the end of a training is noticed
# within half a second.
_ALONE_ENV = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
# Worker memory: glibc's many arenas, and the two caches of oneDNN's kernels, its own and that of PyTorch's binding.
# Left alone they keep 1,024 shapes each, and lengths change for ever, so that a worker grew for hours; with 64 of each
# it takes the same CPU time and soon stops growing.
_WORKER_ENV = {
    "MALLOC_ARENA_MAX": "2",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
    # Threads that wait must not spin: beside other work on the same cores a teacher's step of two threads took twice as
    # long. A very small student pays for it (half the speed); it is faster on one thread anyway (`cpus_per_worker: 1`).
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


class RayRuntime:
    """Implements `execution.interface.Runtime`: one command's Ray session, begun by the first stage that computes."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ours = False
        self._alone = False
        self._progress_actor: Any = None

    def start(self) -> None:
        """Attaches to the cluster of `RAY_ADDRESS`, or starts a session on this machine; once."""
        # Even with log_to_driver=False Ray prints its node's warnings on stdout, which belongs to results.
        logs = ray._private.worker._worker_logs_enabled = bool(os.environ.get("BERTKD_WORKER_LOGS"))
        if ray.is_initialized():
            return
        # The notice that tokens are on is for whoever starts a cluster; this session ends with the command.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        self._ours = True
        # A submitted job may have set the same variables: its values stand, and naming them twice is no conflict.
        os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
        settings = {name: os.environ.get(name, value) for name, value in _WORKER_ENV.items()}
        common: Any = {"log_to_driver": logs, "logging_level": logging.WARNING, "job_config": _job_config()}
        address = cluster_address()
        with init_errors(address), _quiet_core(), _kept_sigterm(), span("ray.init"):
            if address is not None:
                require_cluster(address)
                ray.init(runtime_env={"env_vars": settings}, **common)
            else:
                self._alone = True
                # Ray reads the variable of `cluster_address` as it is imported, which a program may have done before.
                constants: Any = ray._private.ray_constants
                constants.ENABLE_RAY_CLUSTER = constants.env_bool(constants.ENABLE_RAY_CLUSTERS_ENV_VAR, False)
                # No dashboard: its dozen processes take as long to start as all the rest.
                # Inherited variables need no runtime environment, with which no process could start ahead of its work.
                with default_variables(settings):
                    ray.init(address="local", include_dashboard=False, **common)
        if address is not None:
            require_shared_storage(self._config.storage)
        # After the import, which configures these loggers itself.
        ray.data.DataContext.get_current().enable_progress_bars = False
        for name in ("ray.data", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)

    def close(self) -> None:
        """Ends the session if this command began it."""
        if self._ours and ray.is_initialized():
            with span("ray.shutdown"):
                ray.shutdown()

    @property
    def address(self) -> str:
        """Where other processes find the session, as `RAY_ADDRESS` wants it."""
        return str(ray.get_runtime_context().gcs_address)

    @property
    def device(self) -> DeviceType:
        """What workers compute on: GPUs where the cluster has them, unless `device: cpu` is configured.

        Raises UserError when `device: gpu` finds none.
        """
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if self._config.device == "gpu" and gpus == 0:
            raise UserError("device: gpu, but the cluster has no GPU; set device=auto or device=cpu")
        return "cuda" if self._config.device != "cpu" and gpus > 0 else "cpu"

    def train(self, pending: PendingArtifact, worker: TrainWorker[Job], job: Job, on_rows: RowCallback) -> None:
        """Runs a training function on the configured workers; see `execution.ray.training.train`.

        A worker has the CPUs that are configured, else its share of a node; see `worker_resources`. Raises UserError
        where the cluster is too small for the least workers.
        """
        on_gpu, least, nodes = self.device == "cuda", self._config.worker_range[0], alive_nodes()
        kind = "GPU" if on_gpu else "CPU"
        total = int(sum(of.get(kind, 0) for of in nodes))
        if total < least and (on_gpu or not self._config.cpus_per_worker):
            raise UserError(f"workers: {least}, but the cluster has {total} {kind}s; lower workers")
        resources = worker_resources(nodes, self._config, on_gpu=on_gpu)
        if self._alone:  # a cluster may get nodes
            require_room(nodes, resources, self._config)
        self._progress_actor = ready_progress_actor(self._progress_actor)
        with default_variables(_ALONE_ENV if self._alone else {}):
            train(pending, self._config, resources, worker, job, on_rows, self._progress_actor)

    def trainings_at_once(self) -> int:
        """As many as the GPUs have room for, each with the most workers; one where there are none."""
        if self.device != "cuda":
            return 1
        resources = worker_resources(nodes := alive_nodes(), self._config, on_gpu=True)
        return max(1, room_for(nodes, resources) // self._config.worker_range[1])

    def map(self, items: Sequence[Item], worker: MapWorker[Item, Job, Result], job: Job) -> Iterator[Result]:
        """Maps small items over the cluster, giving results as they come; see `execution.ray.mapping.map_items`."""
        gpus, failures = int(self.device == "cuda"), self._config.max_failures
        actor = {"CPU": 1, "GPU": 1} if gpus else {"CPU": 1}
        slots = room_for(nodes := alive_nodes(), actor)
        if gpus and not slots:
            require_room(nodes, actor, self._config)
        with span("Ray Data"):
            yield from map_items(items, worker, job, slots=max(1, slots), gpus=gpus, max_failures=failures)

    def reporting(self, on_done: OnDone) -> AbstractContextManager[OnDone]:
        """A function for workers, of whose calls the newest come to `on_done`; see `forwarded_counts`."""
        self._progress_actor = ready_progress_actor(self._progress_actor)
        return forwarded_counts(self._progress_actor, on_done)


def _job_config() -> JobConfig:
    """A job whose workers, as the driver, import nothing of the working directory, which may hold a `pandas.py`.

    Ray puts that directory first on their path, unless a client elsewhere is said to begin the job. A package that was
    itself found in the working directory is found there by the workers too.
    """
    package = Path(__file__).resolve().parents[3]
    return JobConfig(_client_job=True, _py_driver_sys_path=[str(package)] if package == Path.cwd().resolve() else [])


@contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Keeps this program's answer to SIGTERM, which `ray.init` replaces by an exit without a word."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _quiet_core() -> Iterator[None]:
    """Keeps remarks of Ray's C++ core (on restartable actors of Ray's own) off the terminal for this session.

    The core reads its level when the session starts, and says on the terminal that it did; what fails raises.
    """
    if "RAY_BACKEND_LOG_LEVEL" in os.environ:
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with default_variables({"RAY_BACKEND_LOG_LEVEL": "fatal"}):
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
