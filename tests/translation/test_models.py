"""What `bertkd translate` can be given, and what it says of anything else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bertkd_ray.config import Config
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.moses import to_raw, unescape_moses
from bertkd_ray.corpus.tokenizer import decode, encode, load_bert_ids, load_tokenizer
from bertkd_ray.student.distill import MODEL
from bertkd_ray.teacher.decoding import translate_ids
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import load_teacher
from bertkd_ray.translation import models
from bertkd_ray.translation.engines import CTranslate2Engine, TorchEngine
from bertkd_ray.translation.export import export_student
from bertkd_ray.translation.lines import LineSettings
from bertkd_ray.translation.models import SETTINGS, open_translator, settings_of, translate
from tests.helpers.local_project import Project

LINES = ["Der Hund schläft.", "", "Die Katze sieht den Hund."]


@pytest.fixture(scope="module")
def exports(distilled, tmp_path_factory) -> dict[str, Path]:
    pytest.importorskip("ctranslate2", reason="the export needs it: pip install bertkd-ray[export]")
    directory = tmp_path_factory.mktemp("exports")
    found = {form: directory / form for form in ("huggingface", "ctranslate2")}
    export_student(distilled.student, found["huggingface"], to="huggingface")
    export_student(distilled.student, found["ctranslate2"], to="ctranslate2", sentences=0)
    return found


def test_settings_come_from_the_lineage(distilled, capsys):
    settings = settings_of(distilled)
    assert settings == LineSettings(src_lang="de", tgt_lang="en", max_tokens=100, positions=512, precision="float32")
    assert capsys.readouterr().err == ""
    assert settings_of(replace(distilled, corpus=None)) == LineSettings(positions=512, precision="float32")
    assert "its corpus is not beside it; taken for a model of raw text" in capsys.readouterr().err


@pytest.mark.slow
def test_the_search_is_that_of_the_newest_translations(translated, capsys):
    assert (settings_of(translated).beam, settings_of(translated).length_penalty) == (4, 0.6)
    (newest,) = translated.translations
    older = replace(newest, config={**newest.config, "translate": {**newest.config["translate"], "beam": 2}})
    assert capsys.readouterr().err == ""
    assert settings_of(replace(translated, translations=(older, newest))).beam == 4
    assert "of its 2 translations the newest's search is taken: beam 4, length_penalty 0.6" in capsys.readouterr().err


def test_search_and_precision_are_those_of_a_configuration(known, distilled):
    changes = {"translate": {"beam": 3, "length_penalty": 2.0}, "precision": "bf16"}
    config = Config.model_validate({**known.config.model_dump(exclude_unset=True), **changes})
    settings = settings_of(distilled, config)
    assert (settings.beam, settings.length_penalty, settings.precision) == (3, 2.0, "bf16")


def test_a_student_computes_as_it_was_trained_and_scored(distilled):
    student = replace(distilled.student, config={**distilled.student.config, "precision": "bf16"})
    assert settings_of(replace(distilled, student=student)).precision == "bf16"


def test_everything_that_holds_the_student_translates_alike(distilled, exports, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(Path(distilled.student.uri, MODEL), bare)
    uri = f"file://{distilled.student.uri}"
    places = [distilled.student.uri, f"{distilled.student.uri}/model", uri, str(bare), *map(str, exports.values())]
    found = [open_translator(place, beam=1, device="cpu").translate(LINES) for place in places]
    assert [lines[1] for lines in found] == [""] * len(places)
    # The export computes in float32 what the others compute in bfloat16 where the machine multiplies it.
    assert found[:-1] == [found[0]] * (len(places) - 1)


def test_translating_from_python(distilled, exports):
    lines = translate(distilled.student, LINES, beam=1, device="cpu")
    assert lines == open_translator(distilled.student.uri, beam=1, device="cpu").translate(LINES)
    assert translate(exports["huggingface"], LINES, beam=1, device="cpu") == lines
    assert translate(distilled.student, []) == []


def test_an_export_carries_its_settings(distilled, exports):
    expected = settings_of(distilled)
    for directory in exports.values():
        assert LineSettings(**json.loads((directory / SETTINGS).read_text())) == expected


def test_the_engine_is_that_of_the_directory(distilled, exports):
    assert isinstance(open_translator(distilled.student.uri, device="cpu")._engine, TorchEngine)
    assert isinstance(open_translator(str(exports["huggingface"]), device="cpu")._engine, TorchEngine)
    assert isinstance(open_translator(str(exports["ctranslate2"]), device="cpu")._engine, CTranslate2Engine)


def test_a_beam_of_ones_own(exports):
    for directory in exports.values():
        assert open_translator(str(directory), device="cpu")._engine._settings.beam == 5
        assert open_translator(str(directory), beam=2, device="cpu")._engine._settings.beam == 2
    with pytest.raises(UserError, match=r"^--beam: beam: .* greater than or equal to 1 \(got 0\)$"):
        open_translator(str(exports["huggingface"]), beam=0)


def test_what_is_no_model_is_refused_in_one_line(distilled, exports, tmp_path):
    def said(place: Path | str) -> str:
        with pytest.raises(UserError) as refused:
            open_translator(str(place))
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert "there is no such directory; give a student artifact" in said(tmp_path / "nowhere")
    assert "is no student of this package" in said(tmp_path)
    assert "is a corpus, not a student" in said(distilled.corpus.uri)
    (tmp_path / "config.json").write_text('{"model_type": "marian"}')
    assert "is no student of this package" in said(tmp_path)
    (tmp_path / "config.json").write_text("not json")
    assert "config.json: not JSON" in said(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert "config.json: not a JSON object" in said(tmp_path)
    shutil.copytree(exports["huggingface"], tmp_path / "copy")
    (tmp_path / "copy" / SETTINGS).write_text('{"beem": 3}')
    assert "unknown key beem; did you mean beam?" in said(tmp_path / "copy")
    shutil.copytree(exports["huggingface"], tmp_path / "torn")
    (tmp_path / "torn" / "tokenizer.json").unlink()
    assert "tokenizer.json: no such file" in said(tmp_path / "torn")


@pytest.fixture(scope="module")
def forward(known) -> Project:
    """A left-to-right teacher that has learned a few words, and its corpus."""
    steps = ["teacher.steps=240", "teacher.eval_every=240", "teacher.peak_lr=3e-3"]
    project = known.variant(known.directory / "forward", "teacher.direction=left_to_right", *steps)
    project.teacher()
    return project


def test_a_left_to_right_teacher_translates(forward):
    teacher, corpus = forward.teacher(), forward.corpus()
    model, tokenizer = load_teacher(teacher.path(MODEL)), load_tokenizer(corpus.path("tokenizer"))
    specials = BertSpecials(**json.loads(Path(teacher.path(MODEL), "specials.json").read_text()))
    src = encode(tokenizer, [LINES[0], LINES[2]])
    found = translate_ids(model, load_bert_ids(corpus.path("tokenizer")), specials, src, beam=3, alpha=0.6)
    first, last = decode(tokenizer, [best.ids for best, *_ in found])
    assert first
    assert last
    expected = [first, "", last]
    assert open_translator(teacher.uri, beam=3, device="cpu").translate(LINES) == expected
    assert translate(teacher, LINES, beam=3, device="cpu") == expected
    assert translate(f"{teacher.uri}/model", LINES, beam=3, device="cpu") == expected
    long = open_translator(teacher.uri, beam=1, device="cpu")
    assert long._longest == 100  # corpus.max_side_tokens
    assert len(long.translate([" ".join(["Der Hund schläft."] * 200)])) == 1


def test_a_teacher_of_moses_text_takes_raw_lines_and_tokens(forward, tmp_path):
    Project(tmp_path)
    steps = ["teacher.steps=240", "teacher.eval_every=240", "teacher.peak_lr=3e-3"]
    teacher = Project(tmp_path, "corpus.text=moses", "teacher.direction=left_to_right", *steps).teacher()
    (raw,) = translate(teacher, ["Der Hund, ja, schläft."], beam=1, device="cpu")
    (tokens,) = translate(teacher, ["Der Hund , ja , schläft ."], beam=1, device="cpu", tokenised=True)
    assert raw
    assert to_raw([unescape_moses(tokens)], "moses", "en") == [raw]
    with pytest.raises(UserError, match="tokenised: this model was trained on raw text"):
        open_translator(forward.teacher().uri, device="cpu", tokenised=True)


def test_teachers_that_cannot_translate_say_what_to_do(forward, distilled, tmp_path, monkeypatch):
    def said(place: Path | str) -> str:
        with pytest.raises(UserError) as refused:
            open_translator(str(place), device="cpu")
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert distilled.teacher is not None
    assert "a bidirectional teacher cannot translate; give a student of it, or run finetune with " in said(
        distilled.teacher.uri
    )
    alone = tmp_path / forward.teacher().directory
    shutil.copytree(forward.teacher().uri, alone)
    assert f"its corpus {forward.corpus().directory}, which has the tokenizer, is not beside it" in said(alone)
    shutil.copytree(forward.corpus().uri, tmp_path / forward.corpus().directory)
    assert translate(alone, LINES, beam=1, device="cpu")[1] == ""
    with monkeypatch.context() as patched:
        patched.setattr("bertkd_ray.teacher.model.LEFT_TO_RIGHT_LAYOUT", "another")
        assert "reads text from left to right as earlier versions did; run finetune again" in said(alone)
    config = json.loads((alone / MODEL / "config.json").read_text())
    del config["layout"]
    (alone / MODEL / "config.json").write_text(json.dumps(config))
    assert "run finetune" in said(alone)


@pytest.mark.parametrize(
    ("name", "gpus", "device"),
    [("cpu", 0, "cpu"), ("cuda", 1, "cuda"), ("cuda:1", 2, "cuda:1"), ("cpu", 2, "cpu")],
)
def test_devices(name, gpus, device):
    assert models._device(name, gpus) == torch.device(device)


@pytest.mark.parametrize(
    ("name", "gpus", "said"),
    [
        ("tpu", 1, "give auto, cpu, cuda or cuda:N"),
        ("cuda:x", 1, "give auto, cpu, cuda or cuda:N"),
        ("cuda", 0, "this machine has 0 GPUs"),
        ("cuda:2", 2, "this machine has 2 GPUs"),
    ],
)
def test_devices_that_are_not_there(name, gpus, said):
    with pytest.raises(UserError, match=f"--device {name}: {said}"):
        models._device(name, gpus)
