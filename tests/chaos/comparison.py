"""A disturbed run's artifacts and runs against those of the undisturbed one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from mlflow import MlflowClient

from bertkd_ray.pipeline.checks import check_store

WEIGHTS = "model/model.safetensors"


@dataclass(frozen=True)
class Differences:
    """What a run came to; all is well when nothing is lost or twice and the rest is equal."""

    rows_lost: int
    rows_twice: int
    rows_equal: bool
    """Every Parquet table of every artifact, bit for bit."""
    weights_equal: bool
    """Teacher and students, byte for byte."""
    curves_equal: bool
    """The loss of every step, exactly."""
    runs: int
    """MLflow runs more or fewer than in the undisturbed store."""
    metrics_unequal: int
    """Metrics of MLflow runs that have a step more than once, or not at all."""
    problems: int
    """Files that are not as their manifests say."""

    @property
    def none(self) -> bool:
        """Whether the disturbed run's result is the undisturbed one's."""
        return all(getattr(self, field.name) == (field.type == "bool") for field in fields(self))


def compare(undisturbed: Path, disturbed: Path, lent: Sequence[str] = ()) -> Differences:
    """The differences between two stores of the same configuration.

    lent: artifacts that the second store has from the first, so that it has no MLflow run of them.
    """
    artifacts = sorted(path.parent.name for path in undisturbed.glob("*/manifest.json"))
    lost = twice = 0
    rows_equal = weights_equal = curves_equal = True
    for artifact in artifacts:
        for table in sorted((undisturbed / artifact).rglob("*.parquet")):
            mine, theirs = disturbed / table.relative_to(undisturbed), pq.read_table(table)
            found = pq.read_table(mine) if mine.exists() else theirs.slice(0, 0)
            rows_equal &= found.equals(theirs)
            if "id" in theirs.column_names:
                ids = found["id"].to_pylist()
                lost += len(set(theirs["id"].to_pylist()) - set(ids))
                twice += len(ids) - len(set(ids))
        if (undisturbed / artifact / WEIGHTS).exists():
            weights_equal &= _same_bytes(undisturbed / artifact / WEIGHTS, disturbed / artifact / WEIGHTS)
            curves_equal &= _curve(undisturbed / artifact) == _curve(disturbed / artifact)
    given = tuple(artifact.rpartition("-")[2] for artifact in lent)
    actual = _metrics(disturbed)
    expected = {run: steps for run, steps in _metrics(undisturbed).items() if not (given and run.endswith(given))}
    steps = {(run, key): found for run, of_key in expected.items() for key, found in of_key.items()}
    return Differences(
        rows_lost=lost,
        rows_twice=twice,
        rows_equal=rows_equal,
        weights_equal=weights_equal,
        curves_equal=curves_equal,
        runs=abs(len(actual) - len(expected)),
        metrics_unequal=sum(actual.get(run, {}).get(key) != found for (run, key), found in steps.items()),
        problems=len(check_store(str(disturbed))[1]),
    )


def steps_again(store: Path) -> int:
    """Steps of training that were computed more than once.

    MLflow keeps the time at which a step was first logged, the artifact the time of the computation that it comes from.
    """
    first: dict[str, dict[int, int]] = {}
    client, runs = _runs(store)
    for run in runs:
        if digest := run.data.tags.get("bertkd.fingerprint"):
            history = client.get_metric_history(run.info.run_id, "train/loss")
            first[digest] = {metric.step: metric.timestamp for metric in history}
    again = 0
    for path in store.glob("*/history.json"):
        if (digest := path.parent.name.rpartition("-")[2]) in first:  # else it is lent
            rows = [row for row in json.loads(path.read_text())["rows"] if "train/loss" in row]
            again += sum(int(row["time"] * 1000) != first[digest][int(row["step"])] for row in rows)
    return again


def _same_bytes(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


def _curve(artifact: Path) -> list[tuple[float, float]]:
    path = artifact / "history.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]


def _metrics(store: Path) -> dict[str, dict[str, list[int]]]:
    """The steps of every training metric of every run, by the run's key."""
    client, runs = _runs(store)
    found: dict[str, dict[str, list[int]]] = {}
    for number, run in enumerate(runs):
        keys = [key for key in run.data.metrics if key.startswith(("train/", "valid/"))]
        steps = {key: [m.step for m in client.get_metric_history(run.info.run_id, key)] for key in keys}
        # A second run of the same key must not hide the first.
        name = run.data.tags["bertkd.key"]
        found[f"{name} again {number}" if name in found else name] = {key: sorted(steps[key]) for key in keys}
    return found


def _runs(store: Path) -> tuple[MlflowClient, list[Any]]:
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return client, list(client.search_runs(experiments))
