"""A training that goes on from a finished student: its weights, its fingerprint, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.cli import main
from bertkd_ray.config import load_config
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.pipeline.pipeline import Pipeline
from bertkd_ray.student import distill, start
from bertkd_ray.student.distill import MODEL
from bertkd_ray.training.batch_plan import BatchPlan, RowLengths, Streams
from tests.helpers.local_project import Project
from tests.helpers.small_config import write_config

PLAIN = ["student.dropout=0", "student.attention_dropout=0", "student.label_smoothing=0", "student.micro_batches=1"]
NEXT = [*PLAIN, "student.steps=1", "student.eval_every=1", "student.peak_lr=1.0e-2", "student.warmup_steps=10"]
STILL = ["student.peak_lr=1.0e-30", "student.steps=1", "student.eval_every=1"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def first(project: Project) -> Artifact:
    return project.control()


def weights_of(student: Artifact) -> dict[str, torch.Tensor]:
    return load_file(Path(student.path(MODEL)) / "model.safetensors")


def fingerprint_of(project: Project, *overrides: str) -> str:
    config = load_config(project.directory / "small.yaml", list(overrides)).arm_configs()["control"]
    return distill.pending_artifact(config, project.store, {"corpus": project.corpus().fingerprint}).fingerprint


# --- the training ----------------------------------------------------------------------------------------------------


def test_the_weights_are_the_starts(project: Project, first: Artifact, tmp_path: Path) -> None:
    still = project.variant(tmp_path, f"student.start={first.uri}", *STILL).control()
    found, expected = weights_of(still), weights_of(first)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert still.fingerprint != first.fingerprint
    assert still.info["start"] == first.fingerprint
    # Nothing is left of what the workers were given.
    assert still.store.files("work") == []


def first_batch(project: Project) -> tuple[Ragged, Ragged]:
    """The pairs of the first update, as the batch plan has them."""
    groups, student = RowGroups(project.corpus(), "train/", ["src_ids", "tgt_ids"]), project.config.student

    def lengths(rows) -> RowLengths:
        src, tgt = (Ragged.from_arrow(rows[name]).lengths for name in ("src_ids", "tgt_ids"))
        return RowLengths(src + tgt, np.maximum(src, tgt) + 1)

    plan = BatchPlan(groups.rows, 1, project.config.student_seed)
    streams = Streams(plan, budget=student.batch_tokens, read=groups.read, lengths=lengths)
    (micro,) = streams.step()
    streams.close()
    return Ragged.from_arrow(micro.rows["src_ids"]), Ragged.from_arrow(micro.rows["tgt_ids"])


def test_the_first_update_is_that_of_fresh_adam_from_the_starts_weights(
    project: Project, first: Artifact, tmp_path: Path
) -> None:
    """Against transformers' loss of each pair and Adam's first step, written out."""
    updated = project.variant(tmp_path, f"student.start={first.uri}", *NEXT).control()
    model = AutoModelForSeq2SeqLM.from_pretrained(first.path(MODEL)).eval()
    src, tgt = first_batch(project)
    total = 0.0
    for row in range(len(src)):
        tokens = [*tgt.row(row).tolist(), 3]
        logits = model(
            input_ids=torch.tensor([[*src.row(row).tolist(), 3]]), decoder_input_ids=torch.tensor([[2, *tokens[:-1]]])
        ).logits[0]
        total = total - logits.log_softmax(-1)[range(len(tokens)), tokens].sum()
    (total / (len(tgt.values) + len(tgt))).backward()
    rate, found = 1e-2 / 10, weights_of(updated)
    for name, weight in model.named_parameters():
        expected = weight - rate * weight.grad / (weight.grad.abs() + 1e-9)
        # Where a gradient is 0 but for rounding, its sign says nothing.
        is_sure = weight.grad.abs() > 1e-6
        assert torch.allclose(found[name][is_sure], expected[is_sure], atol=2e-2 * rate), name


def test_another_corpus_with_the_same_vocabulary(project: Project, first: Artifact, tmp_path: Path) -> None:
    # Shorter sentences of the same text, whose vocabulary is counted before they are dropped.
    shorter = project.variant(tmp_path, f"student.start={first.uri}", "corpus.max_side_tokens=14", *STILL)
    assert shorter.corpus().info["splits"]["train"]["pairs"] < project.corpus().info["splits"]["train"]["pairs"]
    assert shorter.control().info["start"] == first.fingerprint


def test_a_student_of_soft_labels_may_start_from_a_control(project: Project, first: Artifact, tmp_path: Path) -> None:
    student = project.variant(tmp_path, f"student.start={first.uri}/model", "student.steps=2").distilled()
    assert {"corpus", "softlabels", "start"} == set(student.inputs)


def test_a_cut_off_training_goes_on(project: Project, first: Artifact, tmp_path: Path, monkeypatch) -> None:
    overrides = [f"student.start={first.uri}", "student.steps=4", "student.eval_every=2"]
    whole = project.variant(tmp_path / "whole", *overrides).control()
    parts = project.variant(tmp_path / "parts", *overrides, "checkpoint_every=1")
    save = distill.saving.save_trained
    monkeypatch.setattr(distill.saving, "save_trained", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        parts.control()
    monkeypatch.setattr(distill.saving, "save_trained", save)
    resumed = parts.control()
    assert all(torch.equal(tensor, weights_of(whole)[name]) for name, tensor in weights_of(resumed).items())


# --- the fingerprint -------------------------------------------------------------------------------------------------


def test_the_weights_are_in_the_fingerprint_and_the_path_is_not(
    project: Project, first: Artifact, tmp_path: Path
) -> None:
    assert fingerprint_of(project, "student.start=null") == fingerprint_of(project)
    shutil.copytree(first.path(MODEL), tmp_path / "model")
    shutil.copytree(first.uri, tmp_path / first.directory)
    places = [first.uri, f"{first.uri}/model", f"file://{first.uri}", tmp_path / "model", tmp_path / first.directory]
    places.append(f"file://{tmp_path}/model")
    found = {fingerprint_of(project, f"student.start={place}") for place in places}
    assert len(found) == 1
    assert found != {fingerprint_of(project)}
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.shared.weight"][5, 5] += 1e-3
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    assert fingerprint_of(project, f"student.start={tmp_path / 'model'}") not in found


# --- what is refused -------------------------------------------------------------------------------------------------


def refusal(project: Project, *overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        project.variant(project.directory / "refused", *overrides).control()
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith("student.start: ")
    return message


def test_another_shape_names_every_key(project: Project, first: Artifact) -> None:
    message = refusal(project, f"student.start={first.uri}", "student.width=64", "student.decoder_layers=2")
    assert message == (
        f"student.start: {first.uri} has another shape: student.decoder_layers is 2 and must be 1, "
        "student.width is 64 and must be 32"
    )
    assert "student.heads is 4 and must be 2" in refusal(project, f"student.start={first.uri}", "student.heads=4")


def test_another_vocabulary(project: Project, first: Artifact) -> None:
    message = refusal(project, f"student.start={first.uri}", "corpus.max_vocabulary=340")
    size = project.corpus().info["vocabulary"]
    assert re.fullmatch(
        rf"student.start: the vocabulary of {re.escape(first.uri)} \({size} tokens\) is not that of corpus-\w+ \(\d+ "
        r"tokens\); token \d+ is \S+ there and \S+ here; give a student of a corpus with the same vocabulary",
        message,
    )


def test_what_is_no_student(project: Project, first: Artifact, tmp_path: Path) -> None:
    assert refusal(project, "student.start=/no/such") == (
        "student.start: /no/such: no student is here; give a student artifact or a student's model directory"
    )
    assert "no student is here" in refusal(project, f"student.start=file://{tmp_path}/none")
    assert "is a corpus, not a student" in refusal(project, f"student.start={project.corpus().uri}")
    assert "is no student of this package" in refusal(project, f"student.start={project.bert}")
    (tmp_path / "empty").mkdir()
    assert "is no student of this package" in refusal(project, f"student.start={tmp_path / 'empty'}")
    shutil.copytree(first.path(MODEL), tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    assert "tokenizer.json: no such file" in refusal(project, f"student.start={tmp_path / 'bare'}")
    copy = tmp_path / first.directory
    shutil.copytree(first.uri, copy)
    (copy / "model" / "model.safetensors").write_bytes(b"damaged")
    assert "model.safetensors: 7 bytes, the manifest says" in refusal(project, f"student.start={copy}")


def test_weights_that_change_while_they_are_read(project: Project, first: Artifact, monkeypatch) -> None:
    monkeypatch.setattr(start, "start_hash", lambda student: "0" * 64)
    monkeypatch.setattr(distill, "start_hash", start.start_hash)
    assert "changed while it was read; run the command again" in refusal(project, f"student.start={first.uri}")


def test_a_run_refuses_a_start_before_it_computes(tmp_path: Path, capsys) -> None:
    path = write_config(tmp_path, runtime="local", tracking="none")
    for command in ("run", "validate", "distill"):
        assert main([command, str(path), "student.start=/no/such"]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("bertkd: error: student.start: /no/such: no student is here")
    assert list((tmp_path / "artifacts").glob("*-*")) == []


# --- lineage ---------------------------------------------------------------------------------------------------------


def test_the_run_names_the_start(tmp_path: Path, capsys) -> None:
    database = f"sqlite:///{tmp_path}/mlflow.db"
    arms = {"control": {"kd.alpha": 0}}
    quick = ["student.steps=2", "student.eval_every=2", f"tracking.uri={database}"]
    path = write_config(tmp_path, runtime="local", arms=arms)
    with Pipeline(load_config(path, quick)) as pipeline:
        first = pipeline.make("distill", "control")
    with Pipeline(load_config(path, [*quick, f"student.start={first.uri}"])) as pipeline:
        second = pipeline.make("distill", "control")
    runs = mlflow.MlflowClient(database).search_runs(
        ["1"], f"tags.`bertkd.fingerprint` = '{second.fingerprint}' and tags.`bertkd.kind` = 'stage'"
    )
    (run,) = runs
    assert run.data.tags["bertkd.input.start"] == second.inputs["start"]
    inputs = {(entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs}
    assert ("student", first.fingerprint) in {(name.split("-")[0], digest) for name, digest in inputs}
    assert main(["validate", str(path), *quick, f"student.start={first.uri}"]) == 0
    assert f"start      control: {first.uri} has the student's shape" in capsys.readouterr().out


@pytest.mark.slow
def test_a_student_of_an_earlier_version(tmp_path: Path, monkeypatch) -> None:
    earlier = next((Path(__file__).parents[1] / "earlier_stores").iterdir())
    with tarfile.open(earlier / "store.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    recorded = json.loads((earlier / "fingerprints.json").read_text(encoding="utf-8"))["stores"]
    name = next(iter(recorded))
    arm = next(key.partition("/")[2] for key in recorded[name]["fingerprints"] if key.startswith("distill/"))
    digest = recorded[name]["fingerprints"][f"distill/{arm}"]
    overrides = [
        f"storage={tmp_path / 'artifacts'}",
        "tracking=none",
        "runtime=local",
        *STILL,
        "student.warmup_steps=1",
    ]
    with Pipeline(load_config(earlier / name, [*overrides, f"student.start=artifacts/student-{digest}"])) as pipeline:
        student = pipeline.make("distill", arm)
    before = load_file(tmp_path / "artifacts" / f"student-{digest}" / "model" / "model.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(student).items())


@pytest.mark.slow
@pytest.mark.ray
def test_on_ray_the_workers_get_the_weights_from_the_store(tmp_path: Path, ray_session) -> None:
    path = write_config(tmp_path, tracking="none", arms={"control": {"kd.alpha": 0}}, workers=2)
    quick = ["student.steps=2", "student.eval_every=2"]
    with Pipeline(load_config(path, quick)) as pipeline:
        first = pipeline.make("distill", "control")
    # Where no worker looks.
    shutil.move(first.path(MODEL), tmp_path / "elsewhere")
    with Pipeline(load_config(path, [*STILL, f"student.start={tmp_path / 'elsewhere'}"])) as pipeline:
        still = pipeline.make("distill", "control")
    expected = load_file(tmp_path / "elsewhere" / "model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(still).items())
