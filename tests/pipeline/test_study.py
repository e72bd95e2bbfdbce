"""A whole study: in this process, and once under Ray through the command line."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import yaml

from bertkd_ray.artifacts.artifact import load
from bertkd_ray.artifacts.manifest import MANIFEST
from bertkd_ray.artifacts.store import Store
from bertkd_ray.cli import main
from bertkd_ray.config.study import load_study
from bertkd_ray.core.errors import UserError
from bertkd_ray.evaluation.metrics import corpus_bleu
from bertkd_ray.pipeline.study import StudyRunner
from bertkd_ray.translation import translate
from tests.helpers.local_project import QUICK, InProcessRuntime
from tests.helpers.small_config import write_config

ARMS: dict[str, Any] = {
    "control": {"kd.alpha": 0},
    "k2": {"kd.topk": 2},
    "fewer": {"teacher.steps": 1, "kd.temperature": 5},
}


class Session(InProcessRuntime):
    """The runtime of a study, which says how often it was made and ended."""

    made: list[Session]

    def __init__(self, config: object) -> None:
        super().__init__()
        self.ended = 0
        self.made.append(self)

    def close(self) -> None:
        self.ended += 1


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("study")
    write_config(directory)
    study = {"name": "tiny", "base": "small.yaml", "arms": ARMS, "seeds": [1, 2]}
    (directory / "tiny.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def bertkd(project) -> Callable[..., dict[str, Any]]:
    """`bertkd study tiny.yaml ARGUMENTS --json` in this process, with the sessions it made under `sessions`."""
    import contextlib
    import io

    def call(*arguments: str) -> dict[str, Any]:
        Session.made = []
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            patch.setattr("bertkd_ray.execution.ray.session.RayRuntime", Session)
            assert main(["study", str(project / "tiny.yaml"), *QUICK, *arguments, "--json"]) == 0
        return {**json.loads(out.getvalue()), "sessions": Session.made}

    return call


@pytest.fixture(scope="module")
def finished(bertkd) -> dict[str, Any]:
    return bertkd()


pytestmark = pytest.mark.slow


def test_arms_and_seeds_share_what_they_can(finished):
    shared = {name for name in finished["stages"] if name.count("/") < 2}
    assert shared == {"prepare", "finetune", "extract", "finetune/fewer", "extract/fewer"}
    students = {f"{stage}/{arm}/{seed}" for stage in ("distill", "translate") for arm in ARMS for seed in (1, 2)}
    assert set(finished["stages"]) == shared | students
    assert len({entry["fingerprint"] for entry in finished["stages"].values()}) == len(finished["stages"])
    assert {entry["status"] for entry in finished["stages"].values()} == {"done"}


def test_ray_is_started_once_and_ended_once(finished):
    (session,) = finished["sessions"]
    assert session.ended == 1


def test_scores_are_of_every_arm_over_its_seeds(finished):
    assert [arm["arm"] for arm in finished["scores"]] == list(ARMS)
    for arm in finished["scores"]:
        assert [one["seed"] for one in arm["seeds"]] == [1, 2]
        students = [finished["stages"][f"distill/{arm['arm']}/{seed}"]["path"] for seed in (1, 2)]
        weights = [Path(student, "model", "model.safetensors").read_bytes() for student in students]
        assert weights[0] != weights[1]
        # After two steps the translations of two students, and so their scores, may well be the same.
        by_hand = [one["chrf"] for one in arm["seeds"]]
        assert arm["chrf"]["mean"] == pytest.approx(sum(by_hand) / 2)
        assert arm["chrf"]["sd"] == pytest.approx(abs(by_hand[0] - by_hand[1]) / 2**0.5)
    control, k2, _ = finished["scores"]
    assert (control["delta"], control["p_value"]) == (None, None)
    assert 0 < k2["p_value"] <= 1
    assert "finetune" not in control["seconds"]
    assert k2["seconds"]["finetune"] > 0


def test_the_report_has_tables_and_a_figure(finished):
    report = Path(finished["report"])
    assert {path.name for path in report.iterdir()} == set(finished["files"])
    assert set(finished["files"]) == {
        "arms.csv",
        "bleu-by-bucket.png",
        "bleu-by-bucket.svg",
        "students.csv",
        "study.json",
        "table.md",
        "valid-bleu.png",
        "valid-bleu.svg",
    }
    svg = (report / "valid-bleu.svg").read_text()
    assert all(f"<!-- {arm} -->" in svg for arm in ARMS)
    rows = list(csv.DictReader((report / "students.csv").read_text().splitlines()))
    assert len(rows) == 6
    table = (report / "table.md").read_text()
    assert finished["run_id"] in table
    assert all(row["run_id"] in table for row in rows)


def test_bleu_by_bucket_is_of_all_students(finished):
    tables = finished["bleu_by"]
    assert list(tables) == ["source_length", "reference_frequency"]
    for of in tables.values():
        assert sum(scores["sentences"] for scores in of) == sum(s["sentences"] for s in tables["source_length"])
        for scores in of:
            assert set(scores["differences"]) == {"k2", "fewer"}
            difference = scores["differences"]["k2"]
            assert difference["delta"] == pytest.approx(scores["bleu"]["k2"] - scores["bleu"]["control"])
            assert difference["interval"][0] <= difference["interval"][1]
    assert "| source tokens | sentences | control | Δ k2 |" in (Path(finished["report"]) / "table.md").read_text()


def test_every_arm_and_seed_is_a_child_run_with_its_curve(project, finished):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'artifacts' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    study = runs[finished["run_id"]]
    assert study.info.run_name == "tiny"
    assert "k2/delta" in study.data.metrics
    for arm in finished["scores"]:
        for one in arm["seeds"]:
            run = runs[one["run_id"]]
            assert run.info.run_name == f"{arm['arm']}/seed-{one['seed']}"
            assert run.data.tags["mlflow.parentRunId"] == finished["run_id"]
            assert run.data.metrics["chrf"] == pytest.approx(one["chrf"])
            assert [metric.step for metric in client.get_metric_history(one["run_id"], "valid/bleu")] == [2]


def test_a_second_call_makes_nothing(finished, bertkd):
    again = bertkd()
    assert again["sessions"] == []
    assert {entry["status"] for entry in again["stages"].values()} == {"cached"}
    for same in ("scores", "run_id", "report", "files"):
        assert again[same] == finished[same]


def test_another_seed_makes_its_students_alone(finished, bertkd):
    more = bertkd("seeds=[1,3]", "tracking=none")
    made = {name for name, entry in more["stages"].items() if entry["status"] == "done"}
    assert made == {f"{stage}/{arm}/3" for stage in ("distill", "translate") for arm in ARMS}
    assert more["run_id"] == ""
    assert more["scores"][0]["seeds"][0]["chrf"] == finished["scores"][0]["seeds"][0]["chrf"]


def test_every_student_seed_learns_from_every_teacher(finished, bertkd):
    found = bertkd("seeds=[1,2]", "teacher_seeds=[1,7]", "tracking=none")
    made = {name for name, entry in found["stages"].items() if entry["status"] == "done"}
    teachers = {"finetune/k2/teacher-7", "extract/k2/teacher-7", "finetune/fewer/teacher-7", "extract/fewer/teacher-7"}
    students = {f"{arm}/{seed}/teacher-7" for arm in ("k2", "fewer") for seed in (1, 2)}
    assert made == teachers | {f"{stage}/{student}" for stage in ("distill", "translate") for student in students}
    control, k2, _ = found["scores"]
    assert [(one["seed"], one["teacher_seed"]) for one in control["seeds"]] == [(1, None), (2, None)]
    assert [(one["seed"], one["teacher_seed"]) for one in k2["seeds"]] == [(1, 1), (1, 7), (2, 1), (2, 7)]
    assert (control["teachers"], k2["teachers"]) == (0, 2)
    # With the base's seed they are the students that were there.
    alone = finished["scores"][1]["seeds"]
    assert [one["student"] for one in k2["seeds"][::2]] == [one["student"] for one in alone]
    assert len({one["student"] for one in k2["seeds"]}) == 4
    assert len({one["teacher"]["softlabels"] for one in k2["seeds"]}) == 2
    assert k2["delta"]["mean"] == pytest.approx(sum(one["delta"] for one in k2["seeds"]) / 4)
    assert found["signatures"]["bootstrap"].endswith("|over:sentences,seeds,teachers|tails:2")
    assert "over seeds and teachers" in Path(found["report"], "valid-bleu.svg").read_text()


def test_the_table_ends_with_where_all_is(project, finished, capsys):
    assert main(["study", str(project / "tiny.yaml"), *QUICK]) == 0
    out = capsys.readouterr().out
    assert re.match(r"arm +params +valid BLEU +test BLEU +chrF +Δ control +p\n", out)
    assert f"Report: {finished['report']} (arms.csv, " in out
    assert "mlflow ui" in out


def test_a_failed_study_is_failed_in_mlflow_and_goes_on(project, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setattr("bertkd_ray.execution.ray.session.RayRuntime", Session)
    Session.made = []
    overrides = [*QUICK, "seeds=[4]", "tracking.experiment=failed"]
    study = load_study(project / "tiny.yaml", overrides)
    runner = StudyRunner(study)
    monkeypatch.setattr(runner, "_compare", lambda students: 1 / 0)
    with pytest.raises(ZeroDivisionError), runner:
        runner.run()
    client = MlflowClient(f"sqlite:///{project / 'artifacts' / 'mlflow.db'}")
    assert client.get_run(runner.outcome.run_id).info.status == "FAILED"
    with StudyRunner(study) as runner:
        outcome = runner.run()
    assert {result.status for result in outcome.stages.values()} == {"cached"}
    assert client.get_run(outcome.run_id).info.status == "FINISHED"


@pytest.fixture
def rewritten(project, finished, monkeypatch) -> Callable[[dict[str, Any]], StudyRunner]:
    """The finished study, about to be compared again, with what students wrote (`arm/seed`) or everything changed."""

    def call(change: dict[str, Callable[[pa.Table], pa.Table]]) -> StudyRunner:
        read = translate.read_translations
        places = {entry["path"]: name.removeprefix("translate/") for name, entry in finished["stages"].items()}
        unchanged: Callable[[pa.Table], pa.Table] = lambda table: table  # noqa: E731
        monkeypatch.setattr(
            translate, "read_translations", lambda artifact: change.get(places[artifact.uri], unchanged)(read(artifact))
        )
        return StudyRunner(load_study(project / "tiny.yaml", [*QUICK, "tracking=none"]))

    return call


def test_every_arm_is_compared_with_the_control_of_its_seed(rewritten):
    def writes(words: int) -> Callable[[pa.Table], pa.Table]:
        """The references, only so many words of each."""

        def change(table: pa.Table) -> pa.Table:
            lines = [[" ".join(line.split()[:words])] for line in table["reference"].to_pylist()]
            place = table.column_names.index("hypotheses")
            return table.set_column(place, "hypotheses", pa.array(lines, pa.list_(pa.string())))

        seen[words] = change
        return change

    seen: dict[int, Callable[[pa.Table], pa.Table]] = {}
    changes = {"control/1": writes(4), "control/2": writes(5), "k2/1": writes(7), "k2/2": writes(6)}
    with rewritten(changes) as runner:
        _, k2, fewer = runner.run().arms
    references, by_words = [], {}
    table = translate.read_translations(runner.session.artifacts[Path(k2.seeds[0].translation).name])
    references = table["reference"].to_pylist()
    for words in seen:
        by_words[words] = corpus_bleu([" ".join(line.split()[:words]) for line in references], references)
    deltas = [one.scores.delta for one in k2.seeds]
    assert deltas == pytest.approx([by_words[7] - by_words[4], by_words[6] - by_words[5]])
    assert k2.delta.mean == pytest.approx(sum(deltas) / 2)
    assert k2.interval[0] < k2.delta.mean < k2.interval[1]
    assert fewer.delta.mean < 0


def test_arms_with_other_references_are_refused(rewritten):
    with (
        pytest.raises(UserError, match=r"arms\.k2: its test references are not those of arms\.control"),
        rewritten({"k2/1": lambda table: table.slice(1)}) as runner,
    ):
        runner.run()


def test_arms_scored_by_other_tokenizers_are_refused(project, finished):
    store = Store(str(project / "artifacts"))
    translation = load(store, Path(finished["stages"]["translate/control/2"]["path"]).name)
    manifest = Path(translation.uri) / MANIFEST
    kept = manifest.read_bytes()
    manifest.write_bytes(replace(translation, info={**translation.info, "tokenize": "char"}).to_bytes())
    try:
        with (
            pytest.raises(UserError, match=r"control, seed 2: its BLEU is of char, that of control, seed 1 of 13a"),
            StudyRunner(load_study(project / "tiny.yaml", [*QUICK, "tracking=none"])) as runner,
        ):
            runner.run()
    finally:
        manifest.write_bytes(kept)


def test_of_a_study_that_is_not_finished_the_finished_arms_are_compared(project, finished, bertkd, capsys):
    half = bertkd("arms.longer={kd.alpha: 0, student.steps: 3}", "control=control", "--finished", "tracking=none")
    assert [arm["arm"] for arm in half["scores"]] == list(ARMS)
    assert half["scores"][1]["delta"] == finished["scores"][1]["delta"]
    assert {entry["status"] for entry in half["stages"].values()} == {"cached"}
    assert main(["study", str(project / "tiny.yaml"), *QUICK, "--finished", "seeds=[9]"]) == 2
    assert "of its arms none is finished under all seeds, which leaves nothing to compare" in capsys.readouterr().err


def test_finished_trains_nothing_that_is_gone(project, finished, bertkd):
    """Where soft labels or a student of an arm were removed, it is not finished; nothing is made again."""
    (k2,) = (arm for arm in finished["scores"] if arm["arm"] == "k2")
    for path in (k2["seeds"][0]["teacher"]["softlabels"], k2["seeds"][1]["student"]):
        artifact = Path(path)
        artifact.rename(away := project / artifact.name)
        try:
            found = bertkd("--finished", "tracking=none")
            assert {entry["status"] for entry in found["stages"].values()} == {"cached"}
            assert "k2" not in [arm["arm"] for arm in found["scores"]]
            assert not artifact.exists()
        finally:
            away.rename(artifact)


def test_a_teacher_is_described_once_for_the_arms_that_share_it(finished):
    _, k2, fewer = finished["scores"]
    teachers = [one["teacher"] for arm in (k2, fewer) for one in arm["seeds"]]
    assert teachers[0] == teachers[1] != teachers[2] == teachers[3]
    assert (teachers[0]["steps"], teachers[2]["steps"]) == (2, 1)
    assert 0 <= teachers[0]["gold_first"] <= teachers[0]["gold_in_topk"] <= 1
    table = Path(finished["report"], "table.md").read_text()
    assert [line for line in table.splitlines() if line.startswith("| k2 | 2 |")]
    assert finished["scores"][0]["seeds"][0]["teacher"] is None


def test_studies_side_by_side_are_the_same_as_one_after_the_other(project, finished, tmp_path, capsys):
    other = {
        "name": "other",
        "base": "small.yaml",
        "arms": {"control": ARMS["control"], "k2": {"kd.topk": 2}},
        "seeds": [2],
    }
    (project / "other.yaml").write_text(yaml.safe_dump(other, sort_keys=False), encoding="utf-8")
    files = [str(project / name) for name in ("tiny.yaml", "other.yaml")]
    assert main(["study", *files, *QUICK, f"storage={tmp_path}", "runtime=local", "--jobs", "2", "--json"]) == 0
    outcomes = {one["scores"][0]["arm"] and len(one["scores"]): one for one in json.loads(capsys.readouterr().out)}
    tiny, small = outcomes[3], outcomes[2]
    assert set(tiny["stages"]) == set(finished["stages"])
    assert {entry["status"] for entry in tiny["stages"].values()} == {"done"}
    for name, entry in tiny["stages"].items():
        assert entry["fingerprint"] == finished["stages"][name]["fingerprint"]
    for ours, theirs in zip(tiny["scores"], finished["scores"], strict=True):
        for score in ("valid_bleu", "test_bleu", "chrf", "delta", "p_value"):
            assert ours[score] == theirs[score], score
    # Of the seed that they share the two studies have the same student.
    assert small["scores"][1]["seeds"][0]["student"] == tiny["scores"][1]["seeds"][1]["student"]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for outcome in outcomes.values():
        assert client.get_run(outcome["run_id"]).info.status == "FINISHED"
        runs = client.search_runs([client.get_run(outcome["run_id"]).info.experiment_id])
        assert {run.info.status for run in runs} == {"FINISHED"}


def test_what_does_not_need_a_failed_task_is_made(project, tmp_path, capsys):
    # A teacher that diverges at once: its arm and the study fail, the control and the other teacher's student do not.
    arms = {**ARMS, "fewer": {"teacher.peak_lr": 1e30, "teacher.steps": 3}}
    command = ["study", str(project / "tiny.yaml"), *QUICK, f"storage={tmp_path}", "tracking=none", "runtime=local"]
    assert main([*command, "seeds=[1]", f"arms={json.dumps(arms)}", "--jobs", "2"]) == 1
    said = capsys.readouterr().err
    assert re.search(r"finetune of tiny: fewer, seed 1  failed: the gradient is not a number at step \d", said)
    kinds = [path.name.partition("-")[0] for path in tmp_path.iterdir() if (path / "manifest.json").exists()]
    assert sorted(kinds) == ["corpus", "softlabels", "student", "student", "teacher", "translation", "translation"]


def run_statuses(storage: Path) -> set[str]:
    """Of all runs in the MLflow database of a storage."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.status for run in client.search_runs(experiments)}


