"""Runs, metrics and lineage in MLflow; the only module that imports mlflow, and only once a tracker is opened.

A run is found again by the tag `bertkd.key`, so that a pipeline that was killed goes on in the runs it had. Everything
here may therefore be called again for a resumed run: parameters do not clash, no step is logged twice, lineage and
artifacts are replaced by equal ones. Only `MlflowClient` is used, never mlflow's global "active run", so that a driver,
its workers and other users of mlflow in the same process stay apart.

Tags written here:
`bertkd.key`                   what the caller finds the run by
`bertkd.logged_step.<series>`  the last step logged of a series of metrics
`bertkd.changed.<parameter>`   the newest value of a parameter that was first logged with another one (MLflow never
                               changes a parameter)
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import quote, unquote, urlsplit

from bertkd_ray.core.errors import UserError

KEY_TAG = "bertkd.key"
LOGGED_STEP_TAG = "bertkd.logged_step."
CHANGED_TAG = "bertkd.changed."
_PARENT_TAG = "mlflow.parentRunId"
_TABLES_TAG = "mlflow.loggedArtifacts"
_DATASET_CONTEXT_TAG = "mlflow.data.context"

# MLflow's own limits (mlflow.utils.validation).
_MAX_PARAM_LENGTH = 6000
_MAX_TAG_LENGTH = 8000
_MAX_DATASET_NAME_LENGTH = 500
_MAX_DIGEST_LENGTH = 36
_MAX_PROFILE_LENGTH = 16_000
_MAX_ENTITIES_PER_BATCH = 1000
_MAX_PARAMS_PER_BATCH = 100

_OPEN_TIMEOUT_S = 10
_NONE = "none"

Status = Literal["FINISHED", "FAILED", "KILLED"]
MetricRow = tuple[int, Mapping[str, float], int]
"""(step, values by metric key, milliseconds since 1970)"""


@dataclass(frozen=True)
class RunRef:
    """Where a run is, for another process to go on with it (`attach`); plain data, `dataclasses.asdict` gives JSON.

    uri: the tracking URI, which may hold credentials, so it is shown redacted; "none" for a run that is not tracked.
    A `sqlite:///` URI names a file, which only the machines that see that file can attach to.
    """

    uri: str = field(repr=False)
    run_id: str

    def __str__(self) -> str:
        return f"run {self.run_id} of {redact(self.uri)}"


@dataclass(frozen=True)
class InputArtifact:
    """One input of a run, logged as an MLflow dataset.

    name: what the artifact is, e.g. "corpus"; fingerprint: its hash (MLflow keeps 36 characters of it as the digest;
    the whole stands in the profile); source: path or URI (logged without credentials); counts: rows by split or
    whatever describes its size; context: what the run uses it for, e.g. "training".
    """

    name: str
    fingerprint: str
    source: str
    counts: Mapping[str, int] = field(default_factory=dict)
    context: str = "input"


class Run(Protocol):
    """A run that is being logged. Every method may be repeated after a resume."""

    @property
    def ref(self) -> RunRef:
        """Where this run is, for another process."""
        ...

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; nested mappings become dotted keys, values that are neither text nor paths become JSON.

        URIs are logged without credentials. A parameter already logged with another value keeps it, and the new value
        goes to the tag `bertkd.changed.<key>`. A value over MLflow's limit is cut, and its end says so.
        """
        ...

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, written as parameters are; existing ones are replaced."""
        ...

    def log_metrics(self, rows: Iterable[MetricRow], *, series: str = "train") -> None:
        """Log `rows`, each (step, {key: value}, milliseconds since 1970), of one series of metrics.

        Steps up to the last one logged of this series are left out, so the steps of a series must rise from call to
        call, and a metric key belongs to one series. NaN and infinities are logged as they are. At most 999 keys a row.
        """
        ...

    def log_artifact(self, path: str | Path, directory: str = "") -> None:
        """Copy a local file into the run's artifact `directory` (its root by default)."""
        ...

    def log_figure(self, name: str, path: str | Path) -> None:
        """Copy a drawn figure to `figures/<name><suffix of path>`."""
        ...

    def log_text(self, text: str, file: str) -> None:
        """Write `text` as the artifact `file`, e.g. "tables/scores.md"."""
        ...

    def log_table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Write rows of equal keys as the artifact `file` (ends in .json), which MLflow shows as a table."""
        ...

    def log_inputs(self, inputs: Sequence[InputArtifact]) -> None:
        """Log the run's input artifacts as MLflow datasets."""
        ...

    def finish(self, status: Status = "FINISHED") -> None:
        """Close the run; a later `Tracker.run` with the same key opens it again."""
        ...


