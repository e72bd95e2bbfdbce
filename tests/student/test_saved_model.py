"""A model directory of a stranger's: what it names is not run, and nobody is asked whether it should be."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from bertkd_ray.cli import main
from bertkd_ray.config.sections import StudentConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.student.model import build_student
from bertkd_ray.student.saved_model import load_student, student_config

OWN_CODE = {
    "AutoConfig": "modeling.Config",
    "AutoModelForSeq2SeqLM": "modeling.Model",
    "AutoTokenizer": ["modeling.Tokenizer", None],
}
STRANGE = {
    "a class beside a known type": ("config.json", {"auto_map": OWN_CODE}, "names code of its own"),
    "a type of its own": ("config.json", {"auto_map": OWN_CODE, "model_type": "own"}, "is no student of this package"),
    "a tokenizer of its own": ("tokenizer_config.json", {"auto_map": OWN_CODE}, "names code of its own"),
    "a kernel of the hub": ("config.json", {"attn_implementation": "owner/kernel"}, "names code of its own"),
    "a kernel of others": (
        "config.json",
        {"attn_implementation": "flash_attention_2"},
        "names code of its own",
    ),
    "another type": ("config.json", {"model_type": "marian"}, "is no student of this package"),
}


@pytest.fixture
def directory(tmp_path, monkeypatch) -> Path:
    """A student that brings code, which leaves a mark; whoever asks on the terminal fails."""
    path = tmp_path / "model"
    student = build_student(
        StudentConfig(
            encoder_layers=1,
            decoder_layers=1,
            width=8,
            ffn=8,
            heads=2,
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
        ),
        vocab_size=16,
        max_positions=16,
        seed=1,
    )
    student.save_pretrained(path)
    (path / "modeling.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'mark')!r}).touch()\n")
    (tmp_path / "text").write_text("y\ny\n")

    def asked(*_: object) -> str:
        raise AssertionError("the terminal was asked")

    monkeypatch.setattr(builtins, "input", asked)
    return path


def change(path: Path, changes: dict[str, Any]) -> None:
    tree = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(tree | changes))


def test_a_student_is_read(directory):
    assert not load_student(directory).training
    assert student_config(directory)["max_position_embeddings"] == 16


def test_weights_that_are_no_numbers_are_refused(directory):
    weights = load_file(directory / "model.safetensors")
    weights["model.decoder.layers.0.fc1.bias"][3] = float("nan")
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    said = r"damaged, or of another model \(NaN or infinity in model\.decoder\.layers\.0\.fc1\.bias\); make"
    with pytest.raises(UserError, match=said):
        load_student(directory)


@pytest.mark.parametrize("with_settings", [False, True], ids=["a model directory", "an export"])
@pytest.mark.parametrize(("file", "changes", "message"), STRANGE.values(), ids=STRANGE)
def test_code_of_a_model_is_refused_in_one_line(directory, capsys, file, changes, message, with_settings):
    change(directory / file, changes)
    if with_settings:
        (directory / "translation.json").write_text('{"positions": 16}')
    assert main(["translate", str(directory), str(directory.parent / "text"), "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    with pytest.raises(UserError, match=message):
        load_student(directory)
    assert not (directory.parent / "mark").exists()


WRONG = {
    "text": ("config.json", b'"d_model": 8,', b'"d_model": "8",', "has d_model '8'; it must be a whole number above 0"),
    "null": ("config.json", b'"vocab_size": 16', b'"vocab_size": null', "lacks vocab_size; make the export again"),
    "heads": (
        "config.json",
        b'"encoder_attention_heads": 2',
        b'"encoder_attention_heads": 3',
        "must divide its d_model",
    ),
    "token": ("config.json", b'"eos_token_id": 3', b'"eos_token_id": 99', "has eos_token_id 99; it must be below its"),
    "truth": (
        "config.json",
        b'"scale_embedding": true',
        b'"scale_embedding": 1',
        "has scale_embedding 1; it must be a",
    ),
    "layers": ("config.json", b'"decoder_layers": 1', b'"decoder_layers": 2', "is missing or left over"),
    "width": ("config.json", b'"d_model": 8', b'"d_model": 16', "damaged, or of another model"),
    "extra": ("config.json", b'"d_model"', b'"id2label": 7, "d_model"', "damaged, or of another model"),
    "list": ("generation_config.json", b"{", b"[{", "generation_config.json: not JSON; make the export again"),
    "weights": ("model.safetensors", b"{", b"[", "damaged, or of another model"),
    "no beam": ("translation.json", b"16", b'16, "beam": 100000000000', "translation.json: beam: Input should be less"),
    "no number": ("translation.json", b"16", b"[]", "translation.json: positions: Input should be a valid integer"),
    "tokenizer": ("tokenizer.json", b"{}", b"[]", "tokenizer.json: damaged, or of another model"),
}


@pytest.mark.parametrize(("file", "old", "new", "message"), WRONG.values(), ids=WRONG)
def test_values_of_another_kind_are_one_line(directory, capsys, file, old, new, message):
    (directory / "translation.json").write_text('{"positions": 16}')
    (directory / "tokenizer.json").write_text("{}")
    data = (directory / file).read_bytes()
    assert old in data
    (directory / file).write_bytes(data.replace(old, new, 1))
    assert main(["translate", str(directory), str(directory.parent / "text"), "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_weights_of_another_form_are_one_line(directory, capsys):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    assert main(["translate", str(directory), str(directory.parent / "text"), "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{directory}: has no model.safetensors; no other form of weights is read, give another" in err
