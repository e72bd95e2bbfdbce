"""Connecting to an MLflow store within seconds, or saying in one line why it cannot be used."""

import fcntl
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bertkd_ray.artifacts.storage_errors import is_out_of_space, storage_error
from bertkd_ray.core.environment import default_variables
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.redaction import redacted

_OPEN_TIMEOUT_S = 10
# `runs:` and `models:` lead to wherever the server says next.
_LOCAL_SCHEMES = ("", "file", "runs", "models")
# MLflow's client speaks to the host of such a location, with what credentials it has.
_SCHEMES_WITH_A_HOST = ("ftp", "sftp", "hdfs", "viewfs", "r2", "b2", "abfss")


def connect(uri: str) -> Any:
    """The `MlflowClient` of a store; raises UserError where mlflow is missing or a database does not answer.

    A tracking server is first spoken to by the client's first call.
    """
    # mlflow would send usage statistics, draw bars, and print "View run … at …" to stdout, which belongs to results.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as error:
        raise UserError(
            f"tracking.uri: {error.name} is not installed; `pip install mlflow` or set tracking.uri: none"
        ) from error
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # It logs pages of what it raises.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with store_errors(uri):
        if (file := sqlite_file(uri)) is not None:
            mlruns = file.parent / "mlruns"
            if link := next((path for path in (file, mlruns, *mlruns.glob("*")) if path.is_symlink()), None):
                raise UserError(f"tracking.uri: {link} is a link, and runs would go to where it leads; name that place")
            _make_database(file)
        _check_database(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id_of(client: Any, uri: str, experiment: str) -> str:
    """The id of the experiment of this name, made where there is none; raises UserError for a deleted one."""
    if existing_experiment(client, uri, experiment) is None:
        file = sqlite_file(uri)
        with unless_made_meanwhile():
            client.create_experiment(experiment, str(file.parent / "mlruns") if file else None)
    return str(existing_experiment(client, uri, experiment).experiment_id)


@contextmanager
def unless_made_meanwhile() -> Iterator[None]:
    """Goes on where another process has made in between what the block would make."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def existing_experiment(client: Any, uri: str, experiment: str) -> Any:
    """MLflow's experiment of this name, or None; raises UserError for a deleted one, or with artifacts elsewhere."""
    existing = client.get_experiment_by_name(experiment)
    if existing is None:
        return None
    if existing.lifecycle_stage == "deleted":
        raise UserError(
            f"tracking.uri: experiment {experiment!r} of {uri} is deleted; "
            f"`mlflow experiments restore -x {existing.experiment_id}` or choose another name"
        )
    what = f"experiment {experiment!r}"
    if sqlite_file(uri) is not None and not is_own_location(uri, existing.artifact_location):
        raise UserError(
            f"tracking.uri: {what} of {uri} keeps its artifacts in {existing.artifact_location}, "
            "not beside that file, which was perhaps moved or copied; set tracking.experiment to a new name"
        )
    require_own_location(uri, what, existing.artifact_location)
    return existing


def is_own_location(uri: str, location: str) -> bool:
    """Whether a store may have artifacts written there: below the directory of an SQLite file; for a tracking server
    through itself, or to a bucket, but neither on this machine nor to another host. A database knows its place.
    """
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import get_uri_scheme

    file, server, parts, scheme = sqlite_file(uri), urlsplit(uri), urlsplit(location), get_uri_scheme(location)
    if file is not None:
        directory = Path(local_file_uri_to_path(location)).resolve()
        return scheme in ("", "file") and directory.is_relative_to(file.parent.resolve())
    if server.scheme not in ("http", "https"):
        return True
    if scheme in ("http", "https", "mlflow-artifacts"):
        return (parts.netloc or server.netloc).rpartition("@")[2] == server.netloc.rpartition("@")[2]
    return scheme not in (*_LOCAL_SCHEMES, *_SCHEMES_WITH_A_HOST)


def require_own_location(uri: str, what: str, location: str) -> None:
    """Raises UserError for artifacts of an experiment, run or model in a place that the store may not choose."""
    if not is_own_location(uri, location):
        raise UserError(
            f"tracking.uri: {what} of {uri} keeps its artifacts in {location}, and a store does not choose where this "
            "machine writes; start the server with --serve-artifacts, or with a bucket as --default-artifact-root, and "
            "set tracking.experiment to a new name"
        )


def artifact_repository(uri: str, location: str) -> Any:
    """MLflow's repository for a location that `require_own_location` has let pass.

    The client's own calls ask the store for the location each time, which may say another one then.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

    return get_artifact_repository(add_databricks_profile_info_to_artifact_uri(location, uri), tracking_uri=uri)


def sqlite_file(uri: str) -> Path | None:
    """The absolute path of a `sqlite:///` URI's file; None for every other store and for one in memory."""
    prefix = "sqlite:///"
    file = uri.removeprefix(prefix).partition("?")[0]
    return Path(file).absolute() if uri.startswith(prefix) and file not in ("", ":memory:") else None


def _make_database(file: Path) -> None:
    """Makes the store of an SQLite file that is not there; it appears with all of its tables.

    A process that is killed while mlflow makes them leaves some, and mlflow cannot go on from there.
    """
    from mlflow import MlflowClient

    file.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(file.parent, os.O_RDONLY)
    scratch = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if not file.exists() or file.stat().st_size == 0:
            _check_database(f"sqlite:///{scratch}")
            MlflowClient(f"sqlite:///{scratch}", f"sqlite:///{scratch}").search_experiments(max_results=1)
            scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)
        os.close(directory)


