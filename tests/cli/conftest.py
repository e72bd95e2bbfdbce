"""What `bertkd export` and `bertkd translate MODEL` are tried with: a finished student, and a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.cli import main
from tests.helpers.local_project import Project

LINES = "Der Hund schläft.\n\n  \nDie Katze sieht den Hund.\n"


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Bertkd = Callable[..., Answer]


@pytest.fixture
def bertkd_bytes(capfdbinary) -> Bertkd:
    """`bertkd ARGUMENTS` in this process, where stdout is written as bytes."""

    def call(*arguments: str | Path) -> Answer:
        try:
            code: Any = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = exit_.code
        out, err = capfdbinary.readouterr()
        return Answer(code, out.decode(), err.decode())

    return call


@pytest.fixture(scope="package")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="package")
def student(project) -> Artifact:
    """That of the arm `distilled`; both arms are finished."""
    project.control()
    return project.distilled()


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "in.de"
    path.write_text(LINES, encoding="utf-8")
    return path


@pytest.fixture
def mistaken(bertkd_bytes, project, student, text, tmp_path, monkeypatch) -> Callable[[list[str]], str]:
    """What a command says of a mistake: one line on stderr, exit code 2, and nothing made."""

    def call(arguments: list[str]) -> str:
        monkeypatch.chdir(tmp_path)
        named = {"MODEL": student.uri, "CONFIG": str(project.directory / "small.yaml"), "TEXT": str(text)}
        code, out, err = bertkd_bytes(*(named.get(argument, argument) for argument in arguments))
        assert (code, out) == (2, "")
        assert err.startswith("bertkd: error: ")
        assert err.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["in.de"]
        return err

    return call
