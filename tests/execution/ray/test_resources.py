"""What a train worker asks of its node, on the clusters of `deploy/` and others, and what is said where none has it."""

from __future__ import annotations

import json
import platform
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bertkd_ray.config import Config, config_of
from bertkd_ray.core.errors import UserError
from bertkd_ray.execution.ray import resources, session
from bertkd_ray.execution.ray.resources import StartWatch, nodes_are_starting, require_room, room_for, worker_resources
from bertkd_ray.execution.ray.session import RayRuntime
from tests.chaos.machine import Driver, machine, ray_processes
from tests.helpers.services import ROOT
from tests.helpers.small_config import write_config


def config(**keys: Any) -> Config:
    many = {"micro_batches": 4}
    return config_of({"name": "x", "corpus": {"source": "demo"}, "teacher": many, "student": many, **keys}, "test")


def node(cpus: float, gpus: float = 0) -> dict[str, float]:
    return {"CPU": cpus, "memory": 1e9} | ({"GPU": gpus} if gpus else {})


def deployed(name: str, **replicas: int) -> list[dict[str, float]]:
    """The nodes of a manifest, with so many replicas of its groups; its head does no work."""
    spec = yaml.safe_load((ROOT / "deploy" / "kuberay" / f"{name}.yaml").read_text(encoding="utf-8"))["spec"]
    nodes: list[dict[str, float]] = [{"memory": 1e9}]
    for group in spec.get("rayClusterSpec", spec)["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        one = node(float(limits["cpu"]), float(limits.get("nvidia.com/gpu", 0)))
        nodes += [one] * replicas.get(group["groupName"].replace("-", "_"), group["replicas"])
    return nodes


@pytest.mark.parametrize(
    ("name", "replicas"),
    [
        ("raycluster", {}),
        ("raycluster", {"cpu": 8, "gpu": 4}),
        ("rayjob-gpu", {}),
        ("rayjob-gpu", {"gpu_spot": 1, "cpu_spot": 4}),
        ("rayjob-gpu", {"gpu_spot": 4, "cpu_spot": 1}),
    ],
)
@pytest.mark.parametrize("workers", [1, [1, 4]])
def test_a_worker_of_our_own_manifests_takes_a_gpu_node_whole(name, replicas, workers):
    nodes = deployed(name, **replicas)
    worker = worker_resources(nodes, config(workers=workers), on_gpu=True)
    assert worker == {"CPU": 6, "GPU": 1}
    assert room_for(nodes, worker) == sum(int(of.get("GPU", 0)) for of in nodes)


def test_every_gpu_of_a_node_has_its_share_of_the_cpus():
    assert worker_resources([node(96, 8), node(64)], config(), on_gpu=True) == {"CPU": 12, "GPU": 1}
    mixed = [node(96, 8), node(20, 4), node(0, 1)]
    assert worker_resources(mixed, config(), on_gpu=True) == {"CPU": 5, "GPU": 1}
    assert room_for(mixed, {"CPU": 5, "GPU": 1}) == 12
    assert worker_resources([node(2, 4)], config(), on_gpu=True) == {"CPU": 1, "GPU": 1}
    assert worker_resources(mixed, config(cpus_per_worker=2), on_gpu=True) == {"CPU": 2, "GPU": 1}


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus"),
    [
        ([node(2)], 1, 2),
        ([node(2)], 2, 1),
        ([node(8)], [1, 4], 2),
        ([node(8), node(8)], 1, 8),
        ([node(8), node(6), node(6)], 2, 6),
        ([node(8), node(2)], 2, 4),  # a half of all would be 5, which two workers have nowhere
        ([node(1)], [1, 4], 1),
        ([node(0)], 1, 1),
    ],
)
def test_workers_on_cpus_have_as_many_as_all_can_have(nodes, workers, cpus):
    assert worker_resources(nodes, config(workers=workers), on_gpu=False) == {"CPU": cpus}