def _check_database(uri: str) -> None:
    """Connect once to a database, because mlflow tries for minutes before it gives up.

    Raises UserError for an SQLite file with tables of which none is MLflow's, and for one in memory.
    """
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme not in ("sqlite", "postgresql", "mysql", "mssql"):
        return
    import sqlalchemy

    if scheme == "sqlite" and sqlalchemy.make_url(uri).database in (None, "", ":memory:"):
        raise UserError(f"tracking.uri: {uri} is in memory, so that no run would be kept; name a file: sqlite:///FILE")
    takes_timeout = sqlalchemy.make_url(uri).get_driver_name() in ("psycopg", "psycopg2", "pymysql", "mysqldb")
    options = {"connect_timeout": _OPEN_TIMEOUT_S} if takes_timeout else {}
    engine = sqlalchemy.create_engine(uri, connect_args=options, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("select 1"))
        tables = sqlalchemy.inspect(connection).get_table_names() if scheme == "sqlite" else []
    if tables and "experiments" not in tables:
        raise UserError(
            f"tracking.uri: {uri} is another program's database (its tables: {', '.join(tables[:3])}), in which MLflow "
            "would make its own; name a new file"
        )


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn a store that cannot be used into one line that names the key; credentials stay out of it."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"tracking.uri: {uri} needs the package {error.name}; install it or set tracking.uri: none"
        ) from error
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if is_out_of_space(error):
            file = sqlite_file(uri)
            raise storage_error(f"tracking.uri: {uri}", "written", error, str(file) if file else None) from error
        key = "MLFLOW_TRACKING_URI" if uri == os.environ.get("MLFLOW_TRACKING_URI") else "tracking.uri"
        raise UserError(
            f"{key}: cannot use {uri} ({_reason(error, uri)}); start the server, name another one, or "
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
    text = redacted((str(reason).strip() or type(reason).__name__).splitlines()[0], secrets_of=uri)
    return text if len(text) <= 200 else text[:199] + "…"


def short_timeouts() -> AbstractContextManager[None]:
    """One retry of ten seconds for a tracking server; mlflow's defaults wait for minutes, and a training with them."""
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_OPEN_TIMEOUT_S)}
    return default_variables(limits)
