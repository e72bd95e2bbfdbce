"""A cluster of several Ray nodes on this machine, and what can be killed of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

VICTIMS = ("driver", "worker", "node")
_NOT_WORKERS = ("", "IDLE", "DashboardAgent", "RuntimeEnvAgent")
"""A node ends with its agents, and the whole cluster with the head's: that is another victim."""
_ROOT = Path(__file__).resolve().parents[2]
_DRIVER_SECONDS = 1200
"""Twenty times what an undisturbed run takes on two idle cores, for machines that have other work."""


class Machine:
    """A head without CPUs, so that all work is done elsewhere, and nodes for it."""

    def __init__(self, nodes: int = 2, cpus: int = 2) -> None:
        self._cpus = cpus
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes: list[object] = []
        for _ in range(nodes):
            self.add_node()

    def add_node(self, **resources: int) -> None:
        """One more node joins; resources: those of Ray's `add_node` that are not as usual."""
        self._nodes.append(self._cluster.add_node(**{"num_cpus": self._cpus, **resources}))

    def kill_node(self, rng: random.Random) -> None:
        """One node ends without a word."""
        node = self._nodes.pop(rng.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Processes at work of this name stand still, so that what happens meanwhile does not race with their end."""
        processes = [process for process, title in self._workers() if title == name]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):  # ended by whoever waited for it
                    process.resume()

    @property
    def address(self) -> str:
        """What drivers attach to."""
        return str(self._cluster.address)

    def close(self) -> None:
        """Ends all nodes."""
        self._cluster.shutdown()

    def kill(self, victim: str, number: int, driver: Driver, rng: random.Random) -> str:
        """Sends the signal to the driver, to a process at work, or to a whole node; gives the name of what it hit."""
        if victim == "node":
            self.kill_node(rng)
            self.add_node()  # as an autoscaler would have it
            return "node"
        workers = self._workers()
        if victim == "worker" and workers:
            process, name = rng.choice(workers)
            os.kill(process.pid, number)
            return name
        driver.kill(number)
        return "driver"

    def _workers(self) -> list[tuple[psutil.Process, str]]:
        """Processes of Ray that do something, on any node, in a fixed order of their names."""
        found = [(process, name) for process, name in ray_processes() if name not in _NOT_WORKERS]
        return sorted(found, key=lambda pair: (pair[1], pair[0].pid))


def ray_processes() -> Iterator[tuple[psutil.Process, str]]:
    """Ray's processes below this one, and the names of the classes or functions that they run."""
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue  # it has just ended
        if title.startswith("ray::"):
            yield process, title.partition("::")[2].split("(")[0].split(".")[0].strip()


class Driver:
    """`bertkd` as a process of its own; its lines say where it is."""

    def __init__(self, arguments: list[str], address: str, log: Path) -> None:
        self._log = log
        environment = {**os.environ, "RAY_ADDRESS": address, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(_ROOT)  # where a worker finds this package if it is not installed
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bertkd_ray", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.artifacts: dict[str, str] = {}
        self.starts: dict[str, float] = {}
        self.ends: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        """Of the stages that it made from the start to the end."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._log.open("a", encoding="utf-8") as log:
            for line in self._process.stderr:
                log.write(f"{time.time():.2f} {line}")
                log.flush()
                self.lines.append(line)
                stage, _, rest = line.partition(" ")
                said = rest.split()[:1]
                if said in (["starting"], ["resuming"]):
                    self.artifacts[stage] = rest.split()[1]
                    self.starts[stage] = time.monotonic()
                elif said in (["done"], ["resumed"]):
                    self.ends[stage] = time.monotonic()
                    if said == ["done"]:
                        self.seconds[stage] = self.ends[stage] - self.starts[stage]

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait_for(self, stage: str) -> bool:
        """Waits until a stage starts; False if the driver ends before that."""
        while self.running:
            if stage in self.starts:
                return True
            time.sleep(0.01)
        return False

    def kill(self, number: int) -> None:
        """Sends it a signal, if it still runs."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code; fails when it does not end."""
        try:
            code = self._process.wait(_DRIVER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"the driver hangs; see {self._log}") from None
        self._reader.join()
        return code


@contextmanager
def machine(nodes: int = 2, cpus: int = 2) -> Iterator[Machine]:
    """A cluster that ends with the block."""
    made = Machine(nodes, cpus)
    try:
        yield made
    finally:
        made.close()


def name_of(number: int) -> str:
    """`SIGKILL` or `SIGTERM`."""
    return signal.Signals(number).name