@pytest.mark.parametrize(
    ("nodes", "keys", "worker", "said"),
    [
        (
            [node(8), node(6, 1)],
            {"cpus_per_worker": 8},
            {"CPU": 8, "GPU": 1},
            "cpus_per_worker: 8, but no node with a GPU of the cluster has more than 6; set cpus_per_worker=6 or less",
        ),
        (
            [node(2)],
            {"cpus_per_worker": 4},
            {"CPU": 4},
            "cpus_per_worker: 4, but no node of the cluster has more than 2; set cpus_per_worker=2 or less",
        ),
        (
            [node(3), node(1)],
            {"cpus_per_worker": 2, "workers": 2},
            {"CPU": 2},
            "workers: 2 with 2 CPUs each, but the cluster has room for 1; lower workers or cpus_per_worker",
        ),
        (
            [node(8), node(0, 1)],
            {},
            {"CPU": 1, "GPU": 1},
            "device: auto, but no node with a GPU of the cluster offers CPUs, of which a worker needs one; "
            "start Ray there with --num-cpus, or set device=cpu",
        ),
    ],
)
def test_a_worker_that_no_node_holds_is_one_line(nodes, keys, worker, said):
    with pytest.raises(UserError) as error:
        require_room(nodes, worker, config(**keys))
    assert str(error.value) == said
    require_room([*nodes, node(16, 2)], worker, config(**keys))


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, whose one element a test may set."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def _watch(clock: list[float], seconds: int) -> tuple[StartWatch, list[float]]:
    """A watch after so many seconds, and when it ended the training."""
    ended: list[float] = []
    watch = StartWatch({"CPU": 4}, config(cpus_per_worker=4), lambda: ended.append(clock[0]), _began=clock[0])
    for _ in range(seconds):
        watch()
        clock[0] += 1
    return watch, ended


def test_what_no_node_holds_is_given_up_within_a_minute(monkeypatch, clock):
    monkeypatch.setattr(resources, "alive_nodes", lambda: [node(2)])
    monkeypatch.setattr(resources, "nodes_are_starting", lambda: False)
    watch, ended = _watch(clock, 120)
    assert str(watch.problem).startswith("cpus_per_worker: 4, but no node of the cluster has more than 2; ")
    assert len(ended) == 1
    assert ended[0] < 60


def test_nodes_that_are_being_started_are_waited_for(monkeypatch, clock, capsys):
    monkeypatch.setattr(resources, "alive_nodes", lambda: [node(2)] if clock[0] < 500 else [node(2), node(4)])
    monkeypatch.setattr(resources, "nodes_are_starting", lambda: clock[0] < 500)
    monkeypatch.setattr(StartWatch, "_others_have_it", lambda self: False)
    watch, ended = _watch(clock, 1000)
    assert (watch.problem, ended) == (None, [])
    assert capsys.readouterr().err.count("waiting for 1 × 4 CPU: nodes with so much are being started\n") == 1


@pytest.mark.parametrize(
    ("state", "free", "in_use"),
    [("PENDING", 8, True), ("CREATED", 0, False), (None, 3, True), (None, 4, False)],
)
def test_nodes_that_others_use_are_waited_for_and_slow_ones_not_blamed(monkeypatch, clock, capsys, state, free, in_use):
    groups = {} if state is None else {"a": {"state": state, "bundles": {0: {"CPU": 4.0}}}}
    monkeypatch.setattr(resources, "alive_nodes", lambda: [node(4)])
    monkeypatch.setattr(resources.ray.util, "placement_group_table", lambda: groups)
    monkeypatch.setattr(resources.ray, "available_resources", lambda: {"CPU": float(free)})
    assert _watch(clock, 1000)[1] == []
    said = capsys.readouterr().err.count("waiting for 1 × 4 CPU: all nodes that have so much are in use\n")
    assert said == int(in_use)


