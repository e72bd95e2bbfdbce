"""The whole pipeline as a team runs it: two Ray nodes, a bucket as storage, an MLflow server with PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.artifacts.store import Store
from tests.helpers.services import ROOT, environment, mlflow_server, postgresql, ray_nodes, s3_server
from tests.helpers.small_config import write_config

pytestmark = [pytest.mark.slow, pytest.mark.ray]

STAGES = ("prepare", "finetune", "extract", "distill/distilled", "translate/distilled")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-cluster-test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Place:
    """Everything that runs, and the environment of a driver that attaches to it."""

    env: dict[str, str]
    storage: str
    tracking: str


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Place]:
    token = tmp_path / "auth_token"
    token.write_text("0123456789abcdef" * 4, encoding="ascii")
    env = environment(**CREDENTIALS, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), HF_HUB_OFFLINE="1")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        s3 = stack.enter_context(s3_server(env))
        way = f"scheme=http&endpoint_override={s3.removeprefix('http://')}"
        Store(f"s3://bucket?{way}&allow_bucket_creation=true").write(b"", "is-there")
        tracked = {**env, "MLFLOW_S3_ENDPOINT_URL": s3}
        tracking = stack.enter_context(mlflow_server(database, "s3://bucket/mlflow", tracked))
        # A worker of one CPU on each node: two workers need both nodes.
        nodes = stack.enter_context(ray_nodes(1, 1, env=env))
        driver = {**env, "RAY_ADDRESS": nodes.address, "MLFLOW_TRACKING_URI": tracking}
        yield Place(driver, f"s3://bucket/store?{way}", tracking)


def run(place: Place, config: Path) -> dict[str, Any]:
    """`bertkd run` as a driver of its own, which knows the services from its environment alone."""
    command = [sys.executable, "-m", "bertkd_ray", "run", str(config), "--json"]
    done = subprocess.run(command, cwd=ROOT, env=place.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_two_nodes_a_bucket_and_a_tracking_server(place, tmp_path):
    config = write_config(
        tmp_path / "project",
        storage=place.storage,
        workers=2,
        checkpoint_every=2,
        arms={"distilled": {}},
    )
    tree = (
        config.read_text(encoding="utf-8").replace("steps: 20", "steps: 4").replace("eval_every: 10", "eval_every: 4")
    )
    config.write_text(tree, encoding="utf-8")
    finished = run(place, config)
    assert {name: entry["status"] for name, entry in finished["stages"].items()} == dict.fromkeys(STAGES, "done")
    store = Store(place.storage)
    manifests = {name for name, _ in store.files() if name.endswith("/manifest.json")}
    assert manifests == {
        f"{kind}-{finished['stages'][stage]['fingerprint']}/manifest.json"
        for kind, stage in zip(("corpus", "teacher", "softlabels", "student", "translation"), STAGES, strict=True)
    }
    assert store.files("work") == []
    _check_runs(place, finished)

    shards, kept = _forget_a_shard(store, finished)
    again = run(place, config)
    assert {name: entry["status"] for name, entry in again["stages"].items()} == {
        **dict.fromkeys(STAGES, "cached"),
        "extract": "resumed",
    }
    assert _without_seconds(again["scores"]) == _without_seconds(finished["scores"])
    labels = f"softlabels-{finished['stages']['extract']['fingerprint']}"
    assert [name for name, _ in store.files(labels) if name.endswith(".parquet")] == shards
    assert {name: store.sha256(labels, name) for name in kept} == kept


def _without_seconds(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in score.items() if key != "seconds"} for score in scores]


def _check_runs(place: Place, finished: dict[str, Any]) -> None:
    """Everything about the runs has come through the server, artifacts too."""
    from mlflow import MlflowClient

    client = MlflowClient(place.tracking)
    experiment = client.get_experiment_by_name("small")
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {"small", *STAGES} <= set(runs)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for stage in STAGES:
        assert runs[stage].data.tags["bertkd.fingerprint"] == finished["stages"][stage]["fingerprint"]
        assert runs[stage].data.tags["mlflow.parentRunId"] == runs["small"].info.run_id
    student = runs["distill/distilled"].info.run_id
    assert [metric.step for metric in client.get_metric_history(student, "train/loss")] == [1, 2, 3, 4]
    assert [metric.step for metric in client.get_metric_history(student, "valid/bleu")] == [4]
    figures = [item.path for item in client.list_artifacts(runs["small"].info.run_id, "figures")]
    assert "figures/translation-losses.png" in figures
    stored = {name for name, _ in Store(place.storage.replace("/store?", "/mlflow?")).files()}
    assert any(name.endswith("/figures/translation-losses.png") for name in stored)


def _forget_a_shard(store: Store, finished: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """As if the driver had died before one shard: all the shards' names, and the checksums of those that are left."""
    labels = f"softlabels-{finished['stages']['extract']['fingerprint']}"
    shards = [name for name, _ in store.files(labels) if name.endswith(".parquet")]
    for lost in ("manifest.json", shards[-1]):
        store.fs.delete_file(store.path(labels, lost))
    return shards, {name: store.sha256(labels, name) for name in shards[:-1]}
