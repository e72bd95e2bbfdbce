"""What a worker asks of a node, and whether the cluster has nodes for it, or is getting them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import ray
from ray._private import ray_constants
from ray.experimental.internal_kv import _internal_kv_get

from bertkd_ray.config import Config
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError

Resources = Mapping[str, float]
"""Amounts by Ray's names: `CPU`, `GPU`."""
_LOOK_EVERY = 10.0
_LOOKS = 3
"""Looks that must find neither a node nor one being started before a training is given up: within a minute."""
_SAY_AFTER = 60.0


def alive_nodes() -> list[Resources]:
    """All that the nodes have which are alive, in use or not."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def worker_resources(nodes: Sequence[Resources], config: Config, *, on_gpu: bool) -> dict[str, int]:
    """What a train worker asks of its node: one GPU if it computes on one, and the CPUs that are configured.

    Where none are configured: on GPUs, of every node with GPUs its CPUs by its GPUs, and of these shares the least; on
    CPUs as many as the most workers can have alike.
    """
    cpus = config.cpus_per_worker
    if on_gpu:
        shares = [int(of["CPU"] // of["GPU"]) for of in nodes if of.get("GPU", 0) >= 1 and of.get("CPU", 0) >= 1]
        return {"CPU": cpus or max(1, min(shares, default=1)), "GPU": 1}
    most = config.worker_range[1]
    largest = int(max((of.get("CPU", 0) for of in nodes), default=0))
    fitting = (number for number in range(largest, 0, -1) if room_for(nodes, {"CPU": number}) >= most)
    return {"CPU": cpus or next(fitting, 1)}


def room_for(nodes: Sequence[Resources], worker: Resources) -> int:
    """How many workers of these resources the nodes hold when nothing else is on them."""
    return sum(int(min(of.get(name, 0) // amount for name, amount in worker.items())) for of in nodes)


def require_room(nodes: Sequence[Resources], worker: Resources, config: Config) -> None:
    """Raises UserError where the nodes never hold the least workers."""
    least, room, cpus = config.worker_range[0], room_for(nodes, worker), int(worker["CPU"])
    if room >= least:
        return
    on_gpu = "GPU" in worker
    kind = "node with a GPU" if on_gpu else "node"
    largest = int(max((of.get("CPU", 0) for of in nodes if not on_gpu or of.get("GPU", 0) >= 1), default=0))
    if largest == 0:
        raise UserError(
            f"device: {config.device}, but no {kind} of the cluster offers CPUs, of which a worker needs one; "
            f"start Ray there with --num-cpus{', or set device=cpu' * on_gpu}"
        )
    if cpus > largest:
        raise UserError(
            f"cpus_per_worker: {cpus}, but no {kind} of the cluster has more than {largest}; "
            f"set cpus_per_worker={largest} or less"
        )
    each = f"{cpus} CPU{'s' * (cpus > 1)}{' and a GPU' * on_gpu}"
    raise UserError(
        f"workers: {least} with {each} each, but the cluster has room for {room}; lower workers or cpus_per_worker"
    )


def nodes_are_starting() -> bool:
    """Whether an autoscaler is getting nodes. Clusters without one have none that are starting."""
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    if is_autoscaler_v2():
        status = get_cluster_status(str(ray.get_runtime_context().gcs_address))
        return bool(status.pending_launches or status.pending_nodes)
    report = json.loads(_internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS) or "{}").get("autoscaler_report") or {}
    return bool(report.get("pending_launches") or report.get("pending_nodes"))


@dataclass
class StartWatch:
    """Looks after a training that has not begun: says what it waits for, and ends it where that cannot come.

    end: ends the training; afterwards `problem` is why.
    """

    worker: Resources
    config: Config
    end: Callable[[], None]
    problem: UserError | None = None
    _began: float = field(default_factory=time.monotonic)
    _next: float = 0.0
    _looks: int = 0
    _logged: bool = False

    def __call__(self) -> None:
        """To be called every second as long as no worker has begun."""
        if self.problem is not None or (now := time.monotonic()) < self._next:
            return
        self._next = now + _LOOK_EVERY
        has_room = True
        try:
            require_room(alive_nodes(), self.worker, self.config)
        except UserError as error:
            has_room = False
            self._looks = 0 if nodes_are_starting() else self._looks + 1
            if self._looks > _LOOKS:
                self.problem = error
                self.end()
                return
        if not self._logged and now - self._began > _SAY_AFTER and (not has_room or self._others_have_it()):
            self._logged = True
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in self.worker.items())
            reason = "all nodes that have so much are in use" if has_room else "nodes with so much are being started"
            log(f"waiting for {self.config.worker_range[0]} × {wanted}: {reason}")

    def _others_have_it(self) -> bool:
        """Whether nodes are in use; without that workers are only slow to start."""
        groups = ray.util.placement_group_table().values()
        states = {of["state"] for of in groups if self.worker in of["bundles"].values()}
        if states & {"PENDING", "CREATED"}:
            return "CREATED" not in states
        # None is asked for yet, by one that changes its number.
        free, least = ray.available_resources(), self.config.worker_range[0]
        return any(free.get(name, 0) < least * amount for name, amount in self.worker.items())
