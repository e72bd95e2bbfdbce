"""Servers on this machine's loopback interface for tests, each a process of its own that ends with its block."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Far more than a start takes: a server that ends is noticed at once.
_START_SECONDS = 600.0
_STOP_SECONDS = 30.0


class Nodes(NamedTuple):
    """A Ray cluster."""

    address: str
    """For RAY_ADDRESS."""
    job_server: str
    """For `bertkd submit --address`."""


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(**variables: str) -> dict[str, str]:
    """This process's variables and others; those that would lead a Ray or an S3 client elsewhere are left out."""
    strange = ("RAY_", "AWS_", "MLFLOW_")
    # `python` of a job's command is that of the tests.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    return {**inherited, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0", **variables}


@contextmanager
def ray_nodes(*cpus: int, env: Mapping[str, str]) -> Iterator[Nodes]:
    """A Ray cluster with a node for every number of CPUs."""
    command = [sys.executable, "-m", "tests.helpers.ray_nodes", *map(str, cpus)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                pytest.fail(f"the Ray cluster did not start:\n{log.read().decode()[-2000:]}")
            yield Nodes(**json.loads(line))
        finally:
            # Its own end: a signal would leave nodes behind.
            process.stdin.close()
            process.wait(_START_SECONDS)


@contextmanager
def s3_server(env: Mapping[str, str]) -> Iterator[str]:
    """An S3 server that holds its objects in memory; its URL."""
    pytest.importorskip("moto", reason="the S3 server is of this package")
    url = f"http://127.0.0.1:{(port := free_port())}"
    with _server([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], env, f"{url}/moto-api/"):
        yield url


@contextmanager
def mlflow_server(database: str, artifacts: str, env: Mapping[str, str], *, port: int | None = None) -> Iterator[str]:
    """A tracking server that hands artifacts on to `artifacts` itself; its URL."""
    url = f"http://127.0.0.1:{(port := port or free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--workers", "1"]
    command += ["--artifacts-destination", artifacts, "--host", "127.0.0.1", "--port", str(port)]
    # Nothing here gives it jobs, and the processes for them are half a dozen.
    with _server(command, {**env, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, f"{url}/health"):
        yield url


@contextmanager
def model_server(model: str, env: Mapping[str, str]) -> Iterator[str]:
    """What `mlflow models serve` starts in this environment for a model's URI; its URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model, "--env-manager", "local"]
    with _server([*command, "--host", "127.0.0.1", "--port", str(port)], env, f"{url}/ping"):
        yield url


@contextmanager
def postgresql() -> Iterator[str]:
    """A database server with an empty database, in a directory of its own; its SQLAlchemy URI."""
    pytest.importorskip("psycopg2", reason="MLflow speaks to PostgreSQL through this package")
    binaries = _postgresql_binaries()
    user = _unprivileged_user()
    directory, port = Path(tempfile.mkdtemp(prefix="pg-")), free_port()
    data = directory / "data"
    try:
        if user is not None:
            shutil.chown(directory, user)
        as_user = {"user": user, "cwd": directory, "stdout": subprocess.DEVNULL}
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "tester", "--auth", "trust", "--encoding", "UTF8", "--no-sync"],
            check=True,
            **as_user,
        )
        # Nothing of it outlives the test, so it need not outlive a crash.
        command = [binaries / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", directory, "-F"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **as_user)
        try:
            _wait_until(lambda: _accepts(port), process, "PostgreSQL")
            yield f"postgresql+psycopg2://tester@127.0.0.1:{port}/postgres"
        finally:
            _end(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _postgresql_binaries() -> Path:
    """Where `initdb` and `postgres` are; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    installed = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    places = [place for place in installed if (place / "initdb").exists() and (place / "postgres").exists()]
    if not places:
        pytest.skip("PostgreSQL's server is not installed (Debian's package postgresql)")
    return places[-1]


def _unprivileged_user() -> str | None:
    """Whom the server runs as where this process is root, which PostgreSQL refuses."""
    import pwd

    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = next((name for name in ("postgres", "nobody") if name in known), None)
    return user or pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


@contextmanager
def _server(command: list[str], env: Mapping[str, str], health: str) -> Iterator[None]:
    """A process that answers at a URL. What it says is shown when it does not."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env=dict(env), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            try:
                _wait_until(lambda: _answers(health), process, " ".join(command[1:4]))
            except AssertionError as error:
                log.seek(0)
                raise AssertionError(f"{error}:\n{log.read().decode()[-2000:]}") from None
            yield
        finally:
            # MLflow's own process leaves its workers behind.
            os.killpg(process.pid, signal.SIGTERM)
            _end(process)


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], name: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while not ready():
        assert process.poll() is None, f"{name} ended with {process.returncode}"
        assert time.monotonic() < until, f"{name} does not answer after {_START_SECONDS:.0f} s"
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _accepts(port: int) -> bool:
    import psycopg2

    try:
        psycopg2.connect(host="127.0.0.1", port=port, user="tester", dbname="postgres", connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process, and what it started ends with it."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
