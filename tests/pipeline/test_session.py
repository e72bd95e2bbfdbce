"""What a session shares: names of artifacts, finished artifacts, a runtime; and what each ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertkd_ray.artifacts import artifact as artifacts
from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.config import Config, load_config
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import STAGES
from bertkd_ray.corpus import prepare
from bertkd_ray.pipeline import session as sessions
from bertkd_ray.pipeline.pipeline import Pipeline
from bertkd_ray.pipeline.session import Session, student_of
from bertkd_ray.tracking.interface import Run, RunStatus, Tracker
from tests.helpers.local_project import QUICK, Project

ARM = "distilled"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def taught(project) -> Artifact:
    """The student of the arm `distilled`."""
    return project.distilled()


def test_the_student_of_an_arm(project, taught):
    control = project.control()
    assert student_of(project.config, ARM, "c.yaml").directory == taught.directory
    assert student_of(project.config, "control", "c.yaml").directory == control.directory


def test_an_arm_that_is_not_there_or_not_finished(project):
    with pytest.raises(UserError, match=r"--arm best: the configuration has the arms distilled, control"):
        student_of(project.config, "best", "c.yaml")
    other = load_config(project.directory / "small.yaml", [*QUICK, "student.steps=3"])
    with pytest.raises(UserError, match=r"c\.yaml: the student of arm control is not finished; run bertkd distill c"):
        student_of(other, "control", "c.yaml")


def test_an_arm_is_named_as_the_stages_name_it(project, taught):
    pending = Session(project.config).pending_of_arm(project.config, ARM)
    made = {"prepare": project.corpus(), "finetune": project.teacher(), "extract": project.labels(), "distill": taught}
    assert list(pending) == [name for name in STAGES if name not in ("decode", "label", "augment", "evaluate")]
    assert {name: pending[name].directory for name in made} == {name: made[name].directory for name in made}
    without_teacher = [name for name, stage in STAGES.items() if stage.needed_by is None]
    assert list(Session(project.config).pending_of_arm(project.config, "control")) == without_teacher


def test_text_is_hashed_once_for_all_arms(project, monkeypatch):
    calls, hashes = [], prepare.source_hashes
    monkeypatch.setattr(prepare, "source_hashes", lambda corpus: calls.append(corpus) or hashes(corpus))
    session = Session(project.config)
    for arm in project.config.arms:
        session.pending_of_arm(project.config, arm)
    assert len(calls) == 1


@pytest.mark.parametrize("stage", STAGES)
def test_an_artifact_depends_on_the_sections_that_are_declared_alone(project, stage):
    """A configuration of nothing else has the same artifact."""
    is_needed = STAGES[stage].is_needed(project.config)
    (project.directory / "more.de").write_text("Ein Satz.\n", encoding="utf-8")
    text = f"corpus.monolingual={{src: {project.directory}/more.de}}"
    needs = [] if is_needed else ["teacher.direction=left_to_right", "kd.sequence=beside", text]
    config = load_config(project.directory / "small.yaml", [*QUICK, *needs])
    # What says that a stage is needed at all is no setting of it.
    declared = config.model_dump(include=STAGES[stage].all_sections() | (set() if is_needed else {"kd"}))
    bare = Config.model_validate({"name": "bare", "storage": config.storage, **declared})
    digests = [Session(each).pending_of_arm(each, ARM)[stage].fingerprint for each in (config, bare)]
    assert digests[0] == digests[1]


def test_an_artifact_is_checked_once(project, taught, monkeypatch):
    calls, find = [], artifacts.find
    monkeypatch.setattr(artifacts, "find", lambda *a, **options: calls.append(a) or find(*a, **options))
    session = Session(project.config)
    pending = session.pending_of_arm(project.config, ARM)
    for _ in range(2):
        assert session.find(pending["distill"]).directory == taught.directory
        assert session.find(pending["translate"]) is None
    assert len(calls) == 3


@pytest.mark.parametrize("uses_runtime", [True, False])
def test_the_end_closes_what_was_opened(project, monkeypatch, uses_runtime):
    class Runtime:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    runtime = Runtime()
    monkeypatch.setattr(sessions, "_runtime", lambda config: runtime)
    with Session(project.config) as session:
        if uses_runtime:
            assert session.runtime is session.runtime is runtime
    assert runtime.closed == uses_runtime


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_what_ends_a_stage_ends_its_run_and_the_pipelines_and_then_the_runtime(
    project, tmp_path, monkeypatch, error, status
):
    class Ended(Run):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def finish(self, status: RunStatus = "FINISHED") -> None:
            ends.append((self.name, status))

    class Experiment(Tracker):
        def run(self, name: str, **options: object) -> Run:
            return Ended(name)

    class Runtime:
        def close(self) -> None:
            ends.append(("runtime", "closed"))

    def make(*arguments: object) -> Artifact:
        raise error

    ends: list[tuple[str, str]] = []
    monkeypatch.setattr(sessions, "open_tracker", lambda uri, experiment: Experiment())
    monkeypatch.setattr(sessions, "_runtime", lambda config: Runtime())
    monkeypatch.setattr(prepare, "make", make)
    config = load_config(project.directory / "small.yaml", [f"storage={tmp_path}"])
    with pytest.raises(error), Pipeline(config) as pipeline:
        pipeline.make("prepare")
    assert ends == [("prepare", status), (config.name, status), ("runtime", "closed")]


def test_nothing_is_written_by_a_session(project, tmp_path):
    config = load_config(project.directory / "small.yaml", [f"storage={tmp_path / 'none'}"])
    with Session(config) as session:
        session.pending_of_arm(config, ARM)
    assert not Path(tmp_path / "none").exists()
