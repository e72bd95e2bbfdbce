from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pytest

from bertkd_ray.report.study import (
    MeanAndDeviation,
    SeedResult,
    StudyArm,
    TeacherFigures,
    students_csv,
    study_csv,
    study_markdown,
    study_text,
)
from bertkd_ray.report.tables import ArmResult

TEACHER = TeacherFigures("/a/softlabels", 1200, 0.7342, 0.79, 0.92, 0.69, 2.05)
SIGNATURES = {"BLEU": "nrefs:1|tok:13a"}


def student(arm: str, seed: int, valid: float, test: float, delta: float | None = None) -> SeedResult:
    seconds = {"prepare": 2.0, "distill": 10.0 * seed}
    if delta is not None:
        seconds = {"prepare": 2.0, "finetune": 100.0, "distill": 20.0 * seed}
    explained = {"valid_perplexity": 6.0 + seed, "valid_accuracy": 0.65, "length_ratio": 0.9 + seed / 100}
    scores = ArmResult(arm, 9_170_000, valid, test, 54.0 + seed, test + 0.25, delta, None, seconds, **explained)
    places = (f"/a/student-{arm}{seed}", f"/a/translation-{arm}{seed}", f"run{seed}{arm}")
    return SeedResult(seed, scores, *places, teacher=None if delta is None else TEACHER)


CONTROL = StudyArm("control", [student("control", 1, 30, 34), student("control", 2, 32, 35)])
HOT = StudyArm("hot", [student("hot", 1, 31, 35, 1.0), student("hot", 2, 33, 37, 2.0)], 0.0312, (0.5, 2.5))


def test_a_spread_is_mean_and_sample_deviation() -> None:
    assert MeanAndDeviation.of([1.0, 2.0, 6.0]) == MeanAndDeviation(3.0, pytest.approx(math.sqrt(7)))
    assert MeanAndDeviation.of([4.0]) == MeanAndDeviation(4.0, None)
    assert (MeanAndDeviation(3.0, 0.456).text(), MeanAndDeviation(4.0, None).text("+.2f")) == ("3.00 ± 0.46", "+4.00")


def test_text() -> None:
    assert study_text([CONTROL, HOT], "abc", SIGNATURES).splitlines() == [
        "arm      params    valid BLEU     test BLEU          chrF     Δ control      p",
        "───────  ──────  ────────────  ────────────  ────────────  ────────────  ─────",
        "control   9.17M  31.00 ± 1.41  34.50 ± 0.71  55.50 ± 0.71             –      –",
        "hot       9.17M  32.00 ± 1.41  36.00 ± 1.41  55.50 ± 0.71  +1.50 ± 0.71  0.031",
        "",
        "arm      valid perplexity  valid accuracy  length ratio   legacy BLEU",
        "───────  ────────────────  ──────────────  ────────────  ────────────",
        "control       7.50 ± 0.71           65.0%         0.915  34.75 ± 0.71",
        "hot           7.50 ± 0.71           65.0%         0.915  36.25 ± 1.41",
        "",
        "teacher of  steps  accuracy  gold first  gold in k  entropy T=1  T=10",
        "──────────  ─────  ────────  ──────────  ─────────  ───────────  ────",
        "hot         1,200     73.4%       79.0%      92.0%         0.69  2.05",
        "",
        "seconds  prepare  finetune  distill    all",
        "───────  ───────  ────────  ───────  ─────",
        "control      2.0         –     15.0   17.0",
        "hot          2.0     100.0     30.0  132.0",
        "",
        "Mean ± standard deviation over seeds 1, 2; p: two-tailed bootstrap over sentences and seeds. "
        "One teacher an arm: other teachers may differ.",
        "MLflow run of the study: abc",
        "",
        "BLEU  nrefs:1|tok:13a",
    ]


def with_teacher(result: SeedResult, seed: int) -> SeedResult:
    teacher = replace(TEACHER, softlabels=f"/a/softlabels{seed}", accuracy=0.7 + seed / 100)
    return replace(result, teacher=teacher, teacher_seed=seed)


TEACHERS = StudyArm(
    "hot",
    [
        with_teacher(student("hot", seed, 30 + seed, 34 + teacher, 1.0), teacher)
        for seed in (1, 2)
        for teacher in (5, 6)
    ],
    0.0312,
    (0.5, 2.5),
)


