"""`bertkd completion SHELL`: what a shell offers where a user presses Tab."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bertkd_ray.cli import main, make_parser
from bertkd_ray.cli.completion import SHELLS, completion_script

# As readline does it: the words of the line, and the function that `complete` has for the first of them.
PRESS_TAB = r"""
source "$1"; shift
function=$(complete -p bertkd | sed 's/.* -F \([^ ]*\) .*/\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
"$function"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bash") / "bertkd.bash"
    path.write_text(completion_script(make_parser(), "bash"), encoding="utf-8")
    return path


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "configs").mkdir()
    for name in ("mine.yaml", "misc.txt", "configs/demo.yaml"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("bertkd ru", {"run"}),
        ("bertkd re", {"report"}),
        ("bertkd --v", {"--version"}),
        ("bertkd distill --a", {"--arm"}),
        ("bertkd validate --a", {"--artifacts"}),
        ("bertkd run --", {"--help", "--json"}),
        ("bertkd export --to c", {"ctranslate2"}),
        ("bertkd submit c.yaml --job st", {"study"}),
        ("bertkd completion z", {"zsh"}),
        ("bertkd run mi", {"mine.yaml", "misc.txt"}),
        ("bertkd run mine", {"mine.yaml"}),
        ("bertkd study configs/de", {"configs/demo.yaml"}),
        ("bertkd distill --arm control mine", {"mine.yaml"}),
        ("bertkd validate --artifacts m", set()),
        ("bertkd validate --artifacts co", {"configs"}),
    ],
)
def test_in_bash(script, project, line, offered):
    done = subprocess.run(
        ["bash", "--norc", "-c", PRESS_TAB, "bash", script, *line.split(" ")],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_reads_its_script(capsys, tmp_path, shell):
    assert main(["completion", shell]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(command in out for command in ("run", "validate", "completion"))
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "script").write_text(out, encoding="utf-8")
    done = subprocess.run([shell, "-n", "script"], cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_zsh_offers_a_whole_sentence_of_every_command():
    # The first line of a description is all that it has of it.
    script = completion_script(make_parser(), "zsh")
    assert re.search(r"validate:'Check everything [^'\n]*, text, line counts\.'\n", script)
