"""Versions of a registered model in an SQLite store, and which of them is the champion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.tracking import default_uri, open_tracker
from bertkd_ray.tracking.interface import StudentModel
from bertkd_ray.tracking.models import register


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = default_uri(str(tmp_path_factory.mktemp("store")))
    open_tracker(uri, "tests")
    return uri


@pytest.fixture(scope="module")
def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri, uri)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered model of the test's own."""
    return f"{request.node.name}"


Register = Callable[..., str]


@pytest.fixture
def registered(client: Any, uri: str, name: str) -> Register:
    """Registers a student of a fingerprint and valid BLEU, and returns what was said."""
    run = open_tracker(uri, "tests").run(name, key=name)
    experiment = client.get_experiment_by_name("tests").experiment_id

    def call(
        fingerprint: str, bleu: float, corpus: str = "c0", arm: str = "control", content: str | None = None
    ) -> str:
        model = client.create_logged_model(experiment, name=arm, source_run_id=run.run_id)
        scores = {"valid_bleu": bleu, "test_bleu": 1.5}
        tags = {"bertkd.corpus": corpus, "bertkd.arm": arm}
        if content is not None:
            tags["bertkd.content"] = content
        student = StudentModel(arm, fingerprint, Path, "", {}, [], scores, tags)
        return register(client, name, f"models:/{model.model_id}", run.run_id, student)

    return call


def champion(client: Any, name: str) -> int | None:
    aliases: Mapping[str, Any] = client.get_registered_model(name).aliases
    return int(aliases["champion"]) if "champion" in aliases else None


def test_a_version_says_what_it_is(client: Any, name: str, registered: Register) -> None:
    said = registered("f1", 20.25, arm="kd")
    assert said == f"kd: registered as version 1 of {name} and its first champion, valid BLEU 20.25"
    version = client.get_model_version_by_alias(name, "champion")
    assert int(version.version) == 1
    assert version.tags == {
        "bertkd.student": "f1",
        "bertkd.corpus": "c0",
        "bertkd.arm": "kd",
        "bertkd.score.valid_bleu": "20.25",
        "bertkd.score.test_bleu": "1.5",
        "bertkd.compared_with": "none",
    }


def test_the_better_student_is_champion_and_the_worse_and_the_equal_are_not(
    client: Any, name: str, registered: Register
) -> None:
    registered("f1", 20.0)
    said = registered("f2", 19.5)
    assert said == (
        f"control: registered as version 2 of {name}; version 1 stays champion: valid BLEU 20.00 against 19.50"
    )
    assert "version 1 stays champion" in registered("f3", 20.0)
    assert champion(client, name) == 1
    said = registered("f4", 20.5)
    assert said == (
        f"control: registered as version 4 of {name} and now its champion: valid BLEU 20.50 against 20.00 of version 1"
    )
    assert champion(client, name) == 4
    assert client.get_model_version(name, "4").tags["bertkd.compared_with"] == "1"


def test_another_valid_set_does_not_compare(client: Any, name: str, registered: Register) -> None:
    registered("f1", 20.0, corpus="c1")
    said = registered("f2", 60.0, corpus="c2")
    assert said == (
        f"control: registered as version 2 of {name}; version 1 stays champion: BLEU on the valid set of corpus c1 "
        "does not compare with 60.00 on this one"
    )
    assert champion(client, name) == 1


def test_a_champion_that_somebody_else_registered_stays(client: Any, name: str, registered: Register) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, "/somewhere", tags={})
    client.set_registered_model_alias(name, "champion", "1")
    assert "version 1 stays champion: it was not registered here" in registered("f1", 99.0)
    assert champion(client, name) == 1


def test_a_fingerprint_is_registered_once_and_an_alias_moved_by_hand_stays(
    client: Any, name: str, registered: Register
) -> None:
    registered("f1", 20.0)
    registered("f2", 30.0)
    assert registered("f2", 30.0) == f"control: is version 2 of {name}, its champion"
    assert registered("f1", 20.0) == f"control: is version 1 of {name}; its champion is version 2"
    client.set_registered_model_alias(name, "champion", "1")
    assert registered("f2", 30.0) == f"control: is version 2 of {name}; its champion is version 1"
    assert champion(client, name) == 1
    assert len(client.search_model_versions(f"name = '{name}'")) == 2


def test_a_version_that_was_cut_off_before_it_was_compared_is_compared_later(
    client: Any, name: str, registered: Register
) -> None:
    registered("f1", 20.0)
    registered("f2", 30.0)
    client.set_registered_model_alias(name, "champion", "1")
    client.delete_model_version_tag(name, "2", "bertkd.compared_with")
    said = registered("f2", 30.0)
    assert said == f"control: is version 2 of {name} and now its champion: valid BLEU 30.00 against 20.00 of version 1"
    assert champion(client, name) == 2


def test_without_a_champion_the_next_student_is_one(client: Any, name: str, registered: Register) -> None:
    registered("f1", 20.0)
    client.delete_registered_model_alias(name, "champion")
    assert "its first champion" in registered("f1", 20.0)
    assert champion(client, name) == 1


def test_other_weights_under_one_fingerprint_are_another_version(client: Any, name: str, registered: Register) -> None:
    registered("f1", 20.0, content="w1")
    assert registered("f1", 20.0, content="w1") == f"control: is version 1 of {name}, its champion"
    assert registered("f1", 30.0, content="w2") == (
        f"control: registered as version 2 of {name} and now its champion: valid BLEU 30.00 against 20.00 of version 1"
    )
    assert registered("f1", 20.0, content="w1") == f"control: is version 1 of {name}; its champion is version 2"
    # Earlier versions did not say it.
    registered("f2", 10.0)
    assert registered("f2", 10.0, content="w3") == f"control: is version 3 of {name}; its champion is version 2"


def test_after_the_champion_is_deleted_the_best_version_that_is_left_is_champion(
    client: Any, name: str, registered: Register
) -> None:
    registered("f1", 5.0)
    registered("f2", 21.0)
    registered("f3", 20.0)
    registered("f4", 60.0, corpus="c2")
    client.set_registered_model_alias(name, "champion", "1")
    client.delete_model_version(name, "1")
    assert champion(client, name) is None
    said = registered("f1", 5.0)
    assert said == (
        f"control: registered as version 5 of {name}; its champion is version 2 from now on: valid BLEU 21.00, the "
        "highest that is left"
    )
    assert champion(client, name) == 2
    client.delete_model_version(name, "2")
    said = registered("f3", 20.0)
    assert said == f"control: is version 3 of {name} and its first champion, valid BLEU 20.00"
    assert champion(client, name) == 3
