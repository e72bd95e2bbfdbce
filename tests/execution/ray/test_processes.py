"""What surrounds a worker group: who may take it for dead, and what is said of a worker that is."""

from __future__ import annotations

from typing import Any

import pytest
import ray
import torch.distributed as dist
from ray.train.torch.config import _is_backend_nccl
from ray.train.v2._internal.callbacks import placement_group_callback
from ray.train.v2._internal.execution.controller import placement_group_cleaner

from bertkd_ray.execution.ray.processes import Cleaner, Processes, is_actor_alive, loss_reason

DEATH = """The actor died unexpectedly before finishing this task.
\tclass_name: RayTrainWorker
The actor is dead because its placement
was removed."""


@pytest.fixture
def cleaner(monkeypatch) -> Cleaner:
    """A cleaner of a controller, which asks without a pause."""
    monkeypatch.setattr(Cleaner, "_exit", lambda self: None)
    return Cleaner("c" * 32, check_interval_s=0.001, get_actor_timeout_s=1, stop_timeout=1)


def test_workers_are_removed_once_the_table_of_actors_has_their_controller_as_dead(cleaner, monkeypatch):
    """The state API, which may leave it out of its answer, is not asked, nor is an answer that fails one."""
    states, removed = iter(["ALIVE", RuntimeError("no answer"), "ALIVE", "DEAD"]), []

    def actors(actor: str) -> dict[str, Any]:
        state = next(states)
        if isinstance(state, Exception):
            raise state
        return {"State": state}

    monkeypatch.setattr(ray._private.state, "actors", actors)
    monkeypatch.setattr(placement_group_cleaner, "remove_placement_group", removed.append)
    monkeypatch.setattr(Cleaner, "_is_placement_group_removed", lambda self, group: False)
    group: Any = type("Group", (), {"id": "1"})()
    cleaner.register_placement_group(group)
    cleaner._monitor_loop()
    assert (removed, list(states)) == ([group], [])


def test_ray_makes_its_cleaner_of_ours():
    assert placement_group_callback.PlacementGroupCleaner is Cleaner
    assert placement_group_cleaner.is_actor_alive is is_actor_alive


def test_why_a_worker_was_lost_is_one_line():
    lost = type("WorkerHealthCheckFailedError", (Exception,), {"health_check_failure": Exception(DEATH)})()
    assert loss_reason(lost) == "its placement was removed."
    assert loss_reason(ValueError("Traceback:\n  File …\nValueError: no such index\n")) == "ValueError: no such index"
    assert len(loss_reason(ValueError("x" * 999))) == 200


def test_counts_and_objects_of_workers_on_gpus_are_exchanged_by_the_host():
    assert Processes(30.0, on_gpu=True).process_group(2).backend == "cpu:gloo,cuda:nccl"
    assert _is_backend_nccl("cpu:gloo,cuda:nccl")  # as Ray asks, for what NCCL needs
    assert Processes(30.0, on_gpu=False).process_group(2).backend == "gloo"


def test_torch_gathers_objects_by_the_host_where_a_group_has_both(free_port):
    """A group of one, whose backend for GPUs is gloo too, for want of NCCL here."""
    place = f"tcp://127.0.0.1:{free_port}"
    dist.init_process_group("cpu:gloo,cuda:gloo", init_method=place, rank=0, world_size=1)
    try:
        assert dist.distributed_c10d._get_object_coll_device() == "cpu"
        gathered = [None]
        dist.all_gather_object(gathered, {"positions": [1, 2]})
        assert gathered == [{"positions": [1, 2]}]
    finally:
        dist.destroy_process_group()
