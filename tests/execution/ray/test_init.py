"""Which cluster is meant, and that a session of this machine's own stays on it; no session is started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from bertkd_ray.cli import main
from bertkd_ray.config import load_config
from bertkd_ray.core.errors import UserError
from bertkd_ray.execution.ray import cluster, cluster_address, session
from bertkd_ray.execution.ray.session import RayRuntime
from tests.helpers.services import ROOT, free_port

SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
OVERRIDE = "RAY_OVERRIDE_JOB_RUNTIME_ENV"
"""Set by `start`."""
OWN_SESSION = [None, "", " ", "local", " local\n"]


@pytest.fixture(autouse=True)
def _no_session_yet(monkeypatch):
    """Whatever another module has started in this process."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.fixture(params=OWN_SESSION, ids=repr)
def no_address(request, monkeypatch) -> str | None:
    """What RAY_ADDRESS holds where no cluster is meant; None: it is unset."""
    # Set first, so that the values of before come back.
    for name in ("RAY_ADDRESS", SWITCH, OVERRIDE):
        monkeypatch.setenv(name, request.param or "")
    monkeypatch.delenv(SWITCH)
    if request.param is None:
        monkeypatch.delenv("RAY_ADDRESS")
    return request.param


def test_no_address_is_a_session_of_its_own_on_loopback(no_address, monkeypatch):
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **options: calls.append(options))
    RayRuntime(load_config(ROOT / "configs/demo.yaml")).start()
    assert [call["address"] for call in calls] == ["local"]
    assert ("RAY_ADDRESS" in os.environ, os.environ[SWITCH]) == (False, "0")


def test_every_command_is_told_so(no_address, capsys):
    assert main(["validate", "nowhere.yaml"]) == 2
    assert ("RAY_ADDRESS" in os.environ, os.environ[SWITCH]) == (False, "0")


def test_ray_itself_knows_of_no_cluster_then(no_address):
    """From Python too, where no command has set anything."""
    program = "import bertkd_ray.execution.ray.session, ray; print(ray._private.ray_constants.ENABLE_RAY_CLUSTER)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def _nobody() -> str:
    """An address where nothing listens."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where connections are taken, and nothing is said."""
    with socket.create_server(("", 0)) as server:  # Ray takes 127.0.0.1 for the address of this machine
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "address", [_nobody, lambda: f"ray://{_nobody()}", lambda: "head", lambda: "head.invalid:6379"]
)
def test_a_stale_address_is_one_line_within_seconds(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", named := address())
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        RayRuntime(load_config(ROOT / "configs/demo.yaml")).start()
    assert time.monotonic() - started < 30
    assert str(error.value).startswith(f"RAY_ADDRESS {named}: no Ray cluster can be used there (")
    assert "\n" not in str(error.value)


def test_a_listener_that_is_no_cluster_is_one_line_too(monkeypatch, silent):
    monkeypatch.setenv("RAY_ADDRESS", silent)
    monkeypatch.setattr(cluster, "_ANSWER_SECONDS", 1.0)
    with pytest.raises(UserError, match=r"no Ray cluster can be used there \(no answer within 1 seconds\); start it"):
        RayRuntime(load_config(ROOT / "configs/demo.yaml")).start()


def test_whatever_the_start_of_a_session_raises_is_one_line(monkeypatch):
    def fail(**options: Any) -> None:
        raise OSError("AF_UNIX path length cannot exceed 107 bytes:\n/a/long/TMPDIR")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(UserError, match=r"exceed 107 bytes: /a/long/TMPDIR\); set RAY_TMPDIR to a short path$"):
        RayRuntime(load_config(ROOT / "configs/demo.yaml")).start()


def test_a_session_after_an_earlier_import_of_ray_stays_on_this_machine(no_address, monkeypatch):
    """Ray was imported by the program before this package had set the variable."""
    monkeypatch.setattr(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr(ray, "init", lambda **options: None)
    RayRuntime(load_config(ROOT / "configs/demo.yaml")).start()
    assert ray._private.ray_constants.ENABLE_RAY_CLUSTER is False


@pytest.mark.parametrize("address", ["auto", "10.0.0.7:6379", "ray://head:10001"])
def test_an_address_is_attached_to(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    for name in (SWITCH, OVERRIDE):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv(SWITCH)
    calls: list[dict[str, Any]] = []
    for name in ("require_cluster", "require_shared_storage"):
        monkeypatch.setattr(session, name, lambda _: None)
    monkeypatch.setattr(ray, "init", lambda **options: calls.append(options))
    RayRuntime(load_config(ROOT / "configs/demo.yaml")).start()
    assert ["address" in call for call in calls] == [False]
    assert (cluster_address(), os.environ["RAY_ADDRESS"], SWITCH in os.environ) == (address, address, False)
