"""Runs found by name, id and the beginning of an id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.core.errors import UserError
from bertkd_ray.tracking import default_uri, open_tracker
from bertkd_ray.tracking.interface import Run
from bertkd_ray.tracking.search import RunFinder


class Runs(dict[str, Run]):
    uri: str


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two pipelines of the same name in two experiments, and a few runs below them."""
    found = Runs()
    found.uri = default_uri(str(tmp_path_factory.mktemp("store")))
    for experiment in ("one", "two"):
        tracker = open_tracker(found.uri, experiment)
        parent = tracker.run("demo", key="p", tags={"bertkd.kind": "pipeline"})
        found[f"{experiment}:demo"] = parent
        for arm in ("control", experiment):
            tags = {"bertkd.kind": "arm", "bertkd.artifact": f"/store/translation-{experiment}-{arm}"}
            found[f"{experiment}:{arm}"] = tracker.run(f"demo/{arm}", key=arm, parent=parent.run_id, tags=tags)
    found["foreign"] = open_tracker(found.uri, "two").run("demo-notes", key="n")
    return found


@pytest.fixture(scope="module")
def finder(runs: Runs) -> RunFinder:
    return RunFinder(runs.uri)


def test_a_name_an_id_and_its_beginning(runs: Runs, finder: RunFinder) -> None:
    run_id = runs["one:one"].run_id
    for text in ("demo/one", run_id, run_id[:8], run_id[:6]):
        found = finder.find(text)
        assert (found.run_id, found.name, found.kind) == (run_id, "demo/one", "arm")
        assert found.artifact == "/store/translation-one-one"
    assert finder.find(runs["two:control"].run_id).artifact == "/store/translation-two-control"


def storage_error(finder: RunFinder, text: str) -> str:
    with pytest.raises(UserError) as refused:
        finder.find(text)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_of_several_runs_of_a_name_the_newest_is_taken(
    runs: Runs, finder: RunFinder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finder.find("demo/control").run_id == runs["two:control"].run_id
    said = capsys.readouterr().err
    newest, other = (f"demo/control ({runs[f'{experiment}:control'].run_id[:8]}, " for experiment in ("two", "one"))
    assert said.startswith(f"demo/control: of its 2 runs the newest is taken; for another give its id: {newest}")
    assert other in said


def test_the_beginning_of_several_ids_lists_them(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    finder = RunFinder(runs.uri)
    alike = [replace(run, run_id=f"abcdef{number}") for number, run in enumerate(finder._runs[:2])]
    monkeypatch.setitem(vars(finder), "_runs", alike)
    said = storage_error(finder, "abcdef")
    assert said.startswith(f"abcdef: stands for 2 runs; give the id of one: {alike[0]}, {alike[1]}")


def test_a_pipeline_lists_its_arms(runs: Runs, finder: RunFinder) -> None:
    said = storage_error(finder, runs["two:demo"].run_id)
    assert "is a pipeline; give the runs of its arms: " in said
    assert {name for name in ("demo/one", "demo/two", "demo/control") if name in said} == {"demo/two", "demo/control"}


def test_an_unknown_name_lists_those_that_resemble_it(runs: Runs, finder: RunFinder) -> None:
    said = storage_error(finder, "demo/on")
    assert said.startswith(f"demo/on: no artifact, and no run of this name or id in {runs.uri}; there are demo/")
    assert f"demo/one ({runs['one:one'].run_id[:8]}, " in said
    assert "demo/two" in storage_error(finder, "nothing like it")
    # Too short for the beginning of an id.
    assert "no run of this name" in storage_error(finder, runs["one:one"].run_id[:5])


def test_a_run_without_a_student_is_refused(finder: RunFinder) -> None:
    assert storage_error(finder, "demo-notes").startswith("demo-notes: run demo-notes (")


def test_no_database_is_made(tmp_path: Path) -> None:
    said = storage_error(RunFinder(f"sqlite:///{tmp_path}/none/mlflow.db"), "demo")
    assert f"nor an MLflow database {tmp_path}/none/mlflow.db to find a run in" in said
    assert list(tmp_path.iterdir()) == []


def test_all_pages_of_a_store_are_read(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    from mlflow import MlflowClient

    search = MlflowClient.search_runs

    def by_two(self: Any, *arguments: Any, **options: Any) -> Any:
        return search(self, *arguments, **{**options, "max_results": 2})

    monkeypatch.setattr(MlflowClient, "search_runs", by_two)
    finder = RunFinder(runs.uri)
    for key in ("one:one", "one:control", "two:two", "two:control"):
        assert finder.find(runs[key].run_id).artifact == f"/store/translation-{key.replace(':', '-')}"
