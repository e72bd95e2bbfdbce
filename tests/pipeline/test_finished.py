"""`bertkd report` as a user meets it, on a pipeline of two steps a stage made in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bertkd_ray.cli import main
from bertkd_ray.execution.ray.session import RayRuntime
from bertkd_ray.pipeline.session import Session
from tests.helpers.local_project import QUICK, InProcessRuntime
from tests.helpers.small_config import write_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A finished store beside its configuration, tracked in MLflow."""
    directory = tmp_path_factory.mktemp("finished")
    config = write_config(directory)
    with pytest.MonkeyPatch.context() as patch:
        runtime = InProcessRuntime()
        runtime.close = lambda: None  # type: ignore[attr-defined]
        patch.setattr(Session, "runtime", runtime)
        assert main(["run", str(config), *QUICK]) == 0
    return directory


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch):
    monkeypatch.setattr(RayRuntime, "start", lambda self: pytest.fail("a report started Ray"))


def page_of(directory: Path) -> Path:
    (found,) = directory.glob("artifacts/report-*/report.html")
    return found


def test_a_run_writes_the_page_beside_the_figures_and_into_its_run(project):
    from mlflow import MlflowClient

    page = page_of(project)
    assert {"finetuning.png", "table.md", "report.html"} <= {path.name for path in page.parent.iterdir()}
    client = MlflowClient(f"sqlite:///{project / 'artifacts' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`bertkd.kind` = 'pipeline'")
    assert "report.html" in {item.path for item in client.list_artifacts(run.info.run_id)}
    html = page.read_text(encoding="utf-8")
    assert run.info.run_id in html
    assert f"bertkd run {project}/small.yaml teacher.steps=2" in html


def test_the_report_is_the_page_that_the_run_wrote(project, tmp_path, capsys):
    before = page_of(project).read_bytes()
    output = tmp_path / "mine.html"
    for _ in range(2):  # the second time in place of the page itself
        assert main(["report", str(project / "small.yaml"), *QUICK, "--output", str(output)]) == 0
    printed, logged = capsys.readouterr()
    assert printed.startswith(f"Page: {output}\nRuns: ")
    assert "not finished" not in logged
    assert output.read_bytes() == page_of(project).read_bytes() == before


def test_what_is_not_finished_is_named_and_the_rest_is_shown(project, tmp_path, capsys):
    store = tmp_path / "store"
    shutil.copytree(project / "artifacts", store)
    config = [str(project / "small.yaml"), *QUICK, f"storage={store}", "tracking=none"]
    assert main(["run", *config, "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    shutil.rmtree(stages["extract"]["path"])
    shutil.rmtree(stages["translate/control"]["path"])
    assert main(["report", *config, "--json"]) == 0
    out, logged = capsys.readouterr()
    told = json.loads(out)
    given = " ".join(config)
    assert told["unfinished"] == {
        "extract": f"bertkd extract {given}",
        # Whether its student is there cannot be told without the soft labels.
        "distill/distilled": f"bertkd distill {given} --arm distilled",
        "translate/distilled": f"bertkd translate {given} --arm distilled",
        "translate/control": f"bertkd translate {given} --arm control",
    }
    assert set(told["stages"]) == {"prepare", "finetune", "distill/control"}
    assert told["scores"] == []
    assert f"extract  not finished; bertkd extract {given} makes it" in logged.splitlines()
    html = Path(told["page"]).read_text(encoding="utf-8")
    assert "extract, distill/distilled, translate/distilled, translate/control." in html
    # Nothing was made.
    assert not Path(stages["extract"]["path"]).exists()


def test_a_store_with_nothing_is_refused_in_one_line(project, tmp_path, capsys):
    config = str(project / "small.yaml")
    assert main(["report", config, f"storage={tmp_path / 'empty'}", "tracking=none"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [
        f"bertkd: error: {tmp_path}/empty: nothing of this configuration is finished; "
        f"run bertkd run {config} storage={tmp_path}/empty tracking=none"
    ]


def test_no_database_is_made_where_nothing_is_finished(project, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["report", str(project / "small.yaml"), f"storage={tmp_path / 'empty'}"]) == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_output_that_cannot_be_written_is_refused_in_one_line(project, tmp_path, capsys):
    output = tmp_path / "absent" / "page.html"
    config = [str(project / "small.yaml"), *QUICK, "tracking=none"]
    assert main(["report", *config, "--output", str(output)]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        f"bertkd: error: --output {output}: No such file or directory; give a file that can be written"
    )


def test_an_output_that_is_another_file_is_refused_in_one_line(project, tmp_path, capsys):
    notes, link = tmp_path / "notes.txt", tmp_path / "link"
    notes.write_text("dear")
    link.symlink_to(notes)
    config = project / "small.yaml"
    before = config.read_bytes()
    for output in (notes, link, config, tmp_path):
        assert main(["report", str(config), *QUICK, "tracking=none", "--output", str(output)]) == 2
        assert capsys.readouterr().err.strip().splitlines()[-1] == (
            f"bertkd: error: --output {output}: exists and is no page of this command; give another file"
        )
    assert (notes.read_text(), config.read_bytes(), sorted(tmp_path.iterdir())) == ("dear", before, [link, notes])


def test_an_arm_may_be_called_what_mlflow_refuses_for_a_model(project, capsys):
    from mlflow import MlflowClient

    arms = "arms={alpha0.3: {kd.alpha: 0.3}, control: {kd.alpha: 0}}"
    assert main(["run", str(project / "small.yaml"), *QUICK, arms, "runtime=local"]) == 0
    out, err = capsys.readouterr()
    assert "alpha0.3" in out
    assert "warning" not in err
    client = MlflowClient(f"sqlite:///{project / 'artifacts' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    models = {model.tags["bertkd.arm"]: model.name for model in client.search_logged_models([experiment.experiment_id])}
    assert models["alpha0.3"] == "alpha0-3"


@pytest.mark.parametrize("method", ["log_model", "log_metrics", "log_artifact", "set_tags", "finish"])
def test_results_are_written_whatever_tracking_does(project, tmp_path, capsys, monkeypatch, method):
    from bertkd_ray.tracking.runs import MlflowRun

    store = tmp_path / "store"
    shutil.copytree(project / "artifacts", store, ignore=shutil.ignore_patterns("report-*", ".recorded", "ml*"))
    command = ["run", str(project / "small.yaml"), *QUICK, f"storage={store}"]

    def refuse(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("no,\nsays MLflow")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowRun, method, refuse)
        assert main(command) == 0
    out, err = capsys.readouterr()
    assert "distilled" in out
    assert "Traceback" not in err
    assert "warning: no, says MLflow; what is in the storage stays, MLflow lacks some of it" in err
    (report,) = store.glob("report-*")
    assert {"finetuning.png", "table.md", "report.html", "scores.json"} <= {path.name for path in report.iterdir()}
    # The same command records what was not.
    assert main(command) == 0
    assert "warning" not in capsys.readouterr().err
    assert (store / ".recorded" / report.name).is_file()
