from __future__ import annotations

from pathlib import Path

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, fingerprint
from bertkd_ray.artifacts.store import Store
from bertkd_ray.report.contents import lineage
from tests.report.stages import finished_stages


def test_a_pipeline_is_a_tree(tmp_path: Path) -> None:
    stages = finished_stages(tmp_path / "store")
    nodes = lineage(stages)
    assert [(node.name, node.depth) for node in nodes] == [
        ("prepare", 0),
        ("finetune", 1),
        ("extract", 2),
        ("distill/distilled", 3),
        ("translate/distilled", 4),
        ("distill/control", 1),
        ("translate/control", 2),
    ]
    corpus, teacher, _, distilled, *_ = nodes
    assert (corpus.sources, teacher.sources) == ({}, {"prepare": corpus.artifact.fingerprint})
    assert teacher.texts == {"bert": "b" * 64}
    assert set(distilled.sources) == {"prepare", "extract"}
    directory = tmp_path / "store" / teacher.artifact.directory
    assert teacher.bytes == (directory / "history.json").stat().st_size


def test_the_order_in_which_stages_are_given_does_not_matter(tmp_path: Path) -> None:
    stages = finished_stages(tmp_path / "store")
    backwards = {name: stages[name] for name in reversed(stages)}
    assert {node.name: node.depth for node in lineage(backwards)} == {node.name: node.depth for node in lineage(stages)}
    assert lineage(backwards)[0].name == "prepare"


def test_an_input_that_is_not_among_them_is_only_named(tmp_path: Path) -> None:
    def made(inputs: dict[str, str]) -> Artifact:
        work = PendingArtifact(Store(str(tmp_path)), "student", fingerprint("student", {}, inputs), {}, inputs)
        return work.commit(made=[], metrics={}, info={})

    (node,) = lineage({"distill/x": made({"corpus": "c" * 16})})
    assert (node.depth, node.sources, node.texts) == (0, {}, {"corpus": "c" * 16})
