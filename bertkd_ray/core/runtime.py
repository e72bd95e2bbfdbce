"""Ray: one session for a whole pipeline, jobs of Ray Train and maps of Ray Data.

Nothing is started before the first stage that has something to compute. Workers are silent; what they have to say goes
through a board that the driver reads, so that progress and curves have one writer.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from bertkd_ray.core.artifact import Draft
from bertkd_ray.core.errors import UserError

if TYPE_CHECKING:
    from bertkd_ray.config import Config
    from bertkd_ray.core.training import HistoryRow, Workers

_POLL_SECONDS = 1.0
_ACTOR_RESTARTS = 3
# Worker memory: glibc's many arenas and oneDNN's cache of kernels for ever-changing shapes otherwise grow for hours.
_WORKER_ENV = {
    "MALLOC_ARENA_MAX": "2",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
    # Threads that wait must not spin: beside other work on the same cores a teacher's step of two threads took twice as
    # long. A very small student pays for it (half the speed); it is faster on one thread anyway (`cpus_per_worker: 1`).
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


class Runtime:
    """The Ray session of one command; started by the first stage that computes."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ours = False

    def start(self) -> None:
        """Attaches to the cluster of `RAY_ADDRESS`, or starts a session on this machine; once."""
        if ray.is_initialized():
            return
        # The notice that tokens are on is for whoever starts a cluster; this session ends with the command.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        address = None if "RAY_ADDRESS" in os.environ else "local"
        self._ours = True
        # A submitted job may have set the same variables: its values stand, and naming them twice is no conflict.
        os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
        variables = {name: os.environ.get(name, value) for name, value in _WORKER_ENV.items()}
        with _quiet_core():
            ray.init(
                address=address,
                log_to_driver=bool(os.environ.get("BERTKD_WORKER_LOGS")),
                logging_level=logging.WARNING,
                runtime_env={"env_vars": variables},
            )
        # After the import, which configures these loggers itself.
        ray.data.DataContext.get_current().enable_progress_bars = False
        for name in ("ray.data", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)

    def close(self) -> None:
        """Ends the session if this command began it."""
        if self._ours and ray.is_initialized():
            ray.shutdown()

    @property
    def on_gpu(self) -> bool:
        """Whether the stages compute on GPUs. Raises UserError when `device: gpu` finds none."""
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if self._config.device == "gpu" and gpus == 0:
            raise UserError("device: gpu, but the cluster has no GPU; set device=auto or device=cpu")
        return self._config.device != "cpu" and gpus > 0

    def train(
        self,
        draft: Draft,
        worker: Callable[[dict[str, Any], TrainContext], None],
        arguments: dict[str, Any],
        on_rows: Callable[[list[HistoryRow]], None],
    ) -> None:
        """Runs a training function on the configured workers until it has ended everywhere.

        A lost worker starts the job again from its newest checkpoint, at most `max_failures` times; a lost driver goes
        on from it when the same command runs again. Raises the worker's own error when it is one of the user's.
        """
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        board: Any = _Board.remote()  # type: ignore[attr-defined] # the decorator makes it a handle
        trainer = TorchTrainer(
            _enter,
            train_loop_config={"worker": worker, "arguments": arguments, "board": board, "threads": self._cpus()},
            scaling_config=ScalingConfig(
                num_workers=self._config.workers,
                use_gpu=self._on_enough_gpus(),
                resources_per_worker={"CPU": self._cpus(), **({"GPU": 1} if self.on_gpu else {})},
            ),
            run_config=RunConfig(
                name=draft.directory,
                storage_path=f"{draft.store.uri}/work",
                failure_config=FailureConfig(max_failures=self._config.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        with _reading(board, on_rows):
            try:
                trainer.fit()
            except ray.train.TrainingFailedError as error:
                raise _root_cause(error) from None

    def map(
        self,
        items: list[dict[str, Any]],
        function: Callable[..., dict[str, Any]] | type,
        arguments: dict[str, Any] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Maps small items over the cluster with Ray Data, giving results as they come, in no fixed order.

        function: a function for tasks, or a class whose instances are actors made with `arguments`. An item names a
        piece of work (a fragment); its data is read and written by the worker.
        """
        dataset = ray.data.from_items(items, override_num_blocks=len(items))
        if isinstance(function, type):
            slots = int(ray.cluster_resources().get("GPU" if self.on_gpu else "CPU", 1))
            with warnings.catch_warnings():
                # Ray Data has no other way yet to bound the restarts of an actor.
                warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
                mapped = dataset.map(
                    function,
                    fn_constructor_kwargs=arguments or {},
                    compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(slots, len(items)))),
                    num_cpus=1,
                    num_gpus=1 if self.on_gpu else 0,
                    max_restarts=_ACTOR_RESTARTS,
                    max_task_retries=_ACTOR_RESTARTS,
                )
        else:
            mapped = dataset.map(function, fn_kwargs=arguments or {})
        try:
            yield from mapped.iter_rows()
        except ray.exceptions.RayError as error:
            raise _root_cause(error) from None

    def _cpus(self) -> int:
        """CPUs of a train worker: as configured, else an equal share of the largest node."""
        if self._config.cpus_per_worker:
            return self._config.cpus_per_worker
        nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        share = sum(nodes) // self._config.workers
        if share == 0:
            raise UserError(f"workers: {self._config.workers}, but the cluster has {sum(nodes)} CPUs; lower workers")
        return min(share, max(nodes))

    def _on_enough_gpus(self) -> bool:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if self.on_gpu and gpus < self._config.workers:
            raise UserError(f"workers: {self._config.workers}, but the cluster has {gpus} GPUs; lower workers")
        return self.on_gpu


@contextmanager
def _quiet_core() -> Iterator[None]:
    """Keeps remarks of Ray's C++ core (on restartable actors of Ray's own) off the terminal for this session.

    The core reads its level when the session starts, and says on the terminal that it did; what fails raises.
    """
    if "RAY_BACKEND_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        del os.environ["RAY_BACKEND_LOG_LEVEL"]


@dataclass(frozen=True)
class TrainContext:
    """What a training function needs of Ray: its place in the group, its checkpoint and where to report."""

    workers: Workers
    restore: Path | None
    board: Any

    def on_rows(self, rows: list[HistoryRow]) -> None:
        """Hands rows of the curves to the driver."""
        self.board.add.remote(rows)

    def on_checkpoint(self, save: Callable[[Path], None], row: HistoryRow) -> None:
        """Makes Ray Train keep a checkpoint; every worker calls it, rank 0 writes."""
        from ray.train import Checkpoint, report

        if self.workers.rank:
            report(row)
            return
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as directory:
            save(Path(directory))
            report(row, checkpoint=Checkpoint.from_directory(directory))


def _enter(config: dict[str, Any]) -> None:
    """The train function that Ray runs in every worker."""
    import torch
    from ray.train import get_checkpoint, get_context
    from ray.train.torch import get_device

    from bertkd_ray.core.training import Workers

    torch.set_num_threads(config["threads"])
    context = get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size(), get_device())
    with tempfile.TemporaryDirectory(prefix="restore-") as scratch:
        checkpoint = get_checkpoint()
        restore = Path(checkpoint.to_directory(scratch)) if checkpoint else None
        config["worker"](config["arguments"], TrainContext(workers, restore, config["board"]))


@ray.remote(num_cpus=0)
class _Board:
    """Rows that workers have pinned up and the driver has not yet taken."""

    def __init__(self) -> None:
        self._rows: list[HistoryRow] = []

    def add(self, rows: list[HistoryRow]) -> None:
        self._rows += rows

    def take(self) -> list[HistoryRow]:
        rows, self._rows = self._rows, []
        return rows


@contextmanager
def _reading(board: Any, on_rows: Callable[[list[HistoryRow]], None]) -> Iterator[None]:
    """Passes the board's rows to `on_rows` while the block runs, and what is left after it."""
    ended = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not ended.wait(_POLL_SECONDS):
                on_rows(ray.get(board.take.remote()))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=read, name="board", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failures:
        raise failures[0]
    on_rows(ray.get(board.take.remote()))


def _root_cause(error: BaseException) -> BaseException:
    """The error inside Ray's wrappers when it is the user's to mend, else the wrapper itself."""
    seen: BaseException | None = error
    while seen is not None:
        for candidate in (seen, *getattr(seen, "worker_failures", {}).values()):
            cause = getattr(candidate, "cause", candidate)
            if isinstance(cause, UserError):
                return cause
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error
