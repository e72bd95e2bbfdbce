"""`bertkd translate MODEL` as a user meets it."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import LINES


def process(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """`bertkd ARGUMENTS` in a process of its own."""
    words = [sys.executable, "-m", "bertkd_ray", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options)


def test_a_line_for_a_line(bertkd_bytes, student, text):
    code, out, err = bertkd_bytes("translate", student.uri, text, "--beam", "2", "--device", "cpu")
    assert (code, err) == (0, "")
    lines = out.split("\n")
    assert len(lines) == 5
    assert (lines[1], lines[2], lines[4]) == ("", "", "")


def test_the_last_line_needs_no_end_and_files_may_be_compressed(bertkd_bytes, student, text, tmp_path):
    packed = tmp_path / "in.de.gz"
    packed.write_bytes(gzip.compress(LINES.rstrip("\n").encode()))
    assert bertkd_bytes("translate", student.uri, packed) == bertkd_bytes("translate", student.uri, text)


@pytest.mark.slow
def test_a_slow_writer_has_each_line_back_before_the_next(student):
    with process("translate", student.uri, "-", "--beam", "1", stdin=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for line in ("Der Hund schläft.\n", "\n", "Die Katze sieht den Hund.\n"):
            running.stdin.write(line.encode())
            running.stdin.flush()
            # Would wait for ever if the translation waited for more input.
            assert running.stdout.readline().endswith(b"\n")
        running.stdin.close()
        assert running.stdout.read() == b""
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert running.returncode == 0


@pytest.mark.slow
def test_a_reader_that_leaves_ends_it_quietly(student, tmp_path):
    many = tmp_path / "many.de"
    many.write_text("Der Hund schläft.\n" * 600, encoding="utf-8")
    with process("translate", student.uri, many, "--beam", "1") as running:
        assert running.stdout is not None
        assert running.stdout.readline()
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert running.returncode == 0


def test_text_that_is_not_utf8(bertkd_bytes, student, tmp_path):
    path = tmp_path / "in.de"
    path.write_bytes(b"a\nb\xff\n")
    assert bertkd_bytes("translate", student.uri, path) == (
        2,
        "",
        f"bertkd: error: {path}:2: not UTF-8 (byte 1 of the line, invalid start byte); convert it to UTF-8\n",
    )


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no such model": (["translate", "nowhere", "TEXT"], "nowhere: there is no such directory; give a student artifact"),
    "no such text": (["translate", "MODEL", "nowhere.de"], "nowhere.de: no such file"),
    "two texts": (["translate", "MODEL", "a", "b"], "b: bertkd translate MODEL takes one FILE, or stdin"),
    "json": (["translate", "MODEL", "--json"], "--arm and --json belong to a CONFIG.yaml"),
    "arm": (["translate", "MODEL", "--arm", "x"], "--arm and --json belong to a CONFIG.yaml"),
    "beam of a configuration": (["translate", "CONFIG", "--beam", "3"], "set translate.beam=N or device=cpu instead"),
    "tokens of a configuration": (
        ["translate", "CONFIG", "--tokenised"],
        "--tokenised belongs to a MODEL; corpus.text",
    ),
    "text of a configuration": (
        ["translate", "CONFIG", "TEXT"],
        "in.de: a CONFIG.yaml's test set is translated; for a file name a student or export",
    ),
    "tokens of a raw model": (
        ["translate", "MODEL", "TEXT", "--tokenised"],
        "--tokenised: this model was trained on raw text, not on Moses tokens; leave it out",
    ),
    "device": (["translate", "MODEL", "TEXT", "--device", "tpu"], "--device tpu: give auto, cpu, cuda or cuda:N"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(mistaken, arguments, message):
    assert message in mistaken(arguments)
