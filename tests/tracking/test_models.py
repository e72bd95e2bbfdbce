"""A student logged as a model: what lies there, that it loads without this package, and a real server."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import pytest
import torch
import yaml

from bertkd_ray.corpus import moses
from bertkd_ray.student.distill import MODEL
from bertkd_ray.tracking import default_uri, open_tracker, served
from bertkd_ray.tracking.interface import Run, StudentModel
from tests.helpers.local_project import Project
from tests.helpers.services import environment, mlflow_server, model_server

pytestmark = pytest.mark.slow

TEXTS = ["Der Mann sieht das Haus.", "", "  ", "Die Frau geht."]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's `save_pretrained` directory; its weights are so large that what it says depends on what it reads."""
    from transformers import AutoModelForSeq2SeqLM

    project = Project(tmp_path_factory.mktemp("project"))
    directory = Path(project.control().path(MODEL))
    model = AutoModelForSeq2SeqLM.from_pretrained(directory)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.copy_(torch.randn(weights.shape, generator=generator))
    model.save_pretrained(directory)
    generation = json.loads((directory / "generation_config.json").read_text())
    (directory / "generation_config.json").write_text(json.dumps({**generation, "min_length": 4, "max_length": 12}))
    return directory


@pytest.fixture(scope="module")
def student(saved: Path) -> StudentModel:
    return StudentModel(
        name="control",
        fingerprint="f00",
        fetch=lambda scratch: saved,
        example=TEXTS[0],
        settings={"text": "raw", "src_lang": "de", "tgt_lang": "en"},
        code=[Path(moses.__file__)],
        scores={"valid_bleu": 12.5},
        tags={"bertkd.corpus": "c0", "bertkd.arm": "control"},
    )


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return default_uri(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def run(uri: str) -> Any:
    return open_tracker(uri, "models").run("small/control", key="arm:control:1")


@pytest.fixture(scope="module")
def logged(run: Any, student: StudentModel) -> str:
    return run.log_model(student)


@pytest.fixture(scope="module")
def directory(logged: str, uri: str) -> Path:
    """Where MLflow keeps the model."""
    from mlflow import MlflowClient

    return Path(MlflowClient(uri).get_logged_model(logged.rpartition("/")[2]).artifact_location.removeprefix("file://"))


def translated(saved: Path, texts: list[str]) -> list[str]:
    """By plain transformers, a sentence at a time."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    return [
        tokenizer.decode(model.generate(**tokenizer(text, return_tensors="pt"))[0], skip_special_tokens=True)
        for text in texts
    ]


def predicted(model: str | Path, texts: list[str], cwd: Path, **variables: str) -> list[str]:
    """By a process in which this package cannot be imported."""
    script = (
        "import json, sys\n"
        "sys.modules['bertkd_ray'] = None\n"
        "import mlflow.pyfunc, pandas\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "found = model.predict(pandas.DataFrame({'text': json.loads(sys.argv[2])}))\n"
        "print('FOUND', json.dumps(found['translation'].tolist()))\n"
    )
    command = [sys.executable, "-c", script, str(model), json.dumps(texts)]
    done = subprocess.run(command, cwd=cwd, env=environment(**variables), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("FOUND ")[2])


def test_the_model_says_what_goes_in_and_out_and_what_it_needs(directory: Path) -> None:
    card = yaml.safe_load((directory / "MLmodel").read_text())
    assert json.loads(card["signature"]["inputs"]) == [{"type": "string", "name": "text", "required": True}]
    assert json.loads(card["signature"]["outputs"]) == [{"type": "string", "name": "translation", "required": True}]
    assert json.loads((directory / "input_example.json").read_text()) == {"text": [TEXTS[0]]}
    needed = dict(line.split("==") for line in (directory / "requirements.txt").read_text().split())
    assert set(needed) == {"mlflow", "torch", "transformers", "tokenizers", "safetensors", "pandas"}
    assert needed["transformers"] == importlib.metadata.version("transformers")
    assert "+" not in needed["torch"], "a local build is on no index"
    assert not list(directory.rglob("*.pkl"))


def test_a_student_is_logged_once_an_experiment(logged: str, run: Any, student: StudentModel, uri: str) -> None:
    from mlflow import MlflowClient

    assert run.log_model(student) == logged
    other = open_tracker(uri, "models").run("other/control", key="arm:control:2")
    assert other.log_model(student) == logged
    assert other.log_model(replace(student, fingerprint="f01")) != logged
    client = MlflowClient(uri)
    for one, count in ((run, 1), (other, 2)):
        outputs = client.get_run(one.run_id).outputs.model_outputs
        assert logged.rpartition("/")[2] in {output.model_id for output in outputs}
        assert len(outputs) == count
    model = client.get_logged_model(logged.rpartition("/")[2])
    assert (model.name, model.tags["bertkd.student"], model.tags["bertkd.corpus"]) == ("control", "f00", "c0")


def test_a_model_that_was_cut_off_is_logged_again(run: Any, student: StudentModel, saved: Path) -> None:
    def killed(scratch: Path) -> Path:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.log_model(replace(student, fingerprint="f02", fetch=killed))
    assert run.log_model(replace(student, fingerprint="f02"))


def test_logging_is_silent(run: Any, student: StudentModel, capfd: pytest.CaptureFixture[str]) -> None:
    run.log_model(replace(student, fingerprint="f03"))
    assert capfd.readouterr() == ("", "")


def test_it_translates_as_generate_does_without_this_package(directory: Path, saved: Path, tmp_path: Path) -> None:
    first, last = translated(saved, [TEXTS[0], TEXTS[3]])
    assert first != last
    assert predicted(directory, TEXTS, tmp_path) == [first, "", "", last]


def test_a_student_of_tokenised_text_reads_and_writes_raw_text(
    run: Any, student: StudentModel, saved: Path, uri: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    settings = {**student.settings, "text": "moses"}
    logged = run.log_model(replace(student, fingerprint="f04", settings=settings))
    location = MlflowClient(uri).get_logged_model(logged.rpartition("/")[2]).artifact_location
    assert "sacremoses==" in (Path(location.removeprefix("file://")) / "requirements.txt").read_text()
    (expected,) = translated(saved, ["Der Mann sieht das Haus ."])
    assert predicted(location, TEXTS[:1], tmp_path) == [moses.detokenise(expected, "en")]


def test_a_missing_value_has_an_empty_translation() -> None:
    model = served.make_model()
    texts = pandas.DataFrame({"text": [None, float("nan"), pandas.NA, " "]})
    context = SimpleNamespace(model_config={"text": "raw"})
    assert model.predict(context, texts)["translation"].tolist() == [""] * 4


def test_a_list_of_texts_is_as_many_rows_and_what_is_no_text_is_refused(directory: Path, saved: Path) -> None:
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    model = mlflow.pyfunc.load_model(str(directory))
    first, last = translated(saved, [TEXTS[0], TEXTS[3]])
    lists = [{"text": [TEXTS[0], TEXTS[3]]}, [{"text": [TEXTS[0]]}, {"text": TEXTS[3]}]]
    assert [model.predict(rows)["translation"].tolist() for rows in lists] == [[first, last]] * 2
    context, rows = SimpleNamespace(model_config={"text": "raw"}), pandas.DataFrame({"text": [{"de": "Ein Hund"}]})
    with pytest.raises(MlflowException, match=r"text: a row is one sentence, not \{'de': 'Ein Hund'\}"):
        served.make_model().predict(context, rows)


def test_a_server_translates_text(logged: str, saved: Path, uri: str) -> None:
    with model_server(logged, environment(MLFLOW_TRACKING_URI=uri)) as url:
        request = urllib.request.Request(
            f"{url}/invocations",
            data=json.dumps({"inputs": {"text": TEXTS}}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
    first, last = translated(saved, [TEXTS[0], TEXTS[3]])
    assert found == {"predictions": [{"translation": text} for text in (first, "", "", last)]}


def test_through_a_tracking_server_that_hands_artifacts_on(
    student: StudentModel, saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with mlflow_server(f"sqlite:///{tmp_path}/server.db", str(tmp_path / "artifacts"), environment()) as server:
        run = open_tracker(server, "models").run("small/control", key="arm:control:1")
        capfd.readouterr()
        logged = run.log_model(student, register="students")
        assert logged is not None
        assert run.log_model(student, register="students") == logged
        out, err = capfd.readouterr()
        assert (out, err.splitlines()) == (
            "",
            [
                "register  control: registered as version 1 of students and its first champion, valid BLEU 12.50",
                "register  control: is version 1 of students, its champion",
            ],
        )
        found = predicted("models:/students@champion", TEXTS[:1], tmp_path, MLFLOW_TRACKING_URI=server)
    assert found == translated(saved, TEXTS[:1])


def test_other_weights_under_one_fingerprint_are_a_model_of_their_own(
    logged: str, run: Any, student: StudentModel
) -> None:
    other = replace(student, fingerprint="f77", tags={**student.tags, "bertkd.content": "w1"})
    first = run.log_model(other)
    assert run.log_model(other) == first
    assert run.log_model(replace(other, tags={**other.tags, "bertkd.content": "w2"})) not in (first, logged)


def test_nothing_is_logged_where_nothing_is_tracked(student: StudentModel) -> None:
    assert Run().log_model(student, register="students") is None