class Tracker(Protocol):
    """An experiment in which runs are found or made."""

    @property
    def how_to_open(self) -> str | None:
        """The command or address that shows the runs, without credentials; None where nothing is tracked."""
        ...

    def run(
        self,
        name: str,
        *,
        key: str,
        parent: RunRef | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Run:
        """The experiment's run of this key under this parent, set to RUNNING again, or a new one.

        name: what the run is called in MLflow; key: what it is found by (a fingerprint, say).
        """
        ...


# --- no tracking ------------------------------------------------------------------------------------------------------


class NullRun:
    """A run that logs nothing."""

    @property
    def ref(self) -> RunRef:
        return RunRef(_NONE, "")

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log nothing."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Log nothing."""

    def log_metrics(self, rows: Iterable[MetricRow], *, series: str = "train") -> None:
        """Log nothing."""

    def log_artifact(self, path: str | Path, directory: str = "") -> None:
        """Log nothing."""

    def log_figure(self, name: str, path: str | Path) -> None:
        """Log nothing."""

    def log_text(self, text: str, file: str) -> None:
        """Log nothing."""

    def log_table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Log nothing."""

    def log_inputs(self, inputs: Sequence[InputArtifact]) -> None:
        """Log nothing."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Log nothing."""


class NullTracker:
    """`tracking.uri: none`: runs that log nothing; mlflow need not be installed."""

    @property
    def how_to_open(self) -> str | None:
        return None

    def run(
        self,
        name: str,
        *,
        key: str,
        parent: RunRef | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Run:
        """A run that logs nothing."""
        return NullRun()


# --- MLflow -----------------------------------------------------------------------------------------------------------


class MlflowRun:
    """A run of MLflow, written through a client of its own."""

    def __init__(self, client: Any, uri: str, run_id: str, *, is_new: bool) -> None:
        self._client = client
        self._uri = uri
        self._run_id = run_id
        data = client.get_run(run_id).data
        self._params: dict[str, str] = dict(data.params)
        self._tags: dict[str, str] = dict(data.tags)
        self._is_new = is_new
        self._last_step_of_key: dict[str, int] = {}

    @property
    def ref(self) -> RunRef:
        return RunRef(self._uri, self._run_id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """See `Run.log_params`."""
        from mlflow.entities import Param

        fresh: dict[str, str] = {}
        changed: dict[str, str] = {}
        for key, value in _flatten(params):
            text = _shorten(_as_text(value), _MAX_PARAM_LENGTH)
            if key not in self._params:
                fresh[key] = text
            elif self._params[key] != text:
                changed[CHANGED_TAG + key] = text
        for batch in _chunks(list(fresh.items()), _MAX_PARAMS_PER_BATCH):
            entities = [Param(key, value) for key, value in batch]
            self._client.log_batch(self._run_id, params=entities, synchronous=True)
        self._params.update(fresh)
        self.set_tags(changed)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """See `Run.set_tags`."""
        from mlflow.entities import RunTag

        texts = {key: _shorten(_as_text(value), _MAX_TAG_LENGTH) for key, value in tags.items()}
        for batch in _chunks(list(texts.items()), _MAX_PARAMS_PER_BATCH):
            entities = [RunTag(key, value) for key, value in batch]
            self._client.log_batch(self._run_id, tags=entities, synchronous=True)
        self._tags.update(texts)

    def log_metrics(self, rows: Iterable[MetricRow], *, series: str = "train") -> None:
        """See `Run.log_metrics`."""
        from mlflow.entities import Metric, RunTag

        tag = LOGGED_STEP_TAG + series
        last_step = int(self._tags.get(tag, -1))
        entities: list[Any] = []
        newest = last_step

        def flush() -> None:
            # The step's tag travels with its metrics. MLflow commits the metrics first, so a process that is killed in
            # between leaves a tag that is too low: _last_step covers that.
            self._client.log_batch(self._run_id, metrics=entities, tags=[RunTag(tag, str(newest))], synchronous=True)
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
            history = self._client.get_metric_history(self._run_id, key)
            self._last_step_of_key[key] = max((metric.step for metric in history), default=-1)
        return self._last_step_of_key[key]

    def log_artifact(self, path: str | Path, directory: str = "") -> None:
        """See `Run.log_artifact`."""
        self._client.log_artifact(self._run_id, str(path), directory or None)

    def log_figure(self, name: str, path: str | Path) -> None:
        """See `Run.log_figure`."""
        with tempfile.TemporaryDirectory() as directory:
            renamed = Path(directory) / f"{name}{Path(path).suffix}"
            shutil.copyfile(path, renamed)
            self.log_artifact(renamed, "figures")

    def log_text(self, text: str, file: str) -> None:
        """See `Run.log_text`."""
        self._client.log_text(self._run_id, text, file)

    def log_table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """See `Run.log_table`."""
        # MlflowClient.log_table appends to a table that exists, which would double the rows of a resumed run.
        columns = list(rows[0]) if rows else []
        table = {"columns": columns, "data": [[row[column] for column in columns] for row in rows]}
        self.log_text(json.dumps(table, ensure_ascii=False), file)
        tables = json.loads(self._tags.get(_TABLES_TAG, "[]"))
        entry = {"path": file, "type": "table"}
        if entry not in tables:
            self.set_tags({_TABLES_TAG: json.dumps([*tables, entry])})

    def log_inputs(self, inputs: Sequence[InputArtifact]) -> None:
        """See `Run.log_inputs`."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        datasets = []
        for artifact in inputs:
            profile = {"fingerprint": artifact.fingerprint, **artifact.counts}
            dataset = Dataset(
                name=artifact.name[:_MAX_DATASET_NAME_LENGTH],
                digest=artifact.fingerprint[:_MAX_DIGEST_LENGTH],
                source_type=urlsplit(artifact.source).scheme or "local",
                source=json.dumps({"uri": redact(artifact.source)}),
                profile=json.dumps(profile)[:_MAX_PROFILE_LENGTH],
            )
            datasets.append(DatasetInput(dataset, [InputTag(_DATASET_CONTEXT_TAG, artifact.context)]))
        self._client.log_inputs(self._run_id, datasets)

    def finish(self, status: Status = "FINISHED") -> None:
        """See `Run.finish`."""
        self._client.set_terminated(self._run_id, status)


class MlflowTracker:
    """An experiment of an MLflow store: an sqlite file, a database or a tracking server."""

    def __init__(self, client: Any, uri: str, experiment_id: str) -> None:
        self._client = client
        self._uri = uri
        self._experiment_id = experiment_id

    @property
    def how_to_open(self) -> str | None:
        if urlsplit(self._uri).scheme in ("http", "https"):
            return f"{redact(self._uri).rstrip('/')}/#/experiments/{self._experiment_id}"
        # By the interpreter: the environment that has mlflow need not be the one whose commands the shell finds.
        return f"{shlex.quote(sys.executable)} -m mlflow ui --backend-store-uri {shlex.quote(redact(self._uri))}"

    def run(
        self,
        name: str,
        *,
        key: str,
        parent: RunRef | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Run:
        """See `Tracker.run`. Deleted runs are not found again; of several, the oldest is taken."""
        identity = {KEY_TAG: _quotable(key)} | ({_PARENT_TAG: parent.run_id} if parent else {})
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in identity.items())
        found = self._client.search_runs(
            [self._experiment_id], query, max_results=1, order_by=["attributes.start_time ASC"]
        )
        if found:
            run_id = found[0].info.run_id
            self._client.update_run(run_id, status="RUNNING", name=name)
        else:
            run_id = self._client.create_run(self._experiment_id, run_name=name, tags=identity).info.run_id
        run = MlflowRun(self._client, self._uri, run_id, is_new=not found)
        run.set_tags(tags or {})
        run.log_params(params or {})
        return run


# --- opening ----------------------------------------------------------------------------------------------------------


def open_tracker(uri: str | None, experiment: str) -> Tracker:
    """Open (or make) an experiment.

    uri: "none" or None for no tracking; else what MLflow takes: `sqlite:///file.db`, a database, `http(s)://server`.
    The artifacts of an sqlite file go to `mlruns` beside it; elsewhere the store says where they go.

    Raises UserError, within seconds, where mlflow is missing or the store cannot be reached.
    """
    if uri is None or uri == _NONE:
        return NullTracker()
    if not uri:
        raise UserError("tracking.uri: is empty; give sqlite:///FILE, a tracking server (http://…) or none")
    client = _client(uri)
    with _store_errors(uri), _short_timeouts():
        experiment_id = _experiment_id(client, uri, experiment)
    return MlflowTracker(client, uri, experiment_id)


def attach(ref: RunRef) -> Run:
    """The run of a reference made by another process, as it is (its status is left alone).

    Raises UserError where the store cannot be reached or holds no such run.
    """
    if ref.uri == _NONE:
        return NullRun()
    file = _sqlite_file(ref.uri)
    if file is not None and not file.exists():
        raise UserError(
            f"tracking.uri: {ref.uri} is not on this machine; use a tracking server (http://…) or a shared directory"
        )
    client = _client(ref.uri)
    with _store_errors(ref.uri), _short_timeouts():
        return MlflowRun(client, ref.uri, ref.run_id, is_new=False)


def default_uri(storage: str) -> str:
    """The tracking URI of a local storage directory: `sqlite:///<absolute directory>/mlflow.db`.

    Raises UserError for storage that is not a local directory, where an sqlite file cannot live.
    """
    parts = urlsplit(storage)
    if parts.scheme not in ("", "file"):
        raise UserError(
            f"tracking.uri: storage {redact(storage)} is no local directory; give a tracking server (http://…), "
            "sqlite:///FILE or none"
        )
    directory = Path(unquote(parts.path) if parts.scheme == "file" else storage).expanduser()
    return f"sqlite:///{directory.absolute() / 'mlflow.db'}"


def redact(uri: str) -> str:
    """The URI without user, password and the values of its query, for logs and tags."""
    uri = re.sub(r"(?<=://)[^/?#]*@", "***@", uri)
    return re.sub(r"(?<=[?&])([^=&#]+)=[^&#]*", r"\1=***", uri)


def now_ms() -> int:
    """Milliseconds since 1970, as `Run.log_metrics` takes them."""
    return time.time_ns() // 1_000_000


def _client(uri: str) -> Any:
    # mlflow would send usage statistics out, and print "View run … at …" to stdout, which belongs to results.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as error:
        raise UserError(
            f"tracking.uri: {error.name} is not installed; `pip install mlflow` or set tracking.uri: none"
        ) from error
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
    with _store_errors(uri):
        _check_database(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment_id(client: Any, uri: str, experiment: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(experiment)
    if found is None:
        file = _sqlite_file(uri)
        try:
            return str(client.create_experiment(experiment, str(file.parent / "mlruns") if file else None))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # Another process made it in between.
        found = client.get_experiment_by_name(experiment)
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"tracking.uri: experiment {experiment!r} of {redact(uri)} is deleted; "
            f"`mlflow experiments restore -x {found.experiment_id}` or choose another name"
        )
    return str(found.experiment_id)


def _sqlite_file(uri: str) -> Path | None:
    prefix = "sqlite:///"
    if not uri.startswith(prefix) or uri in (prefix, prefix + ":memory:"):
        return None
    return Path(uri.removeprefix(prefix).partition("?")[0]).absolute()


def _check_database(uri: str) -> None:
    """Connect once to a database, because mlflow tries for minutes before it gives up."""
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme not in ("sqlite", "postgresql", "mysql", "mssql"):
        return
    import sqlalchemy

    file = _sqlite_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    takes_timeout = sqlalchemy.make_url(uri).get_driver_name() in ("psycopg", "psycopg2", "pymysql", "mysqldb")
    options = {"connect_timeout": _OPEN_TIMEOUT_S} if takes_timeout else {}
    engine = sqlalchemy.create_engine(uri, connect_args=options, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("select 1"))


@contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    """Turn a store that cannot be used into one line that names the key; credentials stay out of it."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"tracking.uri: {redact(uri)} needs the package {error.name}; install it or set tracking.uri: none"
        ) from error
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise UserError(
            f"tracking.uri: cannot use {redact(uri)} ({_reason(error, uri)}); start the server, name another one, or "
            "set tracking.uri: none"
        ) from error


def _reason(error: BaseException, uri: str) -> str:
    """The innermost system error where there is one, else the error's first line, in at most 200 characters."""
    reason = error
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError):
            reason = inner
        inner = inner.__cause__ or inner.__context__
    text = (str(reason).strip() or type(reason).__name__).splitlines()[0]
    password = urlsplit(uri).password
    for secret in (uri, password, unquote(password or "")):
        text = text.replace(secret, "***") if secret else text
    return text if len(text) <= 200 else text[:199] + "…"


@contextmanager
def _short_timeouts() -> Iterator[None]:
    """One retry of ten seconds for a tracking server while opening; mlflow's defaults wait for minutes."""
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_OPEN_TIMEOUT_S)}
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


# --- values -----------------------------------------------------------------------------------------------------------


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_text(value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
        return redact(text) if "://" in text else text
    return json.dumps(value, ensure_ascii=False)


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    mark = f" … [cut, {len(text)} characters]"
    return text[: limit - len(mark)] + mark


def _quotable(key: str) -> str:
    """The key without quotes and backslashes, for which MLflow's filter strings know no escape (percent-encoded)."""
    return quote(key, safe=" !#$&()*+,-./:;<=>?@[]^_{|}~")


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _merge_steps(rows: Iterable[MetricRow]) -> list[MetricRow]:
    """One row a step, rising, so that a batch never ends within a step."""
    merged: dict[int, tuple[dict[str, float], int]] = {}
    for step, values, timestamp in rows:
        merged.setdefault(int(step), ({}, int(timestamp)))[0].update(values)
    return [(step, values, timestamp) for step, (values, timestamp) in sorted(merged.items())]
