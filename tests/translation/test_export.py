"""The directories that a user leaves with: what is in them, how they come to be, and that they work alone."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.core.errors import StorageError, UserError
from bertkd_ray.corpus.tokenizer import load_tokenizer
from bertkd_ray.translation import export as exports
from bertkd_ray.translation.export import QUANTIZATIONS, Exported, default_output, export_student
from bertkd_ray.translation.lines import LineSettings
from tests.helpers.failing_storage import FaultyStorage
from tests.helpers.killable_processes import is_killed
from tests.helpers.local_project import Project
from tests.translation.conftest import KNOWN
from tests.translation.test_measure import MEASUREMENT

HUGGINGFACE = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "translation.json",
}
CTRANSLATE2 = {
    "README.md",
    "config.json",
    "model.bin",
    "shared_vocabulary.json",
    "tokenizer.json",
    "translation.json",
}


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def to_huggingface(lineage: Any, output: Path | str, *, force: bool = False) -> Exported:
    return export_student(lineage.student, output, to="huggingface", force=force)


def to_ctranslate2(lineage: Any, output: Path, quantization: str = "float32") -> Exported:
    pytest.importorskip("ctranslate2", reason="the export needs it: pip install bertkd-ray[export]")
    return export_student(lineage.student, output, to="ctranslate2", quantization=quantization, sentences=0)


def json_of(*parts: str | Path) -> dict[str, Any]:
    return dict(json.loads(Path(*parts).read_text(encoding="utf-8")))


def test_what_a_huggingface_export_holds(distilled, tmp_path):
    exported = to_huggingface(distilled, tmp_path / "deep" / "er")
    assert exported.path == tmp_path / "deep" / "er"
    assert names(exported.path) == HUGGINGFACE
    assert exported.bytes == sum(path.stat().st_size for path in exported.path.iterdir())
    assert json_of(exported.path, "tokenizer_config.json")["model_max_length"] == 101
    generation = json_of(exported.path, "generation_config.json")
    assert (generation["num_beams"], generation["length_penalty"], generation["max_length"]) == (5, 0.6, 512)
    assert names(exported.path.parent) == {"er"}


def test_exporting_from_python(distilled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for student in (distilled.student, distilled.student.uri):
        exported = export_student(student, to="huggingface", force=True)
        assert str(exported.path) == f"{distilled.student.directory}-huggingface"
        assert names(tmp_path / exported.path) == HUGGINGFACE
    with pytest.raises(UserError, match="exists already"):
        export_student(distilled.student, to="huggingface")


def test_what_a_ctranslate2_export_holds(distilled, tmp_path):
    exported = to_ctranslate2(distilled, tmp_path / "ct2")
    assert names(exported.path) == CTRANSLATE2
    vocabulary = json.loads((exported.path / "shared_vocabulary.json").read_text())
    tokenizer = load_tokenizer(exported.path)
    assert vocabulary == [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]


def test_an_export_is_as_readable_as_any_directory(distilled, tmp_path):
    before = os.umask(0o022)
    try:
        exported = to_huggingface(distilled, tmp_path / "export")
    finally:
        os.umask(before)
    assert stat.S_IMODE(exported.path.stat().st_mode) == 0o755


def test_int8_is_smaller(distilled, tmp_path):
    sizes = [to_ctranslate2(distilled, tmp_path / kind, kind).path / "model.bin" for kind in ("float32", "int8")]
    # Positions and biases, a third of so small a student, stay as they are; the rest needs a quarter.
    assert sizes[1].stat().st_size < 0.6 * sizes[0].stat().st_size


def test_the_quantizations_are_the_librarys():
    pytest.importorskip("ctranslate2", reason="the export needs it: pip install bertkd-ray[export]")
    from ctranslate2.specs.model_spec import ACCEPTED_MODEL_TYPES

    assert set(QUANTIZATIONS) == set(ACCEPTED_MODEL_TYPES)


@pytest.mark.parametrize(
    ("beam", "expected"),
    [
        (1, {"num_beams": 1, "length_penalty": None, "early_stopping": None}),
        (3, {"num_beams": 3, "length_penalty": 0.2}),
    ],
)
def test_generation_settings(beam, expected):
    assert exports._generation(LineSettings(beam=beam, length_penalty=0.2)) == expected


def test_nothing_is_overwritten_without_force(distilled, tmp_path):
    to_huggingface(distilled, tmp_path / "export")
    (tmp_path / "export" / "README.md").write_text("mine")
    with pytest.raises(
        UserError, match=r"--output .*export: exists already; give another, or --force, which removes what is there"
    ):
        to_huggingface(distilled, tmp_path / "export")
    assert (tmp_path / "export" / "README.md").read_text() == "mine"
    to_huggingface(distilled, tmp_path / "export", force=True)
    assert (tmp_path / "export" / "README.md").read_text() != "mine"
    assert names(tmp_path) == {"export"}


def test_force_replaces_exports_alone(distilled, tmp_path):
    (tmp_path / "letters").mkdir()
    to_huggingface(distilled, tmp_path / "letters")
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"--force replaces exports only, and this is none"):
        to_huggingface(distilled, other, force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--force replaces exports only"):
        to_huggingface(distilled, tmp_path / "file", force=True)
    assert (other / "letter.txt").read_text() == "dear"


def test_a_place_that_cannot_be_written(distilled, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--output .*/file/export: cannot be written: "):
        to_huggingface(distilled, tmp_path / "file" / "export")


def test_what_fails_leaves_nothing_and_what_stood_there_stays(distilled, tmp_path, monkeypatch):
    to_huggingface(distilled, tmp_path / "export")

    def fail(*_: Any, **__: Any) -> str:
        raise RuntimeError("a defect")

    monkeypatch.setattr(exports, "model_card", fail)
    for output in ("export", "other"):
        with pytest.raises(RuntimeError, match="a defect"):
            to_huggingface(distilled, tmp_path / output, force=True)
    assert names(tmp_path) == {"export"}
    assert names(tmp_path / "export") == HUGGINGFACE


def test_a_full_disk_is_named_as_the_outputs(distilled, tmp_path, monkeypatch):
    def fail(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exports, "model_card", fail)
    with pytest.raises(StorageError, match=r"^--output .*/export cannot be written \(No space left on device"):
        to_huggingface(distilled, tmp_path / "export")
    assert names(tmp_path) == set()


def test_an_export_to_an_object_store(distilled, tmp_path):
    bucket, uri = tmp_path / "bucket", FaultyStorage.uri(tmp_path / "bucket")
    with FaultyStorage() as storage:
        exported = to_huggingface(distilled, uri)
    assert (exported.path, exported.form) == (uri, "huggingface")
    assert names(bucket) == HUGGINGFACE
    assert exported.bytes == sum(path.stat().st_size for path in bucket.iterdir())
    # The file by which it is known comes last, so that half an export is none.
    assert Path(storage.written[-1]).name == "translation.json"
    assert {path.read_bytes() for path in bucket.iterdir()} == {
        path.read_bytes() for path in Path(to_huggingface(distilled, tmp_path / "local").path).iterdir()
    }


def test_force_replaces_exports_alone_in_an_object_store_too(distilled, tmp_path):
    (tmp_path / "bucket").mkdir()
    letter, uri = tmp_path / "bucket" / "letter.txt", FaultyStorage.uri(tmp_path / "bucket")
    letter.write_text("dear")
    with FaultyStorage():
        for force, said in ((False, "exists already; give another"), (True, "--force replaces exports only")):
            with pytest.raises(UserError, match=rf"^--output {uri}: {said}"):
                to_huggingface(distilled, uri, force=force)
        assert names(tmp_path / "bucket") == {"letter.txt"}
        letter.unlink()
        to_huggingface(distilled, uri)
        letter.write_text("dear")
        with pytest.raises(
            UserError, match=r"--force replaces exports only, and letter.txt is of none; move it elsewhe"
        ):
            to_huggingface(distilled, uri, force=True)
        letter.unlink()
        to_huggingface(distilled, uri, force=True)
    assert names(tmp_path / "bucket") == HUGGINGFACE


def test_an_object_store_that_refuses(distilled, tmp_path):
    (tmp_path / "bucket").mkdir()
    with (
        FaultyStorage(writes=3),
        pytest.raises(StorageError, match=r"^storage: faulty://.*/bucket/\S+ cannot be written"),
    ):
        to_huggingface(distilled, FaultyStorage.uri(tmp_path / "bucket"))


def test_text_and_json_of_an_export():
    exported = Exported(Path("out"), "ctranslate2", 1536, MEASUREMENT)
    assert exported.text().startswith(
        "Export:    out (1.50 KiB)\nTranslate: bertkd translate out FILE\n\n1,200 sentences"
    )
    assert exported.as_json() == {
        "path": "out",
        "to": "ctranslate2",
        "bytes": 1536,
        "measured": asdict(MEASUREMENT),
    }
    assert Exported(Path("out"), "huggingface", 1).as_json()["measured"] is None


def test_default_outputs():
    assert default_output("demo-distilled", "huggingface", "float32") == Path("demo-distilled-huggingface")
    assert default_output("demo-distilled", "ctranslate2", "int8") == Path("demo-distilled-ctranslate2-int8")


def test_a_student_of_moses_text_exports_with_a_word_of_warning(tmp_path, moses):
    card = to_huggingface(moses, tmp_path / "export").path / "README.md"
    assert "**The model reads and writes Moses tokens**" in card.read_text()
    assert json_of(card.parent, "translation.json")["text"] == "moses"


@pytest.fixture(scope="module")
def moses(tmp_path_factory) -> Any:
    from bertkd_ray.student.lineage import lineage_of

    return lineage_of(Project(tmp_path_factory.mktemp("moses"), "corpus.text=moses").control())


ALONE = """
import json, sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "bertkd_ray":
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
directory, lines = sys.argv[1], json.loads(sys.argv[2])
{translate}
print(json.dumps(found))
"""
TRANSFORMERS = """
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
ids = model.generate(**tokenizer(lines, return_tensors="pt", padding=True))
found = tokenizer.batch_decode(ids, skip_special_tokens=True)
"""
CTRANSLATE2_ALONE = """
import ctranslate2, tokenizers
translator = ctranslate2.Translator(directory)
tokenizer = tokenizers.Tokenizer.from_file(f"{directory}/tokenizer.json")
tokenizer.encode_special_tokens = True
results = translator.translate_batch([tokenizer.encode(line).tokens for line in lines], beam_size=4, length_penalty=0.6)
found = [tokenizer.decode([tokenizer.token_to_id(token) for token in one.hypotheses[0]]) for one in results]
"""


def alone(script: str, directory: Path, lines: list[str], cwd: Path, **variables: str) -> list[str]:
    """Translates in a process that cannot import this package."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", ALONE.replace("{translate}", script), str(directory), json.dumps(lines)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["huggingface", "ctranslate2"])
