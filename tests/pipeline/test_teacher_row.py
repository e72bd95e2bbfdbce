"""A left-to-right teacher has a row of its own in what `bertkd run` says and leaves behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bertkd_ray.artifacts.artifact import load
from bertkd_ray.artifacts.store import Store
from bertkd_ray.cli import main
from bertkd_ray.config.study import load_study
from bertkd_ray.pipeline import scheduler
from bertkd_ray.pipeline.scheduler import finished_part
from bertkd_ray.pipeline.session import Session
from bertkd_ray.report.comparison import compare_students
from tests.helpers.local_project import QUICK
from tests.helpers.small_config import write_config

pytestmark = pytest.mark.slow

FORWARD = "teacher.direction=left_to_right"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = write_config(tmp_path_factory.mktemp("row"), runtime="local")
    return ["run", str(path), *QUICK, FORWARD]


@pytest.fixture(scope="module")
def told(command: list[str]) -> dict[str, Any]:
    """What `--json` says of the first run."""
    out = Path(command[1]).with_name("out.json")
    with pytest.MonkeyPatch.context() as patch, out.open("w") as stdout:
        patch.setattr("sys.stdout", stdout)
        assert main([*command, "--json"]) == 0
    return json.loads(out.read_text())


def test_the_teacher_stands_beside_the_arms_and_is_none(told: dict[str, Any]) -> None:
    assert told["stages"]["evaluate"]["status"] == "done"
    assert [scores["arm"] for scores in told["scores"]] == ["distilled", "control"]
    row, stages = told["teachers"][0], told["stages"]
    metrics = stages["evaluate"]["metrics"]
    assert (row["arm"], row["delta"], row["p_value"]) == ("BERT teacher", None, None)
    assert (row["valid_bleu"], row["test_bleu"]) == (metrics["valid/bleu"], metrics["test/bleu"])
    assert row["parameters"] == stages["finetune"]["metrics"]["parameters"]
    assert row["valid_perplexity"] == pytest.approx(2.718281828459045 ** stages["finetune"]["metrics"]["valid/loss"])
    assert row["sentences_per_second"] == metrics["test/sentences_per_second"] > 0
    assert set(row["seconds"]) == {"prepare", "finetune", "evaluate"}
    assert set(told["scores"][0]["seconds"]) == {"prepare", "finetune", "extract", "distill", "translate"}
    assert all(scores["sentences_per_second"] > 0 for scores in told["scores"])


def test_a_second_run_finds_it_and_shows_the_same_table(
    command: list[str], told: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert f"evaluate  cached   evaluation-{told['stages']['evaluate']['fingerprint']}" in err
        lines = [line for line in out.splitlines() if line.startswith(("distilled", "control", "BERT teacher"))]
        assert [line.split("  ")[0] for line in lines[:3]] == ["distilled", "control", "BERT teacher"]
        assert f"{told['teachers'][0]['test_bleu']:.2f}" in lines[2]
        assert " –" in lines[2]


def test_files_and_page_have_the_row(told: dict[str, Any]) -> None:
    directory = Path(told["page"]).parent
    rows = list(csv.DictReader((directory / "table.csv").open()))
    assert [row["arm"] for row in rows] == ["distilled", "control", "BERT teacher"]
    assert float(rows[2]["sentences_per_second"]) == told["teachers"][0]["sentences_per_second"]
    assert "| BERT teacher |" in (directory / "table.md").read_text()
    assert json.loads((directory / "scores.json").read_text())[2] == told["teachers"][0]
    page = (directory / "report.html").read_text()
    assert "Scores of every student and of the teacher" in page
    assert ">BERT teacher</th>" in page
    assert "of the target all that stands before a token" in page


def test_mlflow_has_a_run_of_the_teacher_under_the_keys_of_the_arms(command: list[str], told: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{Path(command[1]).parent / 'artifacts' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id], "tags.`bertkd.kind` = 'teacher'")
    assert [run.info.run_name for run in runs] == ["small/BERT teacher"]
    metrics = runs[0].data.metrics
    assert metrics["test_bleu"] == pytest.approx(told["teachers"][0]["test_bleu"])
    assert {"valid_bleu", "chrf", "parameters", "sentences_per_second"} <= set(metrics)
    assert "p" not in metrics
    assert runs[0].data.tags["bertkd.artifact"] == told["stages"]["evaluate"]["path"]


def test_the_search_of_bertkd_translate_is_that_of_the_row(
    command: list[str], told: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from bertkd_ray.translation.models import open_translator

    translator = open_translator(told["stages"]["finetune"]["path"], device="cpu")
    assert translator._engine._settings.beam == 2
    corpus = load(Store(str(Path(command[1]).parent / "artifacts")), Path(told["stages"]["prepare"]["path"]).name)
    sources = corpus.read_table("test/", ["src"])["src"].to_pylist()
    evaluation = load(corpus.store, Path(told["stages"]["evaluate"]["path"]).name)
    expected = [best for best, *_ in evaluation.read_table("translations.parquet")["hypotheses"].to_pylist()]
    assert translator.translate(sources) == expected


def test_without_it_there_is_no_row(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "translate.teacher=false", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "teachers" not in told
    assert "evaluate" not in told["stages"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "teacher.direction=both",
            "teacher.direction: a bidirectional teacher cannot translate; set teacher.direction=left_to_right",
        ),
        ("translate.teacher=false", "translate.teacher: false leaves the teacher out; set it to true"),
    ],
)
def test_the_command_says_why_there_is_nothing_to_make(
    command: list[str], capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert main(["evaluate", *command[1:], override]) == 2
    assert capsys.readouterr().err == f"bertkd: error: {message}\n"


def test_a_plan_names_it(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *command[1:], "--rate", "1", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    evaluate, translate = plan["stages"]["evaluate"], plan["stages"]["translate/control"]
    assert evaluate["flops"] > 0
    assert evaluate["bytes"] > translate["bytes"]
    assert not any("evaluate is not estimated" in line for line in plan["assumptions"])


@pytest.fixture(scope="module")
def study(command: list[str]) -> Path:
    """An arm whose teacher translates, one whose teacher does not, and one without."""
    arms = {"control": {"kd.alpha": 0}, "forward": {"teacher.direction": "left_to_right"}, "paper": {}}
    path = Path(command[1]).with_name("study.yaml")
    tree = {"name": "directions", "base": "small.yaml", "arms": arms, "seeds": [1, 2]}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def test_a_study_has_the_scores_of_its_teachers(study: Path, told: dict[str, Any], tmp_path: Path) -> None:
    def run(*options: str) -> dict[str, Any]:
        out = tmp_path / "study.json"
        with pytest.MonkeyPatch.context() as patch, out.open("w") as stdout:
            patch.setattr("sys.stdout", stdout)
            assert main(["study", str(study), *QUICK, *options, "--json"]) == 0
        found: dict[str, Any] = json.loads(out.read_text())
        return found

    found = run()
    evaluations = {name: of for name, of in found["stages"].items() if name.partition("/")[0] == "evaluate"}
    # The teacher of the pipeline above.
    assert [of["fingerprint"] for of in evaluations.values()] == [told["stages"]["evaluate"]["fingerprint"]]
    metrics = told["stages"]["evaluate"]["metrics"]
    control, forward, paper = found["scores"]
    for result in forward["seeds"]:
        (scores,) = result["teacher_scores"]
        assert (scores["valid_bleu"], scores["test_bleu"]) == (metrics["valid/bleu"], metrics["test/bleu"])
        assert scores["parameters"] == told["teachers"][0]["parameters"]
    assert not any(result["teacher_scores"] for arm in (paper, control) for result in arm["seeds"])
    table = Path(found["report"], "table.md").read_text()
    assert "| BERT teacher of | params | valid BLEU | test BLEU | chrF | sent./s |" in table
    assert f"{metrics['test/chrf']:.2f}" in table
    # What is finished is compared; nothing is made.
    path = Path(told["stages"]["evaluate"]["path"])
    path.rename(away := tmp_path / path.name)
    again = run("--finished")
    assert not path.exists()
    assert again["scores"][1]["seeds"][0]["teacher_scores"] == []
    away.rename(path)


def test_a_study_waits_for_what_its_table_shows(study: Path) -> None:
    whole = load_study(study, QUICK)
    with Session(whole.config) as session:
        for of, expected in ((whole, 1), (finished_part(whole), 0)):
            tasks: dict[str, Any] = {}
            scheduler._add_study(tasks, of, "", session)
            needs = tasks["study/directions"].needs
            assert len({need for need in needs if need.startswith("evaluation-")}) == expected
            assert len([need for need in needs if need.startswith("translation-")]) == 6
            assert set(needs) <= set(tasks)


def test_a_comparison_of_students_has_their_teachers_scores(told: dict[str, Any]) -> None:
    found = compare_students([told["stages"][f"translate/{arm}"]["path"] for arm in ("distilled", "control")])
    assert found.metrics["teacher/test/bleu"] == {"A": told["stages"]["evaluate"]["metrics"]["test/bleu"]}
    assert found.metrics["teacher/valid/bleu"] == {"A": told["stages"]["evaluate"]["metrics"]["valid/bleu"]}
