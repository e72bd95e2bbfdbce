"""Which cluster is meant, and that a session of this machine's own stays on it; no session is started."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import ray

from bertkd_ray.cli import main
from bertkd_ray.config import load_config
from bertkd_ray.execution.ray import cluster_address
from bertkd_ray.execution.ray.session import RayRuntime
from tests.helpers.services import ROOT

SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
OVERRIDE = "RAY_OVERRIDE_JOB_RUNTIME_ENV"
"""Set by `start`."""
OWN_SESSION = [None, "", " ", "local", " local\n"]


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


@pytest.mark.parametrize("address", ["auto", "10.0.0.7:6379", "ray://head:10001"])
def test_an_address_is_attached_to(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    for name in (SWITCH, OVERRIDE):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv(SWITCH)
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **options: calls.append(options))
    RayRuntime(load_config(ROOT / "configs/demo.yaml")).start()
    assert ["address" in call for call in calls] == [False]
    assert (cluster_address(), os.environ["RAY_ADDRESS"], SWITCH in os.environ) == (address, address, False)
