"""Several teachers in a configuration: what an arm learns from, and what each teacher's stages see."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config, config_of
from bertkd_ray.config.results import owners_of, results_of, sources_of
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import STAGES
from bertkd_ray.softlabels import extract
from bertkd_ray.student import distill
from bertkd_ray.teacher import finetune

TREE: dict[str, Any] = {
    "name": "two",
    "corpus": {"source": "demo"},
    "teachers": {"bidirectional": {"steps": 7}, "forward": {"direction": "left_to_right"}},
    "arms": {
        "half": {},
        "forward": {"kd.teachers": "forward", "kd.topk": 16},
        "mostly": {"kd": {"teachers": {"bidirectional": 0.2, "forward": 0.8}}},
        "control": {"kd.alpha": 0},
    },
}


def load(*overrides: str, **changes: Any) -> Config:
    return config_of(deepcopy({**TREE, **changes}), "two.yaml", list(overrides))


def test_an_arm_learns_from_all_in_equal_parts_or_as_it_says():
    arms = load().arm_configs()
    assert {arm: of.kd.teachers for arm, of in arms.items()} == {
        "half": {"bidirectional": 0.5, "forward": 0.5},
        "forward": {"forward": 1.0},
        "mostly": {"bidirectional": 0.2, "forward": 0.8},
        "control": None,
    }
    # The one teacher of an arm is its heaviest, the first among equals.
    steps = {arm: of.teacher.steps for arm, of in arms.items()}
    assert steps == {"half": 7, "forward": 100_000, "mostly": 100_000, "control": 7}


def test_weights_replace_those_of_all_arms_as_a_whole():
    config = load("kd.teachers={bidirectional: 0.25, forward: 0.75}")
    weights = {arm: of.kd.teachers for arm, of in config.arm_configs().items()}
    assert weights["half"] == {"bidirectional": 0.25, "forward": 0.75}
    assert weights["forward"] == {"forward": 1.0}
    assert weights["mostly"] == {"bidirectional": 0.2, "forward": 0.8}


def test_a_weight_of_0_is_no_teacher_of_the_arm():
    weights = load("arms.half.kd.teachers={bidirectional: 0, forward: 1}").arm_configs()["half"].kd.teachers
    assert weights == {"forward": 1.0}


def test_a_teacher_has_a_configuration_as_if_it_were_the_only_one():
    views = load().teacher_configs()
    assert list(views) == ["bidirectional", "forward"]
    assert [view.teachers for view in views.values()] == [None, None]
    assert views["forward"].teacher.direction == "left_to_right"
    assert {name: list(view.arm_configs()) for name, view in views.items()} == {
        "bidirectional": ["half", "mostly"],
        "forward": ["half", "forward", "mostly"],
    }
    # As many logits as its own arms use; 16 are asked of the other alone.
    assert {name: view.stored_topk() for name, view in views.items()} == {"bidirectional": 8, "forward": 16}
    alone = config_of({"name": "one", "corpus": {"source": "demo"}}, "one.yaml")
    assert alone.teacher_configs() == {"": alone}


def test_a_named_teacher_has_the_artifacts_of_a_single_one(tmp_path):
    """So nothing is made twice when a configuration is given a second teacher."""
    store, inputs = Store(str(tmp_path)), {"corpus": "c", "bert": "b", "teacher": "t"}
    single = {"name": "one", "corpus": {"source": "demo"}, "teacher": {"direction": "left_to_right"}}
    one = config_of({**single, "arms": {"a": {"kd.topk": 16}}}, "one.yaml")
    view = load().teacher_configs()["forward"]
    for stage in (finetune, extract):
        expected, found = (stage.pending_artifact(config, store, inputs).directory for config in (one, view))
        assert found == expected
    labels = {"corpus": "c", "softlabels": "s"}
    arms = one.arm_configs()["a"], load().arm_configs()["forward"]
    assert len({distill.pending_artifact(arm, store, labels).directory for arm in arms}) == 1


def _student(store: Store, config: Config, arm: str, labels: dict[str, str]) -> Any:
    inputs = {"corpus": "c", **{f"softlabels/{name}": fingerprint for name, fingerprint in labels.items()}}
    return distill.pending_artifact(config.arm_configs()[arm], store, inputs)


def test_a_student_is_named_by_its_soft_labels_and_their_weights_not_by_names(tmp_path):
    store = Store(str(tmp_path))
    labels = {"bidirectional": "first", "forward": "second"}
    mostly = _student(store, load(), "mostly", labels)
    assert mostly.inputs == {"corpus": "c", "softlabels": "second", "softlabels.2": "first"}
    assert mostly.config["kd"]["teacher_weights"] == [0.8, 0.2]
    renamed = load(
        teachers={"x": TREE["teachers"]["forward"], "y": TREE["teachers"]["bidirectional"]},
        arms={"mostly": {"kd.teachers": {"y": 0.2, "x": 0.8}}},
    )
    assert _student(store, renamed, "mostly", {"x": "second", "y": "first"}).directory == mostly.directory
    swapped = _student(store, load(), "mostly", {"bidirectional": "second", "forward": "first"})
    half = _student(store, load(), "half", labels)
    explicit = load("arms.half.kd.teachers={forward: 0.5, bidirectional: 0.5}")
    assert _student(store, explicit, "half", labels).directory == half.directory
    assert len({mostly.directory, swapped.directory, half.directory}) == 3
    # Of two names for one teacher it is that teacher's student.
    same = _student(store, load(), "half", dict.fromkeys(labels, "first"))
    assert (same.inputs, same.config["kd"].get("teacher_weights")) == ({"corpus": "c", "softlabels": "first"}, None)


def test_the_results_of_a_teacher_have_its_name():
    assert list(results_of(load())) == [
        "prepare",
        *("finetune/bidirectional", "extract/bidirectional"),
        *("finetune/forward", "extract/forward", "evaluate/forward"),
        *("distill/half", "translate/half", "distill/forward", "translate/forward"),
        *("distill/mostly", "translate/mostly", "distill/control", "translate/control"),
    ]


def test_the_translations_of_one_of_several_teachers():
    config = load(
        arms={"a": {"kd.teachers": "forward", "kd.sequence": "instead"}, "b": {"kd.teachers": "bidirectional"}}
    )
    assert [name for name in results_of(config) if "/" in name and name.split("/")[1] in config.teachers] == [
        *("finetune/bidirectional", "extract/bidirectional"),
        *("finetune/forward", "decode/forward", "label/forward", "evaluate/forward"),
    ]
    arm = config.arm_configs()["a"]
    assert {kind: of for kind, (_, of) in sources_of(STAGES["distill"], "a", arm).items()} == {
        "corpus": "",
        "decoded": "forward",
        "decodedlabels": "forward",
    }


def test_no_teacher_is_trained_that_no_arm_uses():
    config = load(arms={"a": {"kd.teachers": "forward"}, "control": {"kd.alpha": 0}})
    names = list(results_of(config))
    assert [name for name in names if name.startswith("finetune")] == ["finetune/forward"]
    without = results_of(load(arms={"control": {"kd.alpha": 0}}))
    assert list(without) == ["prepare", "distill/control", "translate/control"]


def test_what_a_result_is_made_from():
    config = load()
    arms, views = config.arm_configs(), config.teacher_configs()

    def names(stage: str, owner: str, of: Config) -> dict[str, str]:
        return {kind: source.named(name) for kind, (source, name) in sources_of(STAGES[stage], owner, of).items()}

    assert names("finetune", "forward", views["forward"]) == {"corpus": "prepare"}
    assert names("extract", "forward", views["forward"]) == {"corpus": "prepare", "teacher": "finetune/forward"}
    assert names("distill", "mostly", arms["mostly"]) == {
        "corpus": "prepare",
        "softlabels/forward": "extract/forward",
        "softlabels/bidirectional": "extract/bidirectional",
    }
    assert names("distill", "forward", arms["forward"]) == {"corpus": "prepare", "softlabels": "extract/forward"}
    assert names("distill", "control", arms["control"]) == {"corpus": "prepare"}
    assert names("translate", "half", arms["half"]) == {"corpus": "prepare", "student": "distill/half"}
    assert owners_of(STAGES["extract"], "mostly", arms["mostly"]) == ["forward", "bidirectional"]


def test_a_run_is_named_by_the_keys_that_were_given():
    one, two = config_of({"name": "one", "corpus": {"source": "demo"}}, "one.yaml"), load()
    assert "teachers" not in one.run_settings()
    assert "teachers" not in one.as_given()
    assert "teacher" not in two.run_settings()
    assert "teacher" not in two.as_given()
    assert two.run_settings()["teachers"]["bidirectional"]["steps"] == 7


REFUSED = {
    "both": (["teacher.steps=3"], "teacher: teachers has bidirectional, forward; set teachers.NAME.KEY, or leave out"),
    "no teacher": (["teachers={}"], "teachers: empty; name a teacher, or leave it out"),
    "no weights": (["kd.teachers={}"], "kd.teachers: empty; name a teacher or several with their weights"),
    "unknown name": (
        ["kd.teachers=backward"],
        "kd.teachers: there is no backward; the teachers are bidirectional, forward",
    ),
    "unknown name of an arm": (
        ["arms.half.kd.teachers={forward: 0.5, x: 0.5}"],
        "arms.half: kd.teachers: there is no x",
    ),
    "less than 1": (["kd.teachers={bidirectional: 0.5}"], "kd.teachers: the weights sum to 0.5; make them sum to 1"),
    "more than 1": (
        ["kd.teachers={bidirectional: 0.7, forward: 0.6}"],
        "kd.teachers: the weights sum to 1.3; make them sum to 1",
    ),
    "one weight of several": (["arms.half.kd.teachers.forward=0.3"], "the weights sum to 0.3; make them sum to 1"),
    "twice": (
        ["arms.half={kd.teachers.forward: 0.9, kd: {teachers: {forward: 0.5, bidirectional: 0.5}}}"],
        "arms.half: kd.teachers is there twice, dotted and nested; keep one",
    ),
    "no number": (["kd.teachers={forward: true, bidirectional: 0}"], "kd.teachers: true and false (bare yes, no, on"),
    "no number of a schedule": (["kd.alpha=[true, 0]"], "kd.alpha: true and false (bare yes, no, on, off) have no"),
    "negative": (["kd.teachers={bidirectional: 2, forward: -1}"], "kd.teachers.bidirectional: Input should be less"),
    "misspelt": (
        ["teachers.forward.stesp=3"],
        "unknown key teachers.forward.stesp; did you mean teachers.forward.steps",
    ),
    "earlier key": (
        ["teachers.forward.lr=1e-4"],
        "unknown key teachers.forward.lr; it is teachers.forward.peak_lr now",
    ),
    "translations of several": (
        ["arms.half.kd.sequence=beside"],
        "arms.half: kd.sequence: beside takes the translations of one teacher; set kd.teachers to its name",
    ),
    "translations of one that cannot": (
        ["arms.half={kd.sequence: instead, kd.teachers: bidirectional}"],
        "arms.half: kd.sequence: instead needs a teacher that can translate, and one that sees both sides cannot; "
        "set teachers.bidirectional.direction=left_to_right",
    ),
    "no section": (["teachers.forward=3"], "teachers.forward: a section of keys and values is needed"),
    "bad name": (["teachers={a/b: {}}"], "teachers.a/b: String should match pattern"),
    "workers": (
        ["workers=2", "student.micro_batches=2"],
        "teachers.bidirectional.micro_batches 1 is not a multiple of workers 2; set teachers.bidirectional.micro",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(overrides, message):
    with pytest.raises(UserError) as caught:
        load(*overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_without_named_teachers_are_refused():
    tree = {"name": "one", "corpus": {"source": "demo"}, "kd": {"teachers": "forward"}}
    with pytest.raises(
        UserError, match=r"kd.teachers: there is no forward, as no teachers are named; add teachers.forw"
    ):
        config_of(tree, "one.yaml")
