"""Fixtures that every room's tests may use."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

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


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray session for all tests; two logical CPUs, as the smallest machine has."""
    import logging

    import ray

    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
