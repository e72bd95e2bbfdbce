"""`bertkd export` and `bertkd translate MODEL` as a user meets them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.cli import main
from bertkd_ray.student.distill import MODEL
from tests.helpers.failing_storage import FaultyStorage
from tests.helpers.local_project import QUICK, Project

LINES = "Der Hund schläft.\n\n  \nDie Katze sieht den Hund.\n"


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Bertkd = Callable[..., Answer]


@pytest.fixture
def bertkd(capfdbinary) -> Bertkd:
    """`bertkd ARGUMENTS` in this process; stdout is written as bytes."""

    def call(*arguments: str | Path) -> Answer:
        try:
            code: Any = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = exit_.code
        out, err = capfdbinary.readouterr()
        return Answer(code, out.decode(), err.decode())

    return call


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def student(project) -> Artifact:
    """That of the arm `distilled`; both arms are finished."""
    project.control()
    return project.distilled()


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "in.de"
    path.write_text(LINES, encoding="utf-8")
    return path


def process(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """`bertkd ARGUMENTS` in a process of its own."""
    words = [sys.executable, "-m", "bertkd_ray", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options)


def test_a_line_for_a_line(bertkd, student, text):
    code, out, err = bertkd("translate", student.uri, text, "--beam", "2", "--device", "cpu")
    assert (code, err) == (0, "")
    lines = out.split("\n")
    assert len(lines) == 5
    assert (lines[1], lines[2], lines[4]) == ("", "", "")


def test_the_last_line_needs_no_end_and_files_may_be_compressed(bertkd, student, text, tmp_path):
    packed = tmp_path / "in.de.gz"
    packed.write_bytes(gzip.compress(LINES.rstrip("\n").encode()))
    assert bertkd("translate", student.uri, packed) == bertkd("translate", student.uri, text)


def test_an_export_translates_as_its_student(bertkd, student, text, tmp_path):
    assert bertkd("export", student.uri, "--to", "huggingface", "--output", tmp_path / "hf").code == 0
    assert bertkd("translate", tmp_path / "hf", text).out == bertkd("translate", student.uri, text).out


def test_an_export_in_an_object_store_translates_as_its_student(bertkd, student, text, tmp_path):
    with FaultyStorage():
        uri = f"faulty://KEY:secret@{tmp_path}/bucket/hf?token=secret"
        code, out, err = bertkd("export", student.uri, "--to", "huggingface", "--output", uri, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["path"] == f"faulty://***@{tmp_path}/bucket/hf?token=***"
        assert bertkd("translate", uri, text).out == bertkd("translate", student.uri, text).out
        code, _, err = bertkd("export", student.uri, "--to", "huggingface", "--output", uri)
        assert (code, err.count("\n"), "secret" in err) == (2, 1, False)
        assert "/bucket/hf?token=***: exists already; give another, or --force to replace it" in err


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


def test_text_that_is_not_utf8(bertkd, student, tmp_path):
    path = tmp_path / "in.de"
    path.write_bytes(b"a\nb\xff\n")
    assert bertkd("translate", student.uri, path) == (
        2,
        "",
        f"bertkd: error: {path}:2: not UTF-8 (byte 1 of the line, invalid start byte); convert it to UTF-8\n",
    )


def test_exporting_the_arm_of_a_configuration(bertkd, project, student, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = project.directory / "small.yaml"
    code, out, _ = bertkd("export", config, *QUICK, "--to", "huggingface", "--license", "mit")
    assert (code, out) == (
        0,
        f"Export:    small-distilled-huggingface ({out.split('(')[1].split(')')[0]})\n"
        "Translate: bertkd translate small-distilled-huggingface FILE\n",
    )
    card = (tmp_path / "small-distilled-huggingface" / "README.md").read_text()
    assert "license: mit\n" in card
    assert f"`{student.directory}`" in card
    code, out, _ = bertkd("export", config, *QUICK, "--to", "huggingface", "--arm", "control", "--json")
    told = json.loads(out)
    assert (told["path"], told["to"], told["measured"]) == ("small-control-huggingface", "huggingface", None)
    assert project.control().directory in (tmp_path / told["path"] / "README.md").read_text()


def test_exporting_to_ctranslate2_is_measured(bertkd, student, tmp_path):
    pytest.importorskip("ctranslate2", reason="the export needs it: pip install bertkd-ray[export]")
    output = tmp_path / "ct2"
    code, out, _ = bertkd(
        "export", f"{student.uri}/{MODEL}", "--to", "ctranslate2", "--sentences", "3", "--output", output
    )
    assert code == 0
    assert out.startswith(f"Export:    {output} (")
    assert "\n3 sentences of the test split, beam 5, GNMT length penalty 0.6, " in out
    for row in ("PyTorch, float32 ", "CTranslate2, float32 ", "CTranslate2, float32, its own length penalty "):
        assert f"\n{row}" in out
    code, out, _ = bertkd(
        "export", student.uri, "--to", "ctranslate2", "--sentences", "0", "--output", output, "--force"
    )
    assert (code, out.count("\n")) == (0, 2)


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
    "tokens of a raw model": (
        ["translate", "MODEL", "TEXT", "--tokenised"],
        "--tokenised: this model was trained on raw text, not on Moses tokens; leave it out",
    ),
    "device": (["translate", "MODEL", "TEXT", "--device", "tpu"], "--device tpu: give auto, cpu, cuda or cuda:N"),
    "no form": (["export", "MODEL"], "the following arguments are required: --to; see bertkd export --help"),
    "unknown form": (["export", "MODEL", "--to", "onnx"], "invalid choice: 'onnx'"),
    "no student": (["export", "nowhere", "--to", "huggingface"], "nowhere: no finished student is here"),
    "unfinished": (
        ["export", "CONFIG", "student.steps=77", "--to", "huggingface"],
        "the student of arm distilled is not finished; run bertkd distill",
    ),
    "unknown arm": (
        ["export", "CONFIG", "--arm", "best", "--to", "huggingface"],
        "--arm best: the configuration has the arms distilled, control",
    ),
    "arm of a student": (
        ["export", "MODEL", "--arm", "x", "--to", "huggingface"],
        "--arm x: a finished student is what",
    ),
    "key of a student": (
        ["export", "MODEL", "seed=2", "--to", "huggingface"],
        "seed=2: a finished student is what it is",
    ),
    "quantised transformers": (
        ["export", "MODEL", "--to", "huggingface", "--quantization", "int8"],
        "--quantization belongs to --to ctranslate2; remove it",
    ),
    "measured transformers": (
        ["export", "MODEL", "--to", "huggingface", "--sentences", "5"],
        "--sentences belongs to --to ctranslate2; remove it",
    ),
    "unknown numbers": (
        ["export", "MODEL", "--to", "ctranslate2", "--quantization", "int4"],
        "--quantization int4: give one of float32, int8, ",
    ),
    "fewer than none": (
        ["export", "MODEL", "--to", "ctranslate2", "--sentences", "-1"],
        "--sentences -1: give a number",
    ),
    "remote output": (
        ["export", "MODEL", "--to", "huggingface", "--output", "nosuch://bucket/x"],
        "storage: nosuch://bucket/x cannot be opened",
    ),
}


@pytest.mark.parametrize(("arguments", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(
    bertkd, project, student, text, tmp_path, monkeypatch, arguments, said
):
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": student.uri, "CONFIG": str(project.directory / "small.yaml"), "TEXT": str(text)}
    code, out, err = bertkd(*(places.get(argument, argument) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("bertkd: error: ")
    assert said in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.de"]
