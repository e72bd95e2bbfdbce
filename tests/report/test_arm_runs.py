"""The runs of a pipeline's arms in MLflow, made by the whole pipeline in this process."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.cli import main
from tests.helpers.local_project import QUICK, InProcessRuntime
from tests.helpers.small_config import write_config

pytestmark = pytest.mark.slow

SCORES = {"valid_bleu", "test_bleu", "legacy_bleu", "chrf", "parameters", "seconds"}
SCORES |= {"valid_perplexity", "valid_accuracy", "length_ratio", "sentences_per_second"}
CURVES = {"valid/nll", "valid/perplexity", "valid/accuracy", "valid/bleu"}


class Session(InProcessRuntime):
    """The runtime of a pipeline."""

    def __init__(self, config: object) -> None:
        super().__init__()

    def close(self) -> None:
        """There is nothing to close."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("arms")
    write_config(directory)
    return directory


Bertkd = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bertkd() -> Bertkd:
    """`bertkd ARGUMENTS` in this process: exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.setattr("bertkd_ray.execution.ray.session.RayRuntime", Session)
            code = main(list(arguments))
        return code, out.getvalue(), err.getvalue()

    return call


@pytest.fixture(scope="module")
def run(project: Path, bertkd: Bertkd) -> Callable[..., str]:
    """`bertkd run small.yaml OVERRIDES`; what it said."""

    def call(*overrides: str) -> str:
        code, _, err = bertkd("run", str(project / "small.yaml"), *QUICK, *overrides)
        assert code == 0
        return err

    return call


@pytest.fixture(scope="module")
def said(run: Callable[..., str]) -> str:
    return run("tracking.registered_model=small-students")


@pytest.fixture(scope="module")
def client(project: Path, said: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{project / 'artifacts' / 'mlflow.db'}")


def runs_of(client: Any, kind: str) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("small").experiment_id
    return {run.info.run_name: run for run in client.search_runs([experiment], f"tags.`bertkd.kind` = '{kind}'")}


def test_two_arms_have_the_same_keys_and_their_parameters_say_how_they_differ(client: Any) -> None:
    arms = runs_of(client, "arm")
    assert set(arms) == {"small/distilled", "small/control"}
    distilled, control = arms["small/distilled"], arms["small/control"]
    assert set(distilled.data.metrics) == SCORES | CURVES | {"delta", "p", "valid/kl"}
    # The others are compared with the control.
    assert set(control.data.metrics) == SCORES | CURVES
    differing = {key for key, value in distilled.data.params.items() if control.data.params[key] != value}
    assert differing == {"kd.alpha"}
    for run in arms.values():
        curve = client.get_metric_history(run.info.run_id, "valid/bleu")
        assert [(metric.step, metric.value) for metric in curve] == [(2, run.data.metrics["valid_bleu"])]


def test_the_tags_find_an_arm_and_what_it_has_made(client: Any, project: Path) -> None:
    for arm in ("distilled", "control"):
        tags = runs_of(client, "arm")[f"small/{arm}"].data.tags
        assert (tags["bertkd.pipeline"], tags["bertkd.arm"]) == ("small", arm)
        assert tags["mlflow.parentRunId"] == runs_of(client, "pipeline")["small"].info.run_id
        made = Path(tags["bertkd.artifact"])
        assert made == project / "artifacts" / f"translation-{tags['bertkd.translation']}"
        inputs = json.loads((made / "manifest.json").read_text())["inputs"]
        assert inputs == {"corpus": tags["bertkd.corpus"], "student": tags["bertkd.student"]}


def test_every_student_is_a_model_and_the_best_is_champion(client: Any, said: str) -> None:
    arms = runs_of(client, "arm")
    for run in arms.values():
        (output,) = run.outputs.model_outputs
        model = client.get_logged_model(output.model_id)
        assert model.name == run.data.tags["bertkd.arm"]
        assert model.tags["bertkd.languages"] == "de-en"
    versions = client.search_model_versions("name = 'small-students'")
    assert {version.tags["bertkd.arm"] for version in versions} == {"distilled", "control"}
    champion = client.get_model_version_by_alias("small-students", "champion")
    best = max(run.data.metrics["valid_bleu"] for run in arms.values())
    assert float(champion.tags["bertkd.score.valid_bleu"]) == best
    lines = [line for line in said.splitlines() if line.startswith("register")]
    assert len(lines) == 2
    assert "registered as version 1 of small-students and its first champion" in lines[0]


def test_a_second_run_adds_nothing(client: Any, run: Callable[..., str]) -> None:
    def everything() -> Any:
        found = [*runs_of(client, "arm").values(), *runs_of(client, "pipeline").values()]
        experiment = client.get_experiment_by_name("small").experiment_id
        histories = [
            len(client.get_metric_history(one.info.run_id, key)) for one in found for key in sorted(one.data.metrics)
        ]
        models = sorted(model.model_id for model in client.search_logged_models([experiment]))
        versions = sorted(int(one.version) for one in client.search_model_versions("name = 'small-students'"))
        return sorted(one.info.run_id for one in found), histories, models, versions

    before = everything()
    said = run("tracking.registered_model=small-students")
    assert everything() == before
    assert "distilled: is version 1 of small-students" in said


def test_a_control_that_was_cached_has_a_run_below_the_new_pipeline_too(client: Any, run: Callable[..., str]) -> None:
    before = runs_of(client, "arm")["small/control"]
    run("kd.temperature=5")
    experiment = client.get_experiment_by_name("small").experiment_id
    controls = client.search_runs([experiment], "attributes.run_name = 'small/control'")
    assert len(controls) == 2
    assert len({one.data.tags["mlflow.parentRunId"] for one in controls}) == 2
    assert {one.data.tags["bertkd.student"] for one in controls} == {before.data.tags["bertkd.student"]}
    assert {one.outputs.model_outputs[0].model_id for one in controls} == {before.outputs.model_outputs[0].model_id}


def test_compare_takes_the_names(project: Path, bertkd: Bertkd, client: Any) -> None:
    storage = str(project / "artifacts")
    ids = [run.info.run_id for run in runs_of(client, "arm").values()]
    code, out, _ = bertkd("compare", ids[0][:8], "--storage", storage, "--json", ids[1])
    assert code == 0
    tree = json.loads(out)
    assert [side["run_id"] for side in tree["runs"].values()] == ids
    code, out, err = bertkd("compare", "small", "small/distilled", "--storage", storage)
    assert (code, out) == (2, "")
    newest, refused = err.splitlines()
    assert newest.startswith("small: of its 2 runs the newest is taken; for another give its id: small (")
    assert "small: is a pipeline; give the runs of its arms" in refused
    code, out, err = bertkd("compare", *ids, "--sentences", "-1")
    assert (code, out, err) == (2, "", "bertkd: error: --sentences -1: give 0 or more\n")


def test_models_are_not_logged_where_they_are_not_wanted(run: Callable[..., str], client: Any) -> None:
    run("student.seed=7", "tracking.log_model=false", "tracking.experiment=none-logged")
    experiment = client.get_experiment_by_name("none-logged").experiment_id
    assert len(client.search_runs([experiment], "tags.`bertkd.kind` = 'arm'")) == 2
    assert client.search_logged_models([experiment]) == []


def test_without_tracking_all_is_the_same(run: Callable[..., str], client: Any) -> None:
    said = run("tracking=none")
    assert "register" not in said


def test_the_same_configuration_in_another_storage_has_runs_of_its_own(
    client: Any, project: Path, run: Callable[..., str], tmp_path: Path
) -> None:
    before = {one.info.run_id for kind in ("pipeline", "arm") for one in runs_of(client, kind).values()}
    store, database = tmp_path / "store", project / "artifacts" / "mlflow.db"
    shutil.copytree(project / "artifacts", store, ignore=shutil.ignore_patterns("report-*", ".recorded", "ml*"))
    run(f"storage={store}", f"tracking.uri=sqlite:///{database}")
    arms = client.search_runs(
        [client.get_experiment_by_name("small").experiment_id], f"tags.`bertkd.artifact` LIKE '{store}/translation-%'"
    )
    assert {one.data.tags["bertkd.kind"] for one in arms} == {"arm"}
    assert {one.info.run_name for one in arms} == {"small/distilled", "small/control"}
    assert not before & {one.info.run_id for one in arms}
    (parent,) = {one.data.tags["mlflow.parentRunId"] for one in arms}
    assert client.get_run(parent).data.tags["bertkd.storage"] == str(store)
    assert parent not in before
    for one in arms:
        student = store / f"student-{one.data.tags['bertkd.student']}"
        metrics = json.loads((student / "manifest.json").read_text())["metrics"]
        assert one.data.metrics["valid_perplexity"] == metrics["valid/perplexity"]
