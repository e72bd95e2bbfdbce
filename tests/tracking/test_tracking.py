from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bertkd_ray.core.errors import UserError
from bertkd_ray.tracking import check_tracking, default_uri, models, open_tracker
from bertkd_ray.tracking.interface import InputArtifact, Run, StudentModel, Tracker
from bertkd_ray.tracking.runs import CHANGED_TAG, KEY_TAG, LOGGED_STEP_TAG, MlflowRun, MlflowTracker
from bertkd_ray.tracking.store import is_own_location
from tests.helpers.services import environment, free_port, mlflow_server


@pytest.fixture(scope="module", autouse=True)
def _databases_are_made(make_database: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bertkd_ray.tracking.store._make_database", make_database)
        yield


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return default_uri(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def tracker(uri: str) -> Any:
    return open_tracker(uri, "tests")


@pytest.fixture(scope="module")
def client(tracker: Any, uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def history(client: Any, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]


def rows(*steps: int, key: str = "train/loss") -> list[Any]:
    # A resumed process logs the same step at another time, which MLflow would keep as a second value.
    rows.clock = getattr(rows, "clock", 0) + 1  # type: ignore[attr-defined]
    return [(step, {key: 1.0 / step}, 1_700_000_000_000 + rows.clock) for step in steps]  # type: ignore[attr-defined]


def test_a_directory_with_a_question_mark_would_end_the_address(tmp_path):
    with pytest.raises(UserError, match=r"tracking.uri: storage .*a\?b has a \?, which would end the path"):
        default_uri(str(tmp_path / "a?b"))


@pytest.mark.parametrize("name", ["mlflow.db", "mlruns"])
def test_a_link_in_a_store_leads_no_run_elsewhere(tmp_path, name):
    (tmp_path / name).symlink_to(tmp_path.parent)
    with pytest.raises(UserError, match=f"tracking.uri: {tmp_path / name} is a link, and runs would go to where it"):
        open_tracker(default_uri(str(tmp_path)), "x")


def test_a_run_is_found_again_by_key_and_parent(tracker: Any, client: Any) -> None:
    pipeline = tracker.run("multi30k", key="pipeline:1")
    child = tracker.run("finetune", key="finetune:f00", parent=pipeline.run_id)
    other = tracker.run("finetune", key="finetune:f00", parent=tracker.run("other", key="pipeline:2").run_id)
    child.finish("KILLED")
    assert client.get_run(child.run_id).info.status == "KILLED"
    again = tracker.run("finetune", key="finetune:f00", parent=pipeline.run_id)

    assert again.run_id == child.run_id != other.run_id
    found = client.get_run(again.run_id)
    assert found.info.status == "RUNNING"
    assert found.info.run_name == "finetune"
    assert found.data.tags["mlflow.parentRunId"] == pipeline.run_id
    assert found.data.tags[KEY_TAG] == "finetune:f00"


@pytest.mark.parametrize("key", ["it's", "both ' and \"", "back\\slash `tick` % é ' or 1=1"])
def test_keys_with_quotes_are_found(tracker: Any, key: str) -> None:
    first = tracker.run("quoted", key=key)
    assert tracker.run("quoted", key=key).run_id == first.run_id
    assert tracker.run("quoted", key=key + "x").run_id != first.run_id


@pytest.mark.parametrize("tag", ["bertkd.storage", "bertkd.artifact", "bertkd.content"])
def test_what_was_made_in_another_storage_has_a_run_and_scores_of_its_own(tracker: Any, client: Any, tag: str) -> None:
    def recorded(origin: str, bleu: float) -> str:
        run = tracker.run("team", key=f"team:{tag}", tags={tag: origin})
        run.log_metrics([(0, {"test_bleu": bleu}, 1)], series="scores")
        return str(run.run_id)

    first, second = recorded("s3://key:secret@b/one", 0.0), recorded("s3://key:secret@b/two", 0.38)
    assert (recorded("s3://key:secret@b/one", 0.0), recorded("s3://key:secret@b/two", 0.38)) == (first, second)
    found = {run_id: client.get_run(run_id).data for run_id in (first, second)}
    assert [(of.tags[tag], of.metrics["test_bleu"]) for of in found.values()] == [
        ("s3://***@b/one", 0.0),
        ("s3://***@b/two", 0.38),
    ]
    # Earlier versions did not say it.
    earlier = tracker.run("earlier", key=f"earlier:{tag}").run_id
    assert tracker.run("earlier", key=f"earlier:{tag}", tags={tag: "/one"}).run_id == earlier
    assert tracker.run("earlier", key=f"earlier:{tag}", tags={tag: "/two"}).run_id != earlier


def test_parameters_never_clash(tracker: Any, client: Any) -> None:
    def run(**params: Any) -> Any:
        return tracker.run("params", key="params:1", params=params)

    run(kd={"alpha": 0.5, "topk": 8}, name="a", corpus=None, splits=["train"], at=Path("/a/b?c=d"), uri="s3://k:s@b/x")
    run_id = run(kd={"alpha": 0.7, "topk": 8}, name="a", added=True).run_id
    data = client.get_run(run_id).data
    assert data.params == {
        "kd.alpha": "0.5",
        "kd.topk": "8",
        "name": "a",
        "corpus": "null",
        "splits": '["train"]',
        "at": "/a/b?c=d",
        "uri": "s3://***@b/x",
        "added": "true",
    }
    assert {key: value for key, value in data.tags.items() if key.startswith(CHANGED_TAG)} == {
        CHANGED_TAG + "kd.alpha": "0.7"
    }


def test_long_values_and_many_parameters(tracker: Any, client: Any) -> None:
    params = {"long": "x" * 20_000} | {f"p{i}": i for i in range(250)}
    run = tracker.run("long", key="long:1", params=params, tags={"note": "y" * 20_000})
    data = client.get_run(run.run_id).data
    assert len(data.params) == 251
    assert len(data.params["long"]) == 6000
    assert data.params["long"].endswith(" … [cut, 20000 characters]")
    assert len(data.tags["note"]) == 8000
    run.log_params(params)
    assert CHANGED_TAG + "long" not in client.get_run(run.run_id).data.tags


def test_no_step_twice_after_a_resume(tracker: Any, client: Any) -> None:
    first = tracker.run("resume", key="resume:1")
    first.log_metrics(rows(10, 20, 30))
    first.log_metrics(rows(20, key="valid/loss"), series="valid")
    second = tracker.run("resume", key="resume:1")
    second.log_metrics(rows(20, 30, 40))
    second.log_metrics(rows(20, 40, key="valid/loss"), series="valid")
    tracker.run("resume", key="resume:1").log_metrics(rows(40, 50))

    assert [step for step, _ in history(client, first.run_id, "train/loss")] == [10, 20, 30, 40, 50]
    assert [step for step, _ in history(client, first.run_id, "valid/loss")] == [20, 40]
    tags = client.get_run(first.run_id).data.tags
    assert tags[LOGGED_STEP_TAG + "train"] == "50"
    assert tags[LOGGED_STEP_TAG + "valid"] == "40"


def test_no_step_twice_when_killed_between_metrics_and_their_tag(tracker: Any, client: Any) -> None:
    first = tracker.run("torn", key="torn:1")
    first.log_metrics(rows(1, 2, 3))
    # What MLflow leaves if the process dies after the metrics' commit and before the tags'.
    client.set_tag(first.run_id, LOGGED_STEP_TAG + "train", "1")
    tracker.run("torn", key="torn:1").log_metrics(rows(1, 2, 3, 4))
    assert [step for step, _ in history(client, first.run_id, "train/loss")] == [1, 2, 3, 4]


def test_many_metrics_are_cut_into_batches_at_whole_steps(tracker: Any, client: Any) -> None:
    run = tracker.run("batches", key="batches:1")
    # Step 400 comes in two rows, as training and validation of one step do.
    lines = [(step, {f"m{i}": float(step) for i in range(7)}, 1_700_000_000_000) for step in range(1, 401)]
    run.log_metrics([*lines, (400, {"valid": math.nan}, 1_700_000_000_001)])
    for key in ("m0", "m6"):
        assert history(client, run.run_id, key) == [(step, float(step)) for step in range(1, 401)]
    (valid,) = history(client, run.run_id, "valid")
    assert valid[0] == 400
    assert math.isnan(valid[1])


LOGGER = """
import sys
from bertkd_ray.tracking import open_tracker
run = open_tracker(sys.argv[1], "tests").run("killed", key="killed:1")
for step in range(1, 100_000):
    run.log_metrics([(step, {"train/loss": 1.0, "train/lr": 2.0}, step)])
    print(step, flush=True)
"""


def test_a_sigkilled_process_is_resumed_while_another_logs(tracker: Any, client: Any, uri: str) -> None:
    run = tracker.run("killed", key="killed:1")
    process = subprocess.Popen(
        [sys.executable, "-c", LOGGER, uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline() == "1\n"
        for step in range(1, 21):
            run.log_metrics(rows(step, key="valid/loss"), series="valid")
        for line in process.stdout:
            if int(line) >= 10:
                break
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.stderr.read() == "", "mlflow and alembic stay silent"

    resumed = tracker.run("killed", key="killed:1")
    assert resumed.run_id == run.run_id
    reached = max(step for step, _ in history(client, run.run_id, "train/lr"))
    resumed.log_metrics([(step, {"train/loss": 1.0, "train/lr": 2.0}, step + 5) for step in range(1, reached + 11)])
    for key in ("train/loss", "train/lr"):
        assert [step for step, _ in history(client, run.run_id, key)] == list(range(1, reached + 11))
    assert [step for step, _ in history(client, run.run_id, "valid/loss")] == list(range(1, 21))


def test_lineage_is_logged_once_as_datasets(tracker: Any, client: Any) -> None:
    corpus = InputArtifact(
        "corpus", "c" * 64, "s3://me:secret@bucket/store/corpus-cc", {"train": 29_000, "valid": 1_014}, "training"
    )
    teacher = InputArtifact("teacher", "abc", "/data/store/teacher-abc")
    for _ in range(2):
        tracker.run("lineage", key="lineage:1").log_inputs([corpus, teacher])
    run_id = tracker.run("lineage", key="lineage:1").run_id
    inputs = {entry.dataset.name: entry for entry in client.get_run(run_id).inputs.dataset_inputs}
    assert len(client.get_run(run_id).inputs.dataset_inputs) == 2
    dataset = inputs["corpus"].dataset
    assert dataset.digest == "c" * 36
    assert dataset.source_type == "s3"
    assert json.loads(dataset.source) == {"uri": "s3://***@bucket/store/corpus-cc"}
    assert json.loads(dataset.profile) == {"fingerprint": "c" * 64, "train": 29_000, "valid": 1_014}
    assert {tag.key: tag.value for tag in inputs["corpus"].tags} == {"mlflow.data.context": "training"}
    assert inputs["teacher"].dataset.source_type == "local"


def test_artifacts_lie_beside_the_store(tracker: Any, client: Any, uri: str, tmp_path: Path) -> None:
    figure = tmp_path / "drawn.png"
    figure.write_bytes(b"png")
    for _ in range(2):
        run = tracker.run("artifacts", key="artifacts:1")
        run.log_artifact(figure, "figures")
        run.log_artifact(figure)
        run.log_text("| arm |", "tables/scores.md")
        run.log_table([{"arm": "kd", "bleu": 36.0}, {"arm": "control", "bleu": None}], "tables/scores.json")
        run.finish()
    info = client.get_run(run.run_id)
    root = Path(info.info.artifact_uri.removeprefix("file://"))
    assert root.is_relative_to(Path(uri.removeprefix("sqlite:///")).parent / "mlruns")
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == [
        "drawn.png",
        "figures/drawn.png",
        "tables/scores.json",
        "tables/scores.md",
    ]
    assert json.loads((root / "tables/scores.json").read_text()) == {
        "columns": ["arm", "bleu"],
        "data": [["kd", 36.0], ["control", None]],
    }
    assert json.loads(info.data.tags["mlflow.loggedArtifacts"]) == [{"path": "tables/scores.json", "type": "table"}]
    assert info.info.status == "FINISHED"


def test_finishing_prints_nothing(tracker: Any, capfd: pytest.CaptureFixture[str]) -> None:
    tracker.run("silent", key="silent:1").finish()
    assert capfd.readouterr() == ("", "")


def test_deleted_experiment_is_refused(tracker: Any, client: Any, uri: str) -> None:
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(UserError, match=r"experiment 'gone' of sqlite:.* is deleted; `mlflow experiments restore"):
        open_tracker(uri, "gone")
    with pytest.raises(UserError, match=r"experiment 'gone' of sqlite:.* is deleted"):
        check_tracking(uri, "gone")
    assert check_tracking(uri, "another") == f"{uri} answers"
    assert client.get_experiment_by_name("another") is None


def test_artifacts_are_written_beside_the_database_alone(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    old, new = tmp_path / "old", tmp_path / "new"
    run = open_tracker(default_uri(str(old)), "small").run("run", key="run:1")
    run.finish()
    shutil.copytree(old, new)
    uri, said = default_uri(str(new)), f"experiment 'small' of .* keeps its artifacts in {old}/mlruns, not beside"
    with pytest.raises(UserError, match=said):
        open_tracker(uri, "small")
    with pytest.raises(UserError, match=said):
        check_tracking(uri, "small")
    open_tracker(uri, "other").run("run", key="run:1").log_text("here", "note.txt")
    # A run of an experiment that lies here, whose own place does not.
    here = open_tracker(default_uri(str(old)), "small")
    with closing(sqlite3.connect(old / "mlflow.db")) as database, database:
        database.execute("update runs set artifact_uri = ?", (f"file://{tmp_path}/elsewhere",))
    again = here.run("run", key="run:1")
    again.log_text("here", "note.txt")
    assert again.run_id != run.run_id
    notes = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("note.txt"))
    assert [note.partition("/")[0] for note in notes] == ["new", "old"]
    assert MlflowClient(uri).get_run(run.run_id).info.run_id == run.run_id


@pytest.mark.parametrize(
    ("location", "is_own"),
    [
        ("mlflow-artifacts:/1/a/artifacts", True),
        ("mlflow-artifacts://server:5000/1", True),
        ("http://server:5000/api/2.0/mlflow-artifacts/artifacts/1", True),
        ("s3://bucket/mlflow", True),
        ("gs://bucket/mlflow", True),
        ("wasbs://container@account.blob.core.windows.net/mlflow", True),
        ("/home/ada/artifacts", False),
        ("./mlruns/1", False),
        ("file:///home/ada/artifacts", False),
        ("FILE:/home/ada/artifacts", False),
        ("runs:/a/b", False),
        ("models:/a/1", False),
        ("mlflow-artifacts://other:5000/1", False),
        ("http://other/1", False),
        ("r2://bucket@other/1", False),
        ("hdfs://other:8020/1", False),
    ],
)
def test_a_tracking_server_chooses_no_place_of_this_machine_and_no_other_host(location: str, is_own: bool) -> None:
    assert is_own_location("http://user:pa55@server:5000", location) == is_own
    assert is_own_location("postgresql://user:pa55@server:5000/mlflow", location)


class Answering:
    """A tracking server's client that says where artifacts are: of its experiment, then of its run and model."""

    def __init__(self, experiment: Path | None, later: Path) -> None:
        kept = f"file://{experiment}" if experiment else "mlflow-artifacts:/1"
        self.experiment = SimpleNamespace(artifact_location=kept, lifecycle_stage="active", experiment_id="1")
        info = SimpleNamespace(run_id="r1", experiment_id="1", artifact_uri=f"file://{later}")
        self.run = SimpleNamespace(info=info, data=SimpleNamespace(params={}, tags={}))
        self.model = SimpleNamespace(model_id="m1", artifact_location=f"file://{later}")

    def __getattr__(self, name: str) -> Any:
        found = {"get_experiment_by_name": self.experiment, "search_runs": [], "search_logged_models": []}
        return lambda *_, **__: found.get(name, self.model if "model" in name else self.run)


def test_nothing_is_written_where_a_tracking_server_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, victim = "http://server:5000", tmp_path / "victim"
    victim.mkdir()
    (victim / "table.md").write_text("mine")
    monkeypatch.setattr("bertkd_ray.tracking.store.connect", lambda _: Answering(victim, victim))
    said = f"experiment 'shared' of {uri} keeps its artifacts in file://{victim}, .* --serve-artifacts, or"
    for opening in (open_tracker, check_tracking):
        with pytest.raises(UserError, match=said):
            opening(uri, "shared")
    monkeypatch.setattr("bertkd_ray.tracking.store.connect", lambda _: Answering(None, victim))
    with pytest.raises(UserError, match=f"^tracking.uri: run r1 of {uri} keeps its artifacts in file://{victim}, "):
        open_tracker(uri, "shared").run("run", key="run:1")
    student = StudentModel("kd", "f00", Path, "", {}, [], {}, {})
    with pytest.raises(UserError, match=f"^tracking.uri: model m1 of {uri} keeps its artifacts in file://{victim}, "):
        models.logged_model(Answering(None, victim), uri, "1", "r1", student)
    assert {path.name: path.read_text() for path in victim.iterdir()} == {"table.md": "mine"}


def test_a_run_writes_where_it_was_first_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_tracker(default_uri(str(tmp_path)), "small").run("run", key="run:1")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("update runs set artifact_uri = ?", (f"file://{tmp_path}/elsewhere",))
    run.log_text("Grüße", "notes/note.txt")
    (note,) = tmp_path.rglob("note.txt")
    assert note.is_relative_to(tmp_path / "mlruns")
    assert (note.parent.name, note.read_bytes()) == ("notes", "Grüße".encode())


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("http://user:pa55@127.0.0.1:9", "cannot use http://***@127.0.0.1:9 ([Errno 111] Connection refused)"),
        ("sqlite:////proc/none/mlflow.db", "cannot use sqlite:////proc/none/mlflow.db ([Errno 2] No such file"),
        ("sqlite:////proc/mlflow.db", "cannot use sqlite:////proc/mlflow.db ((sqlite3.OperationalError) unable to"),
        ("nosuch://u:pa55@host/db", "cannot use nosuch://***@host/db ("),
        ("postgresql+nosuch://u:pa55@host/d", "cannot use postgresql+nosuch://***@host/d (Can't load plugin"),
        ("mysql+pymssql://u:pa55@host/d", "cannot use mysql+pymssql://***@host/d ("),
        ("", "is empty; give sqlite:///FILE"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line_without_the_password(bad: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        open_tracker(bad, "tests")
    message = str(refused.value)
    assert message.startswith(f"tracking.uri: {said}")
    assert message.endswith("none")
    assert "pa55" not in message
    assert "\n" not in message
    assert len(message) < 350


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///:memory:?cache=shared"])
def test_a_database_in_memory_would_keep_nothing(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for opening in (open_tracker, check_tracking):
        with pytest.raises(UserError) as refused:
            opening(uri, "tests")
        shown = uri.replace("=shared", "=***")
        said = f"tracking.uri: {shown} is in memory, so that no run would be kept; name a file: sqlite:///FILE"
        assert str(refused.value) == said
    assert list(tmp_path.iterdir()) == []


def test_a_missing_database_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(UserError, match=r"^tracking\.uri: mysql\+pymysql://\*\*\*@host/d needs the package pymysql"):
        open_tracker("mysql+pymysql://u:pa55@host/d", "tests")


def test_opening_leaves_the_environment_as_it_was(tracker: Any, uri: str) -> None:
    open_tracker(uri, "tests")
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.mark.parametrize("uri", ["none", None])
def test_none_works_without_mlflow(uri: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    tracker = open_tracker(uri, "tests")
    run = tracker.run("a", key="b", parent="", params={"c": 1}, tags={"d": 2})
    run.log_params({"a": 1})
    run.set_tags({"a": 1})
    run.log_metrics(rows(1))
    run.log_artifact(tmp_path / "absent")
    run.log_artifact(tmp_path / "absent", "figures")
    run.log_text("a", "b")
    run.log_table([{"a": 1}], "b.json")
    run.log_inputs([InputArtifact("a", "b", "c")])
    run.finish()
    assert run.run_id == ""
    assert tracker.how_to_open is None


def test_missing_mlflow_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"tracking\.uri: mlflow is not installed; `pip install mlflow` or set"):
        open_tracker("sqlite:///absent.db", "tests")


def test_default_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri("runs") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert default_uri("file:///data/a%20b") == "sqlite:////data/a b/mlflow.db"
    with pytest.raises(UserError, match=r"tracking\.uri: storage s3://\*\*\*@bucket/x is no local directory"):
        default_uri("s3://key:secret@bucket/x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert default_uri("runs") == default_uri("s3://bucket/x") == "http://server:5000"


def test_a_variable_that_names_a_dead_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead)
    with pytest.raises(UserError, match=f"^MLFLOW_TRACKING_URI: cannot use {dead} "):
        open_tracker(dead, "tests")
    with pytest.raises(UserError, match=r"^tracking\.uri: cannot use "):
        open_tracker(f"{dead}/other", "tests")


def test_how_to_open_shows_no_credentials(tracker: Any, uri: str) -> None:
    assert tracker.how_to_open == f"{sys.executable} -m mlflow ui --backend-store-uri {uri}"
    assert MlflowTracker(None, "https://u:p@host/", "7").how_to_open == "https://***@host/#/experiments/7"


def test_metrics_that_are_not_taken_are_kept_and_sent_later(
    tracker: Any, client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bertkd_ray.tracking.runs._RETRY_SECONDS", 0.0)
    run = tracker.run("gone", key="gone")
    run.log_metrics(rows(1, 2))
    real, calls = run._client.log_batch, []

    def gone(*arguments: Any, **named: Any) -> None:
        calls.append(named)
        # The answer to what arrived may be lost, too.
        if len(calls) == 1:
            real(*arguments, **named)
        raise OSError("http://user:pa55word@host does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(run._client, "log_batch", gone)
        run.log_metrics(rows(3, 4))
        run.log_metrics(rows(4, key="valid/loss"), series="valid")
        run.log_metrics(rows(5))
        with pytest.raises(UserError, match=r"^tracking\.uri: cannot use .* does not answer"):
            run.finish()
    assert len(calls) > 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("tracking  metrics are kept until sqlite:///")
    assert said[0].endswith("takes them again: http://***@host does not answer")
    run.log_metrics(rows(6))
    run.finish()
    assert capsys.readouterr().err.splitlines() == ["tracking  metrics are sent again, those that were kept too"]
    assert [step for step, _ in history(client, run.run_id, "train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in history(client, run.run_id, "valid/loss")] == [4]


@pytest.mark.slow
def test_a_tracking_server_that_is_gone_for_a_while_costs_nothing(tmp_path: Path, capsys: Any) -> None:
    port = free_port()
    server = partial(mlflow_server, f"sqlite:///{tmp_path}/db", str(tmp_path / "artifacts"), environment(), port=port)
    with server():
        tracker = open_tracker(f"http://user:pa55word@127.0.0.1:{port}", "tests")
        run = tracker.run("training", key="training")
        run.log_metrics(rows(1))
    capsys.readouterr()
    started = time.monotonic()
    for step in range(2, 50):
        run.log_metrics(rows(step))
    assert time.monotonic() - started < 30
    err = capsys.readouterr().err
    assert err.count("metrics are kept until") == 1
    assert "pa55word" not in err
    assert "Traceback" not in err
    with pytest.raises(UserError, match=r"tracking\.uri: cannot use http://\*\*\*@127"):
        tracker.run("the next stage", key="next")
    with server() as url:
        run.finish()
        from mlflow import MlflowClient

        assert [step for step, _ in history(MlflowClient(url), run.run_id, "train/loss")] == [*range(1, 50)]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_a_store_whose_maker_was_killed_can_be_used(tmp_path, seconds):
    """mlflow makes its tables one by one, and cannot go on with half of them."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    code = "import sys; from bertkd_ray.tracking import open_tracker; open_tracker(sys.argv[1], 'tests')"
    process = subprocess.Popen([sys.executable, "-c", code, uri])
    while not list(tmp_path.iterdir()):
        assert process.poll() is None
        time.sleep(0.001)
    time.sleep(seconds)
    process.kill()
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    open_tracker(uri, "tests").run("one", key="one").finish()
    assert (tmp_path / "mlflow.db").exists()


def test_an_empty_file_that_sqlite_has_left_is_a_store_not_yet_made(tmp_path):
    (tmp_path / "mlflow.db").touch()
    open_tracker(f"sqlite:///{tmp_path}/mlflow.db", "tests").run("one", key="one").finish()
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_the_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("create table notes (text)")
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"notes.db is another program's database \(its tables: notes\), .* name a new"):
        open_tracker(f"sqlite:///{file}", "tests")
    assert file.read_bytes() == before


def test_two_processes_that_enter_the_same_input_at_once_both_have_it(
    uri: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One enters its row between the other's look and insert, which is what the database refuses.
    artifact = InputArtifact("corpus", "0123456789abcdef", "/a/corpus")
    ours = open_tracker(uri, "race").run("ours", key="ours")
    theirs = open_tracker(uri, "race").run("theirs", key="theirs")
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    real = SqlAlchemyStore.log_inputs
    calls: list[str] = []

    def raced(self: Any, run_id: str, *arguments: Any, **named: Any) -> Any:
        calls.append(run_id)
        if len(calls) == 1:
            theirs.log_inputs([artifact])
            raise RuntimeError("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id, …")
        return real(self, run_id, *arguments, **named)

    monkeypatch.setattr(SqlAlchemyStore, "log_inputs", raced)
    ours.log_inputs([artifact])
    assert calls == [ours.run_id, theirs.run_id, ours.run_id]
    for run in (ours, theirs):
        (found,) = client.get_run(run.run_id).inputs.dataset_inputs
        assert found.dataset.digest == "0123456789abcdef"


@pytest.mark.parametrize(("base", "of_mlflow"), [(Run, MlflowRun), (Tracker, MlflowTracker)])
def test_nothing_is_left_to_the_classes_that_log_nothing(base: type, of_mlflow: type) -> None:
    assert {name for name in vars(base) if not name.startswith("_")} <= set(vars(of_mlflow))
