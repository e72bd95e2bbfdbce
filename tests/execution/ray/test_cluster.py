"""Nodes that do not share the storage are found before work is given to them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import UserError
from bertkd_ray.execution.ray import cluster

WHY_UNSEEN = cluster._why_unseen._function


@dataclass(eq=False)
class Answer:
    """Stands for a reference."""

    reason: str


@dataclass(eq=False)
class Probe:
    """Stands for the task that nodes run; every second one has a file system of their own."""

    elsewhere: Path | None = None
    calls: int = 0

    def options(self, **_: object) -> Probe:
        return self

    def remote(self, storage: str, probe: str) -> Answer:
        self.calls += 1
        own = self.calls % 2 == 0 and self.elsewhere
        return Answer(WHY_UNSEEN(str(self.elsewhere) if own else storage, probe))


@pytest.fixture
def nodes(monkeypatch) -> None:
    """Three nodes that work, a head that does not, and one that is gone."""
    node = {"Alive": True, "Resources": {"CPU": 1.0}}
    names = [f"node-{number}" for number in range(3)]
    working = [{**node, "NodeID": f"{n:056x}", "NodeManagerHostname": name} for n, name in enumerate(names)]
    others = [{**working[0], "Alive": False}, {**working[0], "Resources": {}}]
    monkeypatch.setattr(ray, "nodes", lambda: [*working, *others])
    monkeypatch.setattr(ray, "wait", lambda answers, **_: (answers, []))
    monkeypatch.setattr(ray, "get", lambda answer: answer.reason)


def test_a_node_that_does_not_see_the_storage_is_named(nodes, tmp_path, monkeypatch):
    probe = Probe(tmp_path / "elsewhere")
    monkeypatch.setattr(cluster, "_why_unseen", probe)
    told = (
        rf"^storage: node node-1 does not see what is written to {re.escape(str(tmp_path))}/store here \(.*No such file"
    )
    with pytest.raises(UserError, match=told):
        cluster.require_shared_storage(str(tmp_path / "store"))
    assert Store(str(tmp_path / "store")).files() == []


def test_a_node_that_cannot_even_ask_is_one_line_and_one_that_is_gone_is_passed_over(nodes, tmp_path, monkeypatch):
    errors = iter(
        [ray.exceptions.NodeDiedError("gone"), ray.exceptions.RayTaskError("f", "Traceback:\nNo module", None)]
    )

    def fail(answer: Answer) -> str:
        raise next(errors)

    monkeypatch.setattr(cluster, "_why_unseen", Probe())
    monkeypatch.setattr(ray, "get", fail)
    with pytest.raises(UserError, match=r"^storage: node node-1 does not see .* \(No module\); give a directory"):
        cluster.require_shared_storage(str(tmp_path))


def test_nodes_that_see_it_are_counted(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_why_unseen", Probe())
    assert cluster.require_shared_storage(str(tmp_path)) == 3
    assert Store(str(tmp_path)).files() == []
