"""`bertkd export` as a user meets it."""

from __future__ import annotations

import json

import pytest

from bertkd_ray.student.distill import MODEL
from tests.helpers.failing_storage import FaultyStorage
from tests.helpers.local_project import QUICK


def test_an_export_translates_as_its_student(bertkd_bytes, student, text, tmp_path):
    assert bertkd_bytes("export", student.uri, "--to", "huggingface", "--output", tmp_path / "hf").code == 0
    assert bertkd_bytes("translate", tmp_path / "hf", text).out == bertkd_bytes("translate", student.uri, text).out


def test_an_export_in_an_object_store_translates_as_its_student(bertkd_bytes, student, text, tmp_path):
    with FaultyStorage():
        uri = f"faulty://KEY:secret@{tmp_path}/bucket/hf?token=secret"
        code, out, err = bertkd_bytes("export", student.uri, "--to", "huggingface", "--output", uri, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["path"] == f"faulty://***@{tmp_path}/bucket/hf?token=***"
        assert bertkd_bytes("translate", uri, text).out == bertkd_bytes("translate", student.uri, text).out
        code, _, err = bertkd_bytes("export", student.uri, "--to", "huggingface", "--output", uri)
        assert (code, err.count("\n"), "secret" in err) == (2, 1, False)
        assert "/bucket/hf?token=***: exists already; give another, or --force, which removes what is there" in err


def test_exporting_the_arm_of_a_configuration(bertkd_bytes, project, student, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = project.directory / "small.yaml"
    code, out, _ = bertkd_bytes("export", config, *QUICK, "--to", "huggingface", "--license", "mit")
    assert (code, out) == (
        0,
        f"Export:    small-distilled-huggingface ({out.split('(')[1].split(')')[0]})\n"
        "Translate: bertkd translate small-distilled-huggingface FILE\n",
    )
    card = (tmp_path / "small-distilled-huggingface" / "README.md").read_text()
    assert "license: mit\n" in card
    assert f"`{student.directory}`" in card
    options = "translate.beam=3", "--to", "huggingface", "--arm", "control", "--json"
    code, out, _ = bertkd_bytes("export", config, *QUICK, *options)
    exported = json.loads(out)
    assert (exported["path"], exported["to"], exported["measured"]) == (
        "small-control-huggingface",
        "huggingface",
        None,
    )
    assert project.control().directory in (tmp_path / exported["path"] / "README.md").read_text()
    assert json.loads((tmp_path / exported["path"] / "translation.json").read_text())["beam"] == 3


def test_exporting_to_ctranslate2_is_measured(bertkd_bytes, student, tmp_path):
    pytest.importorskip("ctranslate2", reason="the export needs it: pip install bertkd-ray[export]")
    output = tmp_path / "ct2"
    code, out, _ = bertkd_bytes(
        "export", f"{student.uri}/{MODEL}", "--to", "ctranslate2", "--sentences", "3", "--output", output
    )
    assert code == 0
    assert out.startswith(f"Export:    {output} (")
    assert "\n3 sentences of the test split, beam 5, GNMT length penalty 0.6, " in out
    for row in ("PyTorch, float32 ", "CTranslate2, float32 ", "CTranslate2, float32, its own length penalty "):
        assert f"\n{row}" in out
    code, out, _ = bertkd_bytes(
        "export", student.uri, "--to", "ctranslate2", "--sentences", "0", "--output", output, "--force"
    )
    assert (code, out.count("\n")) == (0, 2)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no form": (["export", "MODEL"], "the following arguments are required: --to; see bertkd export --help"),
    "unknown form": (["export", "MODEL", "--to", "onnx"], "invalid choice: 'onnx'"),
    "no student": (["export", "nowhere", "--to", "huggingface"], "nowhere: no finished student is here"),
    "unfinished": (
        ["export", "CONFIG", "student.steps=77", "--to", "huggingface"],
        ".yaml student.steps=77 --arm distilled",
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


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(mistaken, arguments, message):
    assert message in mistaken(arguments)
