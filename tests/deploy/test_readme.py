"""deploy/README.md names what is there, and its commands are understood."""

from __future__ import annotations

import re
import shlex

import pytest

from bertkd_ray.cli import make_parser
from bertkd_ray.config import load_config
from tests.deploy import ROOT

DEPLOY = ROOT / "deploy"
README = (DEPLOY / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^bertkd (.+?)(?:  #.*)?$", README, flags=re.MULTILINE)


def test_every_file_is_named():
    named = {(DEPLOY / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", README)}
    files = {path for path in DEPLOY.rglob("*") if path.is_file()}
    assert files == {path for path in named if path.is_relative_to(DEPLOY)} | {
        DEPLOY / "README.md",
        DEPLOY / "Dockerfile.dockerignore",
    }
    assert all(path.is_file() for path in named)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = make_parser().parse_args(shlex.split(command))
    assert load_config(options.config, options.overrides).storage == "s3://BUCKET/iwslt14"
    assert options.address == "http://127.0.0.1:8265"


def test_there_are_commands():
    assert len(COMMANDS) == 2
