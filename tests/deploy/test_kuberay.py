"""The manifests for KubeRay, by its own schemas and by what a run needs."""

from __future__ import annotations

import gzip
import json
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bertkd_ray.cli import make_parser
from bertkd_ray.config import load_config
from tests.deploy import ROOT, pinned
from tests.helpers.shared_files import schema_path

MANIFESTS = sorted((ROOT / "deploy" / "kuberay").glob("ray*.yaml"))
POLICY = ROOT / "deploy" / "kuberay" / "networkpolicy.yaml"
JOBS = [path for path in MANIFESTS if path.name.startswith("rayjob")]
_PODS = ("headGroupSpec", "workerGroupSpecs")


def read(path: Path) -> dict[str, Any]:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


@cache
def schema(kind: str) -> dict[str, Any]:
    """KubeRay's schema of a kind, under which an unknown field is a mistake."""
    path = schema_path(f"kuberay-{kind.lower()}s-v1.schema.json.gz")
    return strict(json.loads(gzip.decompress(path.read_bytes())))


def strict(node: Any) -> Any:
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


def problems(tree: dict[str, Any]) -> list[str]:
    found = jsonschema.Draft202012Validator(schema(tree["kind"])).iter_errors(tree)
    return [f"{error.json_path}: {error.message}" for error in found]


def cluster_of(tree: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = tree["spec"]
    return spec.get("rayClusterSpec", spec)


def pods_of(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod specifications of head and workers."""
    head, workers = (cluster_of(tree)[name] for name in _PODS)
    return [group["template"]["spec"] for group in (head, *workers)]


def test_there_is_what_the_readme_names():
    assert [path.name for path in MANIFESTS] == ["raycluster.yaml", "rayjob-cpu.yaml", "rayjob-gpu.yaml"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_manifest_is_kuberays(path):
    tree = read(path)
    assert tree["apiVersion"] == "ray.io/v1"
    assert problems(tree) == []


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_misspelt_field_would_be_found(path):
    tree = read(path)
    container = pods_of(tree)[-1]["containers"][0]
    container["resorces"] = container.pop("resources")
    (found,) = problems(tree)
    assert "resorces" in found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_cluster_runs_the_pinned_ray_with_token_authentication(path):
    cluster = cluster_of(read(path))
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_no_work_is_placed_on_the_head_and_credentials_are_a_secrets(path):
    tree = read(path)
    assert cluster_of(tree)["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    for pod in pods_of(tree):
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "bertkd-storage", "optional": True}}]
        assert {variable["name"] for variable in container.get("env", [])} <= {"MLFLOW_TRACKING_URI"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_pod_has_no_more_rights_than_it_needs(path):
    tree = read(path)
    head, *workers = pods_of(tree)
    autoscaled = cluster_of(tree).get("enableInTreeAutoscaling", False)
    assert head["automountServiceAccountToken"] is autoscaled
    assert [pod["automountServiceAccountToken"] for pod in workers] == [False] * len(workers)
    for pod in (head, *workers):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {"/tmp", "/dev/shm"} <= mounted
            assert {mount["name"] for mount in container["volumeMounts"]} == {
                volume["name"] for volume in pod["volumes"]
            }


def test_strangers_reach_no_port_of_ray():
    policy = read(POLICY)
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    spec = policy["spec"]
    rays = {"podSelector": {"matchLabels": {"ray.io/is-ray-node": "yes"}}}
    assert spec["podSelector"] == rays["podSelector"]
    assert spec["policyTypes"] == ["Ingress"]
    among_themselves, clients = spec["ingress"]
    assert among_themselves == {"from": [rays]}
    assert clients["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert all(
        source.get("namespaceSelector") is None or source["podSelector"]["matchLabels"] for source in clients["from"]
    )


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_is_a_command_that_this_version_understands(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(read(path)["spec"]["entrypoint"])
    options = make_parser().parse_args(words)
    config = load_config(options.config, options.overrides)
    assert (program, options.command) == ("bertkd", "run")
    assert config.storage.startswith("s3://")


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_removes_its_cluster(path):
    spec = read(path)["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0


def test_the_gpu_job_lives_on_spot_nodes(monkeypatch):
    monkeypatch.chdir(ROOT)
    tree = read(ROOT / "deploy" / "kuberay" / "rayjob-gpu.yaml")
    cluster = cluster_of(tree)
    assert cluster["enableInTreeAutoscaling"] is True
    gpu, cpu = cluster["workerGroupSpecs"]
    options = make_parser().parse_args(shlex.split(tree["spec"]["entrypoint"])[1:])
    config = load_config(options.config, options.overrides)
    assert config.worker_range == (gpu["minReplicas"], gpu["maxReplicas"]) == (1, 4)
    assert (cpu["minReplicas"], cpu["maxReplicas"]) == (0, 4)
    for group in (gpu, cpu):
        pod = group["template"]["spec"]
        tolerated = {toleration["key"] for toleration in pod["tolerations"]}
        assert tolerated == {"cloud.google.com/gke-spot", "nvidia.com/gpu"}
        assert pod["nodeSelector"] == {"cloud.google.com/gke-spot": "true"}
        assert pod["terminationGracePeriodSeconds"] >= config.preemption_grace
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in cpu["template"]["spec"]["containers"][0]["resources"]["limits"]