def test_an_export_translates_raw_text_without_this_package(known, translated, tmp_path, form):
    import gzip

    texts = [
        gzip.decompress((known.directory / "text" / f"test.{side}.gz").read_bytes()).decode().splitlines()
        for side in ("de", "en")
    ]
    sources, references = texts[0][:20], texts[1][:20]
    if form == "huggingface":
        directory, script = to_huggingface(translated, tmp_path / "export").path, TRANSFORMERS
    else:
        directory, script = to_ctranslate2(translated, tmp_path / "export").path, CTRANSLATE2_ALONE
    assert KNOWN >= 20
    found = alone(script, directory, sources, tmp_path)
    assert sum(map(str.__eq__, found, references)) >= 16


@pytest.mark.slow
def test_an_export_translates_in_transformers_4_as_in_5(translated, tmp_path):
    """TRANSFORMERS_4: where `pip install --target` has put transformers 4 and its tokenizers and huggingface-hub."""
    older = os.environ.get("TRANSFORMERS_4") or pytest.skip("TRANSFORMERS_4 names no installation of transformers 4")
    directory, lines = to_huggingface(translated, tmp_path / "export").path, ["ein Mann <s> liest", "die Frau </s>"]
    assert json_of(directory, "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
    script = f"{TRANSFORMERS}\nimport transformers\nfound += [transformers.__version__[0]]"
    found = alone(script, directory, lines, tmp_path)
    before = alone(script, directory, lines, tmp_path, PYTHONPATH=older)
    assert (found[-1], before[-1]) == ("5", "4")
    assert before[:-1] == found[:-1]


def test_a_card_for_ctranslate2_reads_special_tokens_as_text(distilled, tmp_path):
    card = (to_ctranslate2(distilled, tmp_path / "ct2").path / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    code = code.replace('directory = "."', f"directory = {str(tmp_path / 'ct2')!r}")
    names: dict[str, Any] = {}
    exec(code, names)
    tokens = names["tokenizer"].encode("<s> a").tokens
    assert "<s>" not in tokens
    assert tokens[-1] == "</s>"


def test_an_export_whose_process_is_killed_is_none(distilled, tmp_path, monkeypatch):
    output = tmp_path / "model"
    with monkeypatch.context() as patched:
        patched.setattr(exports, "model_card", lambda *given, **named: os.kill(os.getpid(), signal.SIGKILL))
        assert is_killed(lambda: to_huggingface(distilled, output))
    assert not output.exists()
    to_huggingface(distilled, output)
    assert names(output) == HUGGINGFACE


def test_an_export_holds_what_the_manifest_lists(tmp_path, distilled):
    directory = shutil.copytree(distilled.student.path(), tmp_path / distilled.student.directory)
    (directory / "model" / ".DS_Store").write_bytes(b"names of files")
    exported = export_student(str(directory), tmp_path / "export", to="huggingface")
    assert names(Path(exported.path)) == HUGGINGFACE


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"translation.json": '{"hello": "Hallo"}', "app.js": ""}, "and this is none; give another"),
        ({"translation.json": "[]"}, "and this is none; give another"),
        ({"translation.json": '{"positions": 16}', "sub/app.js": ""}, "and sub/app.js is of none; move it elsewhere"),
    ],
)
@pytest.mark.parametrize("kind", ["directory", "uri"])
def test_force_replaces_nothing_of_a_users(distilled, tmp_path, files, said, kind):
    (tmp_path / "app" / "sub").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "app" / name).write_text(text)
    output = str(tmp_path / "app") if kind == "directory" else f"file://{tmp_path}/app"
    with pytest.raises(UserError, match=rf"^--output \S+app: --force replaces exports only, {said}$"):
        to_huggingface(distilled, output, force=True)
    assert {name: (tmp_path / "app" / name).read_text() for name in files} == files