def test_a_study_that_cannot_begin_is_failed_in_mlflow(project, tmp_path, capsys):
    command = ["study", str(project / "tiny.yaml"), *QUICK, f"storage={tmp_path}", "runtime=local", "--jobs", "2"]
    assert main([*command, "teacher.model=./no-such-model"]) == 2
    assert "no-such-model" in capsys.readouterr().err
    assert run_statuses(tmp_path) == {"FAILED"}


def test_a_study_that_is_told_to_end_takes_its_processes_along(project, tmp_path):
    quick = ["teacher.steps=2", "student.steps=1000000", "checkpoint_every=1", "seeds=[1]"]
    command = [sys.executable, "-m", "bertkd_ray", "study", str(project / "tiny.yaml"), *quick, "runtime=local"]
    study = subprocess.Popen([*command, f"storage={tmp_path}", "--jobs", "2"], stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 600
        while not list(tmp_path.glob("work/student-*/checkpoint-*")):
            assert study.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        processes = psutil.Process(study.pid).children(recursive=True)
        assert len(processes) >= 2
        study.terminate()
        _, said = study.communicate(timeout=60)
    finally:
        study.kill()
    assert psutil.wait_procs(processes, timeout=10)[1] == []
    assert study.returncode == 1
    assert said.splitlines()[-1] == "bertkd: interrupted; run the same command to go on"
    assert run_statuses(tmp_path) == {"FINISHED", "KILLED"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], "--jobs 0: give 1 or more"),
        (["tiny.yaml", "--jobs", "2"], "tiny: two of the studies have this name"),
    ],
)
def test_wrong_words_are_one_line(project, words, message, capsys):
    paths = [str(project / word) if word.endswith(".yaml") else word for word in words]
    assert main(["study", str(project / "tiny.yaml"), *paths]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.ray
def test_a_study_under_ray(project, ray_session, capsys, tmp_path):
    arguments = ["study", str(project / "tiny.yaml"), *QUICK, "seeds=[1]", f"storage={tmp_path}", "tracking=none"]
    two = {arm: ARMS[arm] for arm in ("control", "k2")}
    assert main([*arguments, f"arms={json.dumps(two)}", "--jobs", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {entry["status"] for entry in found["stages"].values()} == {"done"}
    assert [arm["arm"] for arm in found["scores"]] == ["control", "k2"]
    assert found["scores"][1]["delta"]["sd"] is None
