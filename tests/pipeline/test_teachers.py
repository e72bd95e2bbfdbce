"""A pipeline and a study of two named teachers, from the command line to the reports."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from bertkd_ray.artifacts.artifact import Artifact, load
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.artifacts.store import Store
from bertkd_ray.cli import main
from bertkd_ray.config import Config, load_config
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.pipeline.session import Session
from bertkd_ray.report.comparison import compare_students
from bertkd_ray.softlabels.row_groups import LabelledRowGroups
from bertkd_ray.student.lineage import lineage_of
from bertkd_ray.student.loss import kd_loss
from bertkd_ray.student.model import build_student
from bertkd_ray.student.task import StudentTask, Validation
from bertkd_ray.training.batch_plan import MicroBatch, StreamPosition
from tests.helpers.small_config import write_config

ARMS = {
    "half": {},
    "mostly": {"kd.teachers": {"bidirectional": 0.2, "forward": 0.8}},
    "forward": {"kd.teachers": "forward"},
    "control": {"kd.alpha": 0},
}


def two_teachers(directory: Path, **changes: Any) -> Path:
    path = write_config(directory, runtime="local", arms=ARMS)
    tree = yaml.safe_load(path.read_text())
    teacher = {**tree.pop("teacher"), "steps": 2, "eval_every": 2}
    tree["teachers"] = {"bidirectional": teacher, "forward": {**teacher, "direction": "left_to_right"}}
    tree["student"].update(steps=2, eval_every=2)
    path.write_text(yaml.safe_dump({**tree, **changes}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def config_path(tmp_path_factory) -> Path:
    return two_teachers(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def config(config_path) -> Config:
    return load_config(config_path)


def test_all_artifacts_of_an_arm_are_named(config):
    session = Session(config)
    pending = session.pending_of_arm(config, "mostly")
    assert list(pending) == [
        *("prepare", "finetune/forward", "finetune/bidirectional"),
        *("extract/forward", "extract/bidirectional", "distill", "translate", "evaluate/forward"),
    ]
    labels = [pending[f"extract/{name}"].fingerprint for name in ("forward", "bidirectional")]
    assert pending["distill"].inputs == {
        "corpus": pending["prepare"].fingerprint,
        "softlabels": labels[0],
        "softlabels.2": labels[1],
    }
    assert list(session.pending_of_arm(config, "control")) == ["prepare", "distill", "translate"]
    alone = session.pending_of_arm(config, "forward")
    assert alone["extract/forward"].directory == pending["extract/forward"].directory


def test_teachers_with_other_vocabularies_are_refused(config_path, tmp_path, capsys):
    other = tmp_path / "bert"
    tree = yaml.safe_load(config_path.read_text())
    shutil.copytree(tree["teachers"]["forward"]["model"], other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    last, before = sorted(vocabulary, key=vocabulary.__getitem__)[-2:]
    vocabulary[last], vocabulary[before] = vocabulary[before], vocabulary[last]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    for command in ("validate", "run"):
        assert main([command, str(config_path), f"teachers.forward.model={other}", "tracking=none"]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(rf"teachers\.forward\.model: {other} has another vocabulary than .*; give all teachers", error)
    # The same pieces, but for another text.
    vocabulary[last], vocabulary[before] = vocabulary[before], vocabulary[last]
    tokenizer["normalizer"]["lowercase"] = not tokenizer["normalizer"]["lowercase"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert main(["validate", str(config_path), f"teachers.forward.model={other}", "tracking=none"]) == 2
    assert f"{other} has another treatment of case and accents than" in capsys.readouterr().err


def test_a_key_of_a_named_teacher_is_named(config_path, capsys):
    for command in ("validate", "run", "plan"):
        assert main([command, str(config_path), "teachers.forward.layers=9", "tracking=none"]) == 2
        assert "teachers.forward.layers: 9, but" in capsys.readouterr().err
        assert main([command, str(config_path), "teachers.forward.model=/nowhere", "tracking=none"]) == 2
        assert "teachers.forward.model: there is no directory /nowhere" in capsys.readouterr().err


def test_a_check_names_every_teacher(config_path, capsys):
    assert main(["validate", str(config_path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ok  teacher")]
    assert [line.split()[2] for line in lines] == ["bidirectional,", "forward,"]


def test_a_plan_has_the_stages_of_every_teacher(config_path, capsys):
    assert main(["plan", str(config_path), "--rate", "1", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert list(stages)[:5] == [
        "prepare",
        *(f"{s}/{t}" for s in ("finetune", "extract") for t in ("bidirectional", "forward")),
    ]
    # Seven passes at most against one.
    assert stages["extract/bidirectional"]["tokens"] > 4 * stages["extract/forward"]["tokens"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune", "--teacher", "x"], "--teacher x: the configuration has the teachers bidirectional, forward"),
        (["extract", "kd.teachers={forward: 0.5}"], "kd.teachers: the weights sum to 0.5; make them sum to 1"),
    ],
)
def test_bad_input_of_the_commands(config_path, capsys, words, message):
    command, *rest = words
    assert main([command, str(config_path), *rest]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def outcome(config_path) -> dict[str, Any]:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["run", str(config_path), "--json"]) == 0
    result: dict[str, Any] = json.loads(printed.getvalue())
    return result


def artifact(config: Config, outcome: dict[str, Any], name: str) -> Artifact:
    return load(Store(config.storage), Path(outcome["stages"][name]["path"]).name)


@pytest.mark.slow
def test_every_teacher_is_trained_and_read_once(outcome):
    assert {name: stage["status"] for name, stage in outcome["stages"].items()} == dict.fromkeys(
        [
            *("prepare", "finetune/bidirectional", "extract/bidirectional"),
            *("finetune/forward", "extract/forward", "evaluate/forward"),
            *(f"{stage}/{arm}" for arm in ARMS for stage in ("distill", "translate")),
        ],
        "done",
    )
    seconds = {score["arm"]: list(score["seconds"]) for score in outcome["scores"]}
    assert seconds["half"] == ["prepare", "finetune", "extract", "distill", "translate"]
    assert seconds["control"] == ["prepare", "distill", "translate"]


@pytest.mark.slow
def test_commands_find_what_the_run_made(config_path, outcome, capsys):
    assert main(["extract", str(config_path), "--teacher", "forward", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["stages"]
    assert {name: stage["status"] for name, stage in made.items()} == dict.fromkeys(
        ["prepare", "finetune/forward", "extract/forward"], "cached"
    )
    assert main(["finetune", str(config_path), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["stages"]) == [
        *("prepare", "finetune/bidirectional", "finetune/forward")
    ]


@pytest.mark.slow
def test_the_loss_of_a_batch_is_the_plain_formula_of_both_teachers(config, outcome):
    """From the shards of both, each read by itself, to the loss."""
    corpus = artifact(config, outcome, "prepare")
    labels = [artifact(config, outcome, f"extract/{name}") for name in ("forward", "bidirectional")]
    kd = config.arm_configs()["mostly"].kd
    model = build_student(config.student, vocab_size=corpus.info["vocabulary"], max_positions=128, seed=1)
    task = StudentTask(model, config.student, kd, Validation.of(corpus), "float32", [0.8, 0.2])
    task.objective.eval()
    rows = LabelledRowGroups(labels).read(np.array([0]))
    batch = task.collate(MicroBatch(0, 0, rows, StreamPosition(0, 1)))
    with torch.no_grad():
        loss, _ = task.objective(batch)
        logits = model(
            input_ids=batch.src_ids_NS,
            attention_mask=batch.src_mask_NS.long(),
            decoder_input_ids=batch.decoder_input_ids_NT,
        ).logits
    scores_PV = logits.flatten(0, 1)[batch.target_index_P]
    parts = []
    for of in labels:
        table = RowGroups(of, "", ["topk_ids", "topk_logits"]).read(np.array([0]))
        ids, values = (Ragged.from_arrow(table[name]).values.reshape(batch.count, -1) for name in table.column_names)
        soft = torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(values.astype(np.float32))
        parts.append(kd_loss(scores_PV, batch.targets_P, *soft, alpha=kd.alpha, temperature=2.0, label_smoothing=0.1))
    assert float(loss) == pytest.approx(float(0.8 * parts[0] + 0.2 * parts[1]), rel=1e-5)


@pytest.mark.slow
def test_a_student_of_two_teachers_says_so(config, outcome):
    student = artifact(config, outcome, "distill/mostly")
    assert student.info["teachers"] == {"bidirectional": 0.2, "forward": 0.8}
    lineage = lineage_of(student)
    assert lineage.softlabels == artifact(config, outcome, "extract/forward")
    assert lineage.teacher == artifact(config, outcome, "finetune/forward")
    assert lineage.other_softlabels == (artifact(config, outcome, "extract/bidirectional"),)
    assert lineage.other_teachers == (artifact(config, outcome, "finetune/bidirectional"),)
    alone = lineage_of(artifact(config, outcome, "distill/forward"))
    assert (alone.teacher, alone.other_teachers) == (lineage.teacher, ())
    assert "teachers" not in alone.student.info


@pytest.mark.slow
def test_page_and_figures_have_every_teacher(config, outcome):
    directory = Path(outcome["page"]).parent
    names = {path.name for path in directory.iterdir()}
    for teacher in ("bidirectional", "forward"):
        assert {f"finetuning-{teacher}.png", f"soft-labels-{teacher}.svg"} <= names
    page = Path(outcome["page"]).read_text()
    for text in (
        "<h3>bidirectional</h3>",
        "<h3>forward</h3>",
        "forward 0.8, bidirectional 0.2",
        "Soft labels, forward",
    ):
        assert text in page
    assert "of the target all that stands before a token" in page


@pytest.mark.slow
def test_students_are_compared_by_all_of_their_teachers(config, outcome):
    uris = [outcome["stages"][f"translate/{arm}"]["path"] for arm in ("mostly", "half", "forward")]
    compared = compare_students(uris, samples=10)
    assert compared.configuration["kd.teacher_weights"] == {"A": [0.8, 0.2], "B": [0.5, 0.5]}
    assert {"teacher/valid/accuracy", "teacher.2/valid/accuracy", "fidelity.2/gold_first"} <= set(compared.metrics)
    assert "teacher.2.direction" in compared.configuration or "teacher.2.steps" in compared.configuration


@pytest.mark.slow
def test_runs_carry_the_teachers_name(config, outcome):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{config.storage}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'small'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs["extract/forward"].data.tags["bertkd.teacher_name"] == "forward"
    assert "bertkd.arm" not in runs["extract/forward"].data.tags
    assert runs["distill/half"].data.tags["bertkd.arm"] == "half"
    assert "bertkd.input.softlabels.2" in runs["distill/half"].data.tags
    assert (
        json.loads(runs["small/mostly"].data.params["kd.teachers"].replace("'", '"')) == ARMS["mostly"]["kd.teachers"]
    )
    assert runs["small"].data.params["teachers.forward.direction"] == "left_to_right"
    assert "teacher.direction" not in runs["small"].data.params


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_study_shares_every_pass(config_path, config, outcome, tmp_path, capsys, jobs):
    study = {
        "name": f"two-{jobs}",
        "base": str(config_path),
        "arms": {
            "half": {},
            "wide": {"kd.teachers": "forward", "kd.topk": 6},
            "control": {"kd.alpha": 0},
        },
        "seeds": [1],
        "overrides": {"storage": str(tmp_path / "store"), "tracking.uri": "none"},
    }
    path = tmp_path / f"two-{jobs}.yaml"
    path.write_text(yaml.safe_dump(study))
    assert main(["study", str(path), "--json", *(["--jobs", jobs] if jobs != "1" else [])]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["stages"]) == {
        *("prepare", "finetune/bidirectional", "extract/bidirectional"),
        *("finetune/forward", "extract/forward", "evaluate/forward"),
        *(f"{stage}/{arm}/1" for arm in study["arms"] for stage in ("distill", "translate")),
    }
    # The forward teacher's pass serves both, as wide as the one asks for; the other's is as wide, being in one arm.
    store = Store(str(tmp_path / "store"))
    names = [name for name in store.directories() if name.startswith("softlabels-")]
    assert [load(store, name).info["k"] for name in names] == [6, 6]
    (half,) = next(arm["seeds"] for arm in result["scores"] if arm["arm"] == "half")
    assert [half["teacher"]["name"], *(of["name"] for of in half["other_teachers"])] == ["bidirectional", "forward"]
    assert main(["study", str(path)]) == 0
    table = capsys.readouterr().out
    assert "half (bidirectional)" in table
    assert "half, wide (forward)" in table


@pytest.mark.slow
def test_every_teacher_that_translates_has_its_scores(tmp_path, capsys):
    """In the table, in --json, and in a study."""
    path = two_teachers(tmp_path, tracking="none")
    tree = yaml.safe_load(path.read_text())
    forward = tree["teachers"]["forward"]
    tree["teachers"] = {"first": forward, "second": {**forward, "steps": 3}}
    tree["arms"] = {"both": {"kd.teachers": {"first": 0.3, "second": 0.7}}, "control": {"kd.alpha": 0}}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    assert main(["run", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    stages = {name: told["stages"][f"evaluate/{name}"]["metrics"] for name in ("first", "second")}
    scores = [(of["arm"], of["valid_bleu"], of["test_bleu"]) for of in told["teachers"]]
    assert scores == [
        (f"BERT teacher {name}", metrics["valid/bleu"], metrics["test/bleu"]) for name, metrics in stages.items()
    ]
    assert main(["run", str(path)]) == 0
    table = capsys.readouterr().out
    assert [name in table for name in ("BERT teacher first", "BERT teacher second")] == [True, True]
    study = {"name": "two", "base": str(path), "arms": tree["arms"], "seeds": [1]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    assert main(["study", str(tmp_path / "study.yaml"), "--json"]) == 0
    (both, control) = json.loads(capsys.readouterr().out)["scores"]
    assert [of["test_bleu"] for of in both["seeds"][0]["teacher_scores"]] == [score for *_, score in scores]
    assert control["seeds"][0]["teacher_scores"] == []
    assert main(["study", str(tmp_path / "study.yaml")]) == 0
    table = capsys.readouterr().out
    assert "both (first)" in table
    assert "both (second)" in table


def test_a_stage_of_a_teacher_needs_its_name(config):
    from bertkd_ray.pipeline.pipeline import Pipeline

    with Pipeline(config) as pipeline, pytest.raises(UserError, match=r"extract: the configuration has the teachers"):
        pipeline.make("extract")