def test_seeds_and_teachers_are_counted() -> None:
    lines = study_text([CONTROL, TEACHERS], "", SIGNATURES).splitlines()
    assert [" ".join(line.split()) for line in lines[:4] if "─" not in line] == [
        "arm seeds × teachers params valid BLEU test BLEU chrF Δ control p",
        "control 2 × – 9.17M 31.00 ± 1.41 34.50 ± 0.71 55.50 ± 0.71 – –",
        "hot 2 × 2 9.17M 31.50 ± 0.58 39.50 ± 0.58 55.50 ± 0.58 +1.00 ± 0.00 0.031",
    ]
    assert [" ".join(line.split()) for line in lines if line.startswith(("teacher of", "hot  ")) and "%" in line][
        1:
    ] == [
        "hot 5 1,200 75.0% 79.0% 92.0% 0.69 2.05",
        "hot 6 1,200 76.0% 79.0% 92.0% 0.69 2.05",
    ]
    note = (
        "Mean ± standard deviation over students of seeds 1, 2 with teachers of seeds 5, 6; "
        "p: two-tailed bootstrap over sentences, seeds and teachers."
    )
    assert note in lines
    assert "| hot | 2 | 6 | 32.00 | 40.00 | 56.00 | +1.00 | – | run2hot |" in study_markdown(
        [CONTROL, TEACHERS], "", {}
    )
    control, hot = csv.DictReader(io.StringIO(study_csv([CONTROL, TEACHERS])))
    assert [(row["seeds"], row["teachers"]) for row in (control, hot)] == [("2", "0"), ("2", "2")]
    rows = list(csv.DictReader(io.StringIO(students_csv([CONTROL, TEACHERS]))))
    assert [row["teacher_seed"] for row in rows] == ["", "", "5", "6", "5", "6"]
    assert TEACHERS.as_json()["teachers"] == 2
    assert [one["teacher_seed"] for one in TEACHERS.as_json()["seeds"]] == [5, 6, 5, 6]


def test_markdown_names_every_run() -> None:
    lines = study_markdown([CONTROL, HOT], "", SIGNATURES).splitlines()
    assert "| hot | 9.17M | 32.00 ± 1.41 | 36.00 ± 1.41 | 55.50 ± 0.71 | +1.50 ± 0.71 | 0.031 |" in lines
    assert "| hot | 2 | 33.00 | 37.00 | 56.00 | +2.00 | – | run2hot |" in lines
    assert not any("MLflow run of the study" in line for line in lines)


def test_one_seed_is_said_to_be_one() -> None:
    alone = [StudyArm("control", CONTROL.seeds[:1]), StudyArm("hot", HOT.seeds[:1], 0.5, (0.0, 1.0))]
    text = study_text(alone, "", {})
    assert "Seed 1 alone" in text
    assert "±" not in text


def test_csv() -> None:
    control, hot = csv.DictReader(io.StringIO(study_csv([CONTROL, HOT])))
    assert (float(hot["test_bleu_mean"]), float(hot["test_bleu_sd"])) == (36.0, pytest.approx(math.sqrt(2)))
    assert (hot["seeds"], hot["p_value"], hot["delta_low"], hot["seconds"]) == ("2", "0.0312", "0.5", "132.0")
    assert (control["delta_mean"], control["delta_sd"], control["p_value"]) == ("", "", "")
    rows = list(csv.DictReader(io.StringIO(students_csv([CONTROL, HOT]))))
    assert [(row["arm"], row["seed"], row["run_id"]) for row in rows] == [
        ("control", "1", "run1control"),
        ("control", "2", "run2control"),
        ("hot", "1", "run1hot"),
        ("hot", "2", "run2hot"),
    ]
    assert rows[2]["student"] == "/a/student-hot1"


def test_json() -> None:
    found = HOT.as_json()
    assert found["delta"] == {"mean": 1.5, "sd": pytest.approx(math.sqrt(0.5))}
    assert found["seeds"][1]["test_bleu"] == 37
    assert "arm" not in found["seeds"][0]
    assert found["length_ratio"] == {"mean": pytest.approx(0.915), "sd": pytest.approx(math.sqrt(0.5) / 100)}
    assert found["seeds"][0]["teacher"]["gold_first"] == 0.79
    assert CONTROL.as_json()["delta"] is None
    assert CONTROL.as_json()["seeds"][0]["teacher"] is None
