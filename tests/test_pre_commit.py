"""The hooks that run before a commit."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ".pre-commit-config.yaml"
HOOKS = [
    hook for repo in yaml.safe_load((ROOT / CONFIG).read_text(encoding="utf-8"))["repos"] for hook in repo["hooks"]
]


@pytest.fixture
def pre_commit(tmp_path):
    """`pre-commit ARGUMENTS` with this environment's tools and a cache of its own."""
    if importlib.util.find_spec("pre_commit") is None:
        pytest.skip("pre-commit is not installed; it comes with the extra dev")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PRE_COMMIT_HOME": str(tmp_path / "cache"),
    }

    def call(*arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pre_commit", *arguments],
            cwd=cwd,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_the_configuration_is_one(pre_commit):
    done = pre_commit("validate-config", CONFIG)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_hooks_are_the_tools_of_make_lint_and_download_nothing():
    assert {hook["language"] for hook in HOOKS} == {"system"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    linters = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    assert linters
    used = re.findall(r"\$\(BIN\)/(ruff check|ruff format|mypy)", linters[1])
    assert [re.match(r"ruff \w+|\w+", hook["entry"])[0] for hook in HOOKS] == used


@pytest.mark.slow
def test_they_find_what_is_wrong_and_mend_the_form(pre_commit, tmp_path):
    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    tree = tmp_path / "tree"
    for name in (
        CONFIG,
        "pyproject.toml",
        "bertkd_ray/core/libraries.py",
        "bertkd_ray/__init__.py",
        "tools/__init__.py",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=tree, check=True, capture_output=True)

    git("init", "--quiet")
    git("add", ".")
    done = pre_commit("run", "--all-files", cwd=tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^(.+?)\.+Passed$", done.stdout, flags=re.MULTILINE) == [hook["name"] for hook in HOOKS]
    (tree / "bertkd_ray" / "wrong.py").write_text("import os\ndef f(x): return x\n", encoding="utf-8")
    git("add", ".")
    done = pre_commit("run", "--all-files", cwd=tree)
    assert done.returncode == 1
    assert "`os` imported but unused" in done.stdout
    assert "Function is missing a type annotation" in done.stdout
    assert "def f(x):\n    return x\n" in (tree / "bertkd_ray" / "wrong.py").read_text(encoding="utf-8")