@pytest.mark.parametrize("pending", ["pending_launches", "pending_nodes", None])
@pytest.mark.parametrize("version", [1, 2])
def test_an_autoscaler_is_asked_whether_it_gets_nodes(monkeypatch, version, pending):
    """As the autoscaler of either version says it."""
    report = {"pending_launches": {}, "pending_nodes": [], "failed_nodes": [["10.0.0.9", "gpu"]]}
    report |= {pending: {"gpu": 1}} if pending else {}
    monkeypatch.setattr("ray.autoscaler.v2.utils.is_autoscaler_v2", lambda: version == 2)
    monkeypatch.setattr(resources, "_internal_kv_get", lambda key: json.dumps({"autoscaler_report": report}).encode())
    monkeypatch.setattr("ray.autoscaler.v2.sdk.get_cluster_status", lambda address: SimpleNamespace(**report))
    monkeypatch.setattr(resources.ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    assert nodes_are_starting() is (pending is not None)


def test_a_cluster_without_an_autoscaler_gets_no_nodes(monkeypatch):
    monkeypatch.setattr("ray.autoscaler.v2.utils.is_autoscaler_v2", lambda: False)
    monkeypatch.setattr(resources, "_internal_kv_get", lambda key: None)
    assert nodes_are_starting() is False


@pytest.mark.parametrize("on_gpu", [False, True])
def test_the_runtime_asks_for_what_the_nodes_have(monkeypatch, on_gpu):
    nodes = [{"Alive": True, "Resources": of} for of in (node(8), node(6, 1))]
    asked: list[Any] = []
    monkeypatch.setattr(resources.ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": node(64, 8)}])
    monkeypatch.setattr(session.ray, "cluster_resources", lambda: {"CPU": 14.0, "GPU": 1.0})
    monkeypatch.setattr(session, "ready_progress_actor", lambda actor: None)
    monkeypatch.setattr(session, "train", lambda pending, config, worker, *rest: asked.append(worker))
    runtime = RayRuntime(config(device="auto" if on_gpu else "cpu"))
    runtime.train(None, lambda *_: None, None, lambda rows: None)  # type: ignore[arg-type] # never looked at
    assert asked == [{"CPU": 6, "GPU": 1} if on_gpu else {"CPU": 8}]


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_says_within_a_minute_that_no_node_fits_and_ctrl_c_ends_a_wait(tmp_path):
    path = write_config(tmp_path, cpus_per_worker=4, tracking="none")
    with machine(nodes=1, cpus=2) as cluster:
        assert Driver(["prepare", str(path)], cluster.address, tmp_path / "prepare.log").wait() == 0
        driver = Driver(["finetune", str(path)], cluster.address, tmp_path / "never.log")
        assert driver.wait_for("finetune")
        started = time.monotonic()
        assert driver.wait() == 2
        assert time.monotonic() - started < 75  # the interpreter's end included
        assert driver.lines[-1] == (
            "bertkd: error: cpus_per_worker: 4, but no node of the cluster has more than 2; "
            "set cpus_per_worker=2 or less\n"
        )
        before = {process.pid for process, _ in ray_processes()}
        waiting = Driver(["finetune", str(path)], cluster.address, tmp_path / "waiting.log")
        assert waiting.wait_for("finetune")
        while waiting.running and not any(
            name == "TrainController" and process.pid not in before for process, name in ray_processes()
        ):
            time.sleep(0.5)
        time.sleep(5)  # until the controller waits
        waiting.kill(signal.SIGINT)
        interrupted = time.monotonic()
        assert waiting.wait() == 1
        assert time.monotonic() - interrupted < 20
        assert waiting.lines[-1] == "bertkd: interrupted; run the same command to go on\n"


@pytest.mark.parametrize(
    ("nodes", "workers", "at_once"),
    [
        ([node(16)], 1, 1),
        ([node(16), node(12, 1)], 1, 1),
        ([node(16), node(12, 4)], 1, 4),
        ([node(12, 4)], 2, 2),
        ([node(12, 4)], [1, 4], 1),
        ([node(12, 2), node(12, 1)], 2, 1),
    ],
)
def test_as_many_trainings_at_a_time_as_gpus_have_room_for(monkeypatch, nodes, workers, at_once):
    runtime = RayRuntime(config(workers=workers))
    monkeypatch.setattr(session, "alive_nodes", lambda: nodes)
    gpus = sum(int(of.get("GPU", 0)) for of in nodes)
    monkeypatch.setattr(session.ray, "cluster_resources", lambda: {"CPU": 16.0} | ({"GPU": gpus} if gpus else {}))
    assert runtime.trainings_at_once() == at_once


@pytest.mark.ray
@pytest.mark.slow
def test_a_gpu_that_torch_cannot_use_is_one_line_of_training_and_of_a_map(tmp_path):
    """Where the largest node has no GPU, training never began; the GPU of the other is Ray's alone."""
    path = write_config(tmp_path, cpus_per_worker=None, tracking="none", max_failures=0)
    with machine(nodes=1, cpus=2) as cluster:
        made = Driver(["finetune", str(path), "teacher.steps=2", "device=cpu"], cluster.address, tmp_path / "cpu.log")
        assert made.wait() == 0
        cluster.add_node(num_cpus=1, num_gpus=1)
        for command, steps, device in (("finetune", 3, "gpu"), ("extract", 2, "auto")):
            words = [command, str(path), f"teacher.steps={steps}", f"device={device}"]
            driver = Driver(words, cluster.address, tmp_path / f"{command}.log")
            assert driver.wait() == 2
            assert f"device: {platform.node()} gives a GPU for this work, but torch cannot" in driver.lines[-1]
            assert [line for line in driver.lines if "Traceback" in line] == []
