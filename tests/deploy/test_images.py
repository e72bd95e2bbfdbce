"""The Dockerfile and the Compose file, by their linters; nothing is built here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy import ROOT

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE = ROOT / "deploy" / "compose.yaml"


def linter(name: str) -> str:
    """A linter beside this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; it comes with the extra dev")
    return found


def lint(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_has_no_findings():
    lint(linter("hadolint"), str(DOCKERFILE))


def test_the_compose_file_is_one():
    lint(linter("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE))


def test_a_misspelt_key_would_be_found(tmp_path):
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text(encoding="utf-8").replace("healthcheck:", "heathcheck:"), encoding="utf-8")
    with pytest.raises(AssertionError, match="heathcheck"):
        lint(linter("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(wrong))


def test_what_the_image_copies_is_there_and_reaches_the_build():
    text = DOCKERFILE.read_text(encoding="utf-8")
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, flags=re.MULTILINE) for word in line.split()
    ]
    assert {"constraints.txt", "pyproject.toml", "README.md", "LICENSE", "bertkd_ray", "configs", "jobs"} == set(copied)
    admitted = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in admitted


def test_the_image_runs_the_tested_python_as_nobody_special():
    text = DOCKERFILE.read_text(encoding="utf-8")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert re.search(rf"^ARG PYTHON={re.escape(version)}\.\d+-slim", text, flags=re.MULTILINE)
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    (user,) = re.findall(r"^USER (\S+)$", next(stage for stage in stages if " AS system" in stage), flags=re.MULTILINE)
    assert user == "1000"
    assert all("USER" not in stage for stage in stages if " AS system" not in stage)
    assert stages[-1].startswith("system\n")


def test_the_services_are_those_of_the_readme_and_no_image_floats():
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    assert set(services) == {"head", "worker", "mlflow", "postgres", "objects"}
    for name, service in services.items():
        assert "build" in service or re.search(r":v?\d+\.\d+", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_no_password_is_written_down():
    """Every secret is a variable without a default, so that nothing starts with a known one."""
    text = COMPOSE.read_text(encoding="utf-8")
    secrets = re.findall(r"^\s+\w*(?:TOKEN|PASSWORD|SECRET\w*): (.+)$", text, flags=re.MULTILINE)
    assert len(secrets) == 4
    assert all(re.fullmatch(r"\$\{\w+:\?.+\}", secret) for secret in secrets)


def test_no_password_stands_on_a_command_line():
    """Whoever may list the processes of a machine reads their arguments."""
    for name, service in yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"].items():
        assert not re.search(r"PASSWORD|SECRET|TOKEN", str(service.get("command", ""))), name
