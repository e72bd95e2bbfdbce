"""Which student a user means: a directory, its model directory, a URI, an arm of a configuration; and its lineage."""

from __future__ import annotations

import shutil

import pytest

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.config import load_config
from bertkd_ray.core.errors import UserError
from bertkd_ray.student.lineage import artifact_at, distilled_arm, lineage_of, student_at
from tests.helpers.local_project import Project, translated


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def taught(project) -> Artifact:
    """The student of the arm `distilled`."""
    return project.distilled()


def test_by_directory_model_directory_and_uri(taught):
    found = [student_at(place).directory for place in (taught.uri, f"{taught.uri}/", f"{taught.uri}/model")]
    found += [student_at(f"file://{taught.uri}{end}").directory for end in ("", "/", "/model")]
    assert set(found) == {taught.directory}


def test_what_is_no_student_is_refused(project, taught, tmp_path):
    with pytest.raises(UserError, match=r"is a corpus, not a student; give the directory of a student"):
        student_at(project.corpus().uri)
    for place in (tmp_path, project.store.uri, f"{tmp_path}/nowhere"):
        assert artifact_at(str(place)) is None
        with pytest.raises(UserError, match=r"no finished student is here; give a student artifact's directory"):
            student_at(str(place))


def test_a_damaged_student_is_refused(taught, tmp_path):
    copy = tmp_path / taught.directory
    shutil.copytree(taught.uri, copy)
    weights = copy / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"its content differs from the manifest's checksum; copy the student again"):
        student_at(str(copy))


@pytest.mark.parametrize(
    ("arms", "chosen"),
    [
        ("{control: {kd.alpha: 0}, sharp: {kd.temperature: 1}, soft: {}}", "sharp"),
        ("{one: {kd.alpha: 0}, two: {kd.alpha: 0}}", "one"),
        ("{distilled: {}, control: {kd.alpha: 0}}", "distilled"),
    ],
)
def test_the_arm_that_stands_for_a_configuration(project, arms, chosen):
    assert distilled_arm(load_config(project.directory / "small.yaml", [f"arms={arms}"])) == chosen


def test_the_lineage_of_a_student_with_a_teacher(project, taught):
    lineage = lineage_of(taught)
    assert (lineage.student.directory, lineage.corpus) == (taught.directory, project.corpus())
    assert (lineage.softlabels, lineage.teacher) == (project.labels(), project.teacher())
    assert lineage.translations == ()


def test_the_lineage_of_a_control_and_what_is_gone(project, tmp_path):
    control = project.control()
    translated(project.pending_translation(), project.with_max_rejects(0), project.runtime, project.corpus(), control)
    lineage = lineage_of(control)
    assert (lineage.softlabels, lineage.teacher) == (None, None)
    assert [one.directory for one in lineage.translations] == [project.pending_translation().directory]
    shutil.copytree(control.uri, tmp_path / control.directory)
    alone = lineage_of(student_at(str(tmp_path / control.directory)))
    assert (alone.corpus, alone.translations) == (None, ())