def test_an_export_with_what_systems_leave_is_replaced(distilled, tmp_path):
    exported = Path(to_huggingface(distilled, tmp_path / "export").path)
    (exported / ".DS_Store").write_bytes(b"")
    assert names(Path(to_huggingface(distilled, exported, force=True).path)) == HUGGINGFACE


@pytest.mark.parametrize(
    "place", ["{artifact}/export", "{artifact}/model/x", "work/x", "report-x/x", "translation-{0}"]
)
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_an_output_inside_an_artifact_is_refused(distilled, place, prefix):
    store = distilled.student.store
    output = store.path(place.format("0" * 16, artifact=distilled.student.directory))
    before = store.files()
    for force in (False, True):
        with pytest.raises(
            UserError, match=r"^--output \S+: lies in an artifact, or where a storage keeps its own; give"
        ):
            to_huggingface(distilled, prefix + output, force=force)
    assert store.files() == before


def test_an_output_inside_an_artifact_of_another_storage_is_refused(distilled, tmp_path):
    with pytest.raises(UserError, match="lies in an artifact"):
        to_huggingface(distilled, tmp_path / f"teacher-{'0' * 16}" / "export")
    assert names(tmp_path) == set()
    assert names(Path(to_huggingface(distilled, tmp_path / f"student-{'0' * 16}").path)) == HUGGINGFACE


def test_places_that_cannot_be_replaced_are_one_line(distilled, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for output in (tmp_path / "link", "."):
        with pytest.raises(UserError, match=r"^--output \S+: cannot be replaced \(.+\); give another$"):
            to_huggingface(distilled, output)
    assert (names(tmp_path), names(tmp_path / "here")) == ({"link", "here"}, set())
