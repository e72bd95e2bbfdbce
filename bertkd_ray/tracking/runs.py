"""Runs and experiments of MLflow, written so that everything may be called again for a resumed run.

Tags written here:
`bertkd.key`                   what the caller finds the run by
`bertkd.logged_step.<series>`  the last step logged of a series of metrics
`bertkd.changed.<parameter>`   the newest value of a parameter that was first logged with another one (MLflow never
                               changes a parameter)
"""

import json
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from bertkd_ray.config import dotted
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import one_line
from bertkd_ray.core.redaction import redacted
from bertkd_ray.tracking import models
from bertkd_ray.tracking.interface import InputArtifact, MetricRow, Run, RunStatus, RunValues, StudentModel, Tracker
from bertkd_ray.tracking.store import (
    artifact_repository,
    is_own_location,
    require_own_location,
    short_timeouts,
    store_errors,
)

KEY_TAG = "bertkd.key"
_ORIGIN_TAGS = ("bertkd.storage", "bertkd.artifact", "bertkd.content")
"""What a run was made from: one of another storage, or of files with other bytes, has equal keys at most."""
LOGGED_STEP_TAG = "bertkd.logged_step."
CHANGED_TAG = "bertkd.changed."
_PARENT_TAG = "mlflow.parentRunId"
_TABLES_TAG = "mlflow.loggedArtifacts"
_DATASET_CONTEXT_TAG = "mlflow.data.context"
_RETRY_SECONDS = 30.0
"""Between tries to send metrics to a store that did not take them."""

# MLflow's own limits (mlflow.utils.validation).
_MAX_PARAM_LENGTH = 6000
_MAX_TAG_LENGTH = 8000
_MAX_DATASET_NAME_LENGTH = 500
_MAX_DIGEST_LENGTH = 36
_MAX_PROFILE_LENGTH = 16_000
_MAX_ENTITIES_PER_BATCH = 1000
_MAX_PARAMS_PER_BATCH = 100


