"""Fixtures that every room's tests may use."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny models are many times slower when idle threads of a team wait for each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session", autouse=True)
def make_database(tmp_path_factory) -> Iterator[Callable[[Path], None]]:
    """How MLflow makes a database, which takes a second: each new one of this process is a copy of the first."""
    from bertkd_ray.tracking import store

    make, template = store._make_database, tmp_path_factory.mktemp("mlflow") / "mlflow.db"

    def copy(file: Path) -> None:
        if file.exists():
            make(file)
            return
        make(template)
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_name(f".{file.name}.copy")
        shutil.copyfile(template, scratch)
        # Where another process has made it in between, that one stays.
        with contextlib.suppress(FileExistsError):
            os.link(scratch, file)
        scratch.unlink()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_make_database", copy)
        yield make


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray session for all tests; two logical CPUs, as the smallest machine has."""
    import logging

    import ray

    # As the program starts one: a dashboard is a dozen processes more.
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
