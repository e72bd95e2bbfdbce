"""Runs, metrics and lineage in MLflow; the only package that imports mlflow, and only once a tracker is opened.

A run is found again by the tag `bertkd.key`, so that a pipeline that was killed goes on in the runs it had. Everything
here may therefore be called again for a resumed run: parameters do not clash, no step is logged twice, lineage and
artifacts are replaced by equal ones. Only `MlflowClient` is used, never mlflow's global "active run", so that a driver,
its workers and other users of mlflow in the same process stay apart.
"""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bertkd_ray.core.errors import UserError
from bertkd_ray.core.paths import expand_home
from bertkd_ray.core.redaction import redacted
from bertkd_ray.tracking import store
from bertkd_ray.tracking.interface import NO_TRACKING, Tracker
from bertkd_ray.tracking.runs import MlflowTracker


def open_tracker(uri: str | None, experiment: str) -> Tracker:
    """Open (or make) an experiment.

    uri: "none" or None for no tracking; else what MLflow takes: `sqlite:///file.db`, a database, `http(s)://server`.
    The artifacts of an sqlite file go to `mlruns` beside it; elsewhere the store says where they go.

    Raises UserError, within seconds, where mlflow is missing or the store cannot be reached.
    """
    if uri is None or uri == NO_TRACKING:
        return Tracker()
    if not uri:
        raise UserError("tracking.uri: is empty; give sqlite:///FILE, a tracking server (http://…) or none")
    client = store.connect(uri)
    with store.store_errors(uri), store.short_timeouts():
        return MlflowTracker(client, uri, store.experiment_id_of(client, uri, experiment))


def check_tracking(uri: str, experiment: str) -> str:
    """What can be said of a store before runs are recorded there; nothing is made. Raises as `open_tracker`."""
    file = store.sqlite_file(uri)
    if uri == NO_TRACKING or (file is not None and not file.exists()):
        return "none" if file is None else f"{redacted(uri)} will be made"
    client = store.connect(uri)
    with store.store_errors(uri), store.short_timeouts():
        store.existing_experiment(client, uri, experiment)
    return f"{redacted(uri)} answers"


def default_uri(storage: str) -> str:
    """The tracking URI where a configuration has none: MLFLOW_TRACKING_URI, as MLflow's own clients, else a local
    storage directory's `sqlite:///<absolute directory>/mlflow.db`.

    Raises UserError for storage that is not a local directory, where an sqlite file cannot live.
    """
    if named := os.environ.get("MLFLOW_TRACKING_URI"):
        return named
    parts = urlsplit(storage)
    if parts.scheme not in ("", "file"):
        raise UserError(
            f"tracking.uri: storage {storage} is no local directory; give a tracking server (http://…, or "
            "MLFLOW_TRACKING_URI), sqlite:///FILE or none"
        )
    directory = Path(unquote(parts.path) if parts.scheme == "file" else expand_home(storage))
    if "?" in str(directory):
        raise UserError(f"tracking.uri: storage {storage} has a ?, which would end the path; rename it or set the key")
    return f"sqlite:///{directory.absolute() / 'mlflow.db'}"