class MlflowRun(Run):
    """A run of MLflow, written through a client of its own."""

    def __init__(self, client: Any, uri: str, run_id: str, *, is_new: bool) -> None:
        super().__init__(run_id)
        self._client, self._uri, self._is_new = client, uri, is_new
        run = client.get_run(run_id)
        self._location: str = run.info.artifact_uri
        require_own_location(uri, f"run {run_id}", self._location)
        self._experiment_id: str = run.info.experiment_id
        self._params: dict[str, str] = dict(run.data.params)
        self._tags: dict[str, str] = dict(run.data.tags)
        self._last_step_of_key: dict[str, int] = {}
        self._unsent: dict[str, list[MetricRow]] = {}
        self._retry_at = 0.0

    def log_params(self, params: RunValues) -> None:
        from mlflow.entities import Param

        fresh: dict[str, str] = {}
        changed: dict[str, str] = {}
        for key, value in dotted(params):
            text = _as_text(value, _MAX_PARAM_LENGTH)
            if key not in self._params:
                fresh[key] = text
            elif self._params[key] != text:
                changed[CHANGED_TAG + key] = text
        self._log_batches("params", [Param(key, text) for key, text in fresh.items()])
        self._params.update(fresh)
        self.set_tags(changed)

    def set_tags(self, tags: RunValues) -> None:
        from mlflow.entities import RunTag

        texts = {key: _as_text(value, _MAX_TAG_LENGTH) for key, value in tags.items()}
        self._log_batches("tags", [RunTag(key, text) for key, text in texts.items()])
        self._tags.update(texts)

    def _log_batches(self, kind: Literal["params", "tags"], entities: list[Any]) -> None:
        for start in range(0, len(entities), _MAX_PARAMS_PER_BATCH):
            batch = {kind: entities[start : start + _MAX_PARAMS_PER_BATCH]}
            self._client.log_batch(self.run_id, **batch, synchronous=True)

    def log_metrics(self, rows: Iterable[MetricRow], *, series: str = "train") -> None:
        self._unsent.setdefault(series, []).extend(rows)
        if time.monotonic() < self._retry_at:
            return
        try:
            with short_timeouts():
                self._send()
        except Exception as error:
            if not self._retry_at:
                reason = redacted(one_line(error), secrets_of=self._uri)
                log(f"metrics are kept until {self._uri} takes them again: {reason}", stage="tracking")
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            # What was sent may have arrived, its answer alone was lost.
            self._is_new = False
            self._last_step_of_key.clear()

    def _send(self) -> None:
        """Sends what is kept."""
        for series, rows in self._unsent.items():
            self._send_series(rows, series)
            rows.clear()
        if self._retry_at:
            log("metrics are sent again, those that were kept too", stage="tracking")
            self._retry_at = 0.0

    def _send_series(self, rows: list[MetricRow], series: str) -> None:
        from mlflow.entities import Metric, RunTag

        tag = LOGGED_STEP_TAG + series
        last_step = int(self._tags.get(tag, -1))
        entities: list[Any] = []
        newest = last_step

        def flush() -> None:
            # The step's tag travels with its metrics. MLflow commits the metrics first, so a process that is killed in
            # between leaves a tag that is too low: _last_step covers that.
            self._client.log_batch(self.run_id, metrics=entities, tags=[RunTag(tag, str(newest))], synchronous=True)
            self._tags[tag] = str(newest)
            entities.clear()

        for step, values, timestamp in _merge_steps(rows):
            if step <= last_step:
                continue
            if entities and len(entities) + len(values) >= _MAX_ENTITIES_PER_BATCH:
                flush()
            entities += [
                Metric(key, float(value), timestamp, step)
                for key, value in values.items()
                if step > self._last_step(key)
            ]
            newest = step
        if newest > int(self._tags.get(tag, -1)):
            flush()

    def _last_step(self, key: str) -> int:
        """The last step that this run had of a metric when this object was made; -1 for none."""
        if self._is_new:
            return -1
        if key not in self._last_step_of_key:
            history = self._client.get_metric_history(self.run_id, key)
            self._last_step_of_key[key] = max((metric.step for metric in history), default=-1)
        return self._last_step_of_key[key]

    @cached_property
    def _artifacts(self) -> Any:
        return artifact_repository(self._uri, self._location)

    def log_artifact(self, path: str | Path, directory: str = "") -> None:
        self._artifacts.log_artifact(str(path), directory or None)

    def log_text(self, text: str, file: str) -> None:
        directory, _, name = file.rpartition("/")
        with tempfile.TemporaryDirectory(prefix="text-") as scratch:
            path = Path(scratch) / name
            path.write_text(text, encoding="utf-8")
            self.log_artifact(path, directory)

    def log_table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        # MlflowClient.log_table appends to a table that exists, which would double the rows of a resumed run.
        columns = list(rows[0]) if rows else []
        table = {"columns": columns, "data": [[row[column] for column in columns] for row in rows]}
        self.log_text(json.dumps(table, ensure_ascii=False), file)
        tables = json.loads(self._tags.get(_TABLES_TAG, "[]"))
        entry = {"path": file, "type": "table"}
        if entry not in tables:
            self.set_tags({_TABLES_TAG: json.dumps([*tables, entry])})

    def log_inputs(self, inputs: Sequence[InputArtifact]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        datasets = []
        for artifact in inputs:
            profile = {"fingerprint": artifact.fingerprint, **artifact.counts}
            dataset = Dataset(
                name=artifact.name[:_MAX_DATASET_NAME_LENGTH],
                digest=artifact.fingerprint[:_MAX_DIGEST_LENGTH],
                source_type=urlsplit(artifact.source).scheme or "local",
                source=json.dumps({"uri": redacted(artifact.source)}),
                profile=json.dumps(profile)[:_MAX_PROFILE_LENGTH],
            )
            datasets.append(DatasetInput(dataset, [InputTag(_DATASET_CONTEXT_TAG, artifact.context)]))
        try:
            self._client.log_inputs(self.run_id, datasets)
        except Exception as error:
            # Another process may have entered the same row between MLflow's look and its insert; it is there now.
            if not re.search("unique constraint|duplicate (key|entry)", str(error), re.IGNORECASE):
                raise
            self._client.log_inputs(self.run_id, datasets)

    def log_model(self, student: StudentModel, *, register: str | None = None) -> str | None:
        uri = models.logged_model(self._client, self._uri, self._experiment_id, self.run_id, student)
        if register is not None:
            log(models.register(self._client, register, uri, self.run_id, student), stage="register")
        return uri

    def finish(self, status: RunStatus = "FINISHED", *, below: bool = False) -> None:
        with store_errors(self._uri), short_timeouts():
            self._send()
            self._client.set_terminated(self.run_id, status)
            for run_id in self._running_below(self.run_id) if below else ():
                self._client.set_terminated(run_id, status)

    def _running_below(self, parent: str) -> Iterator[str]:
        for run in self._client.search_runs([self._experiment_id], f"tags.`{_PARENT_TAG}` = '{parent}'"):
            yield from self._running_below(run.info.run_id)
            if run.info.status == "RUNNING":
                yield run.info.run_id


class MlflowTracker(Tracker):
    """An experiment of an MLflow store: an sqlite file, a database or a tracking server."""

    def __init__(self, client: Any, uri: str, experiment_id: str) -> None:
        self._client, self._uri, self._experiment_id = client, uri, experiment_id

    @property
    def how_to_open(self) -> str | None:
        if urlsplit(self._uri).scheme in ("http", "https"):
            return f"{redacted(self._uri).rstrip('/')}/#/experiments/{self._experiment_id}"
        # By the interpreter: the environment that has mlflow need not be the one whose commands the shell finds.
        return f"{shlex.quote(sys.executable)} -m mlflow ui --backend-store-uri {shlex.quote(redacted(self._uri))}"

    def run(
        self, name: str, *, key: str, parent: str = "", params: RunValues | None = None, tags: RunValues | None = None
    ) -> Run:
        # Runs that are deleted, keep their artifacts elsewhere or are of another storage are not found again; of
        # several, the oldest is taken. Those of earlier versions lack some of these tags.
        # MLflow's filters know no escape for quotes and backslashes, which are percent-encoded therefore.
        identity = {KEY_TAG: quote(key, safe=" !#$&()*+,-./:;<=>?@[]^_{|}~")}
        if parent:
            identity[_PARENT_TAG] = parent
        origin = {tag: _as_text(value, _MAX_TAG_LENGTH) for tag, value in (tags or {}).items() if tag in _ORIGIN_TAGS}
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in identity.items())
        with store_errors(self._uri), short_timeouts():
            runs = self._client.search_runs([self._experiment_id], query, order_by=["attributes.start_time ASC"])
            earlier = [
                run
                for run in runs
                if is_own_location(self._uri, run.info.artifact_uri)
                and all(run.data.tags.get(tag, value) == value for tag, value in origin.items())
            ]
            if earlier:
                run_id = earlier[0].info.run_id
                self._client.update_run(run_id, status="RUNNING", name=name)
            else:
                run_id = self._client.create_run(self._experiment_id, run_name=name, tags=identity).info.run_id
            run = MlflowRun(self._client, self._uri, run_id, is_new=not earlier)
            run.set_tags(tags or {})
            run.log_params(params or {})
        return run


def _as_text(value: Any, limit: int) -> str:
    is_text = isinstance(value, (str, os.PathLike))
    text = redacted(os.fspath(value) if is_text else json.dumps(value, ensure_ascii=False))
    if len(text) <= limit:
        return text
    mark = f" … [cut, {len(text)} characters]"
    return text[: limit - len(mark)] + mark


def _merge_steps(rows: Iterable[MetricRow]) -> list[MetricRow]:
    """One row a step, rising, so that a batch never ends within a step."""
    merged: dict[int, tuple[dict[str, float], int]] = {}
    for step, values, timestamp in rows:
        merged.setdefault(int(step), ({}, int(timestamp)))[0].update(values)
    return [(step, values, timestamp) for step, (values, timestamp) in sorted(merged.items())]
