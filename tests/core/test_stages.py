"""The declaration of the stages: it holds together, and what iterates over it needs nothing else."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bertkd_ray.cli.parser import COMMANDS
from bertkd_ray.cli.submit import JOBS
from bertkd_ray.config import Config
from bertkd_ray.config.results import results_of
from bertkd_ray.core.stages import BY_ARTIFACT, STAGES
from bertkd_ray.execution.stage import StageModule, stage_module

ROOT = Path(__file__).resolve().parents[2]

DEMO = {"name": "demo", "corpus": {"source": "demo"}}


def test_inputs_come_first_and_a_stage_of_all_needs_none_of_an_arm():
    names = list(STAGES)
    for stage in STAGES.values():
        assert all(names.index(source) < names.index(stage.name) for source in stage.inputs)
        assert stage.per_arm or not any(STAGES[source].per_arm for source in stage.inputs)
    assert len(BY_ARTIFACT) == len(STAGES) == len({stage.priority for stage in STAGES.values()})


def test_sections_are_keys_of_the_configuration():
    for stage in STAGES.values():
        assert set(stage.sections) <= set(Config.model_fields)
        assert stage.steps is None or stage.steps(Config.model_validate(DEMO)) > 0


def test_results_stand_in_the_order_in_which_they_are_made():
    arms = {"control": {"kd.alpha": 0}, "soft": {"kd.sequence": "beside"}}
    corpus = {"source": "demo", "monolingual": {"src": "more.de"}}
    speaks = {"direction": "left_to_right"}
    config = Config.model_validate({**DEMO, "corpus": corpus, "teacher": speaks, "arms": arms})
    shared = [name for name, stage in STAGES.items() if not stage.per_arm]
    own = [f"{name}/{arm}" for arm in arms for name in STAGES if name not in shared]
    assert list(results_of(config)) == [*shared, *own]
    alone = Config.model_validate({**DEMO, "arms": {"control": {"kd.alpha": 0}}})
    without_teacher = [name for name in shared if STAGES[name].needed_by is None]
    assert list(results_of(alone)) == [*without_teacher, *own[: len(own) // 2]]


def test_only_a_left_to_right_teacher_that_an_arm_needs_is_evaluated():
    def has(**tree: object) -> bool:
        return "evaluate" in results_of(Config.model_validate({**DEMO, **tree}))

    forward = {"direction": "left_to_right"}
    assert has(teacher=forward)
    assert not has()
    assert not has(teacher=forward, translate={"teacher": False})
    assert not has(teacher=forward, arms={"control": {"kd.alpha": 0}})


@pytest.mark.parametrize("stage", ["decode", "label", "augment"])
def test_what_a_teacher_writes_needs_one_that_can_and_text(stage):
    def why(**tree: object) -> str:
        return STAGES[stage].unless(Config.model_validate({**DEMO, "kd": {"alpha": 0}, **tree}))

    forward, text = {"direction": "left_to_right"}, {"source": "demo", "monolingual": {"src": "more.de"}}
    cannot = "teacher.direction: a bidirectional teacher cannot translate; set teacher.direction=left_to_right"
    assert why(corpus=text) == cannot
    assert why(corpus=text, teacher=forward) == ""
    assert why(teacher=forward) == (
        "corpus.monolingual: no text is named; name its files" if stage == "augment" else ""
    )


def test_an_arm_is_not_made_from_the_scores_of_its_teacher():
    config = Config.model_validate({**DEMO, "teacher": {"direction": "left_to_right"}})
    arms = config.arm_configs()
    of_arm = {arm: [stage.name for stage in STAGES["translate"].made_from(arms[arm])] for arm in arms}
    assert of_arm == {
        "distilled": ["prepare", "finetune", "extract", "distill", "translate"],
        "control": ["prepare", "distill", "translate"],
    }
    assert [stage.name for stage in STAGES["evaluate"].made_from(config)] == ["prepare", "finetune", "evaluate"]


def test_the_inputs_of_a_control_leave_out_the_teacher():
    control = Config.model_validate({**DEMO, "kd": {"alpha": 0}})
    assert [stage.name for stage in STAGES["distill"].inputs_of(control)] == ["prepare"]
    # Whatever the configuration itself says: an arm of it has a teacher, which is made from these.
    assert [stage.name for stage in STAGES["extract"].inputs_of(control)] == ["prepare", "finetune"]


@pytest.mark.parametrize(
    ("kd", "needed"),
    [
        ({}, {"finetune", "extract"}),
        ({"alpha": 0}, set()),
        ({"sequence": "instead"}, {"finetune", "decode", "label"}),
        ({"sequence": "beside"}, {"finetune", "extract", "decode", "label"}),
        ({"sequence": "instead", "alpha": 0}, {"finetune", "decode"}),
        ({"sequence": "beside", "alpha": 0}, {"finetune", "decode"}),
    ],
)
def test_what_an_arm_needs_of_the_teacher_is_made_and_nothing_else(kd, needed):
    config = Config.model_validate({**DEMO, "teacher": {"direction": "left_to_right"}, "kd": kd})
    assert {name for name, stage in STAGES.items() if stage.is_needed(config)} == {
        "prepare",
        "distill",
        "translate",
        *needed,
        *({"evaluate"} if needed else set()),
    }
    own = {stage.name for stage in STAGES["distill"].inputs_of(config)}
    assert own == {"prepare", *needed} - {"finetune"}
    corpus = {"source": "demo", "monolingual": [{"src": "more.de"}]}
    having = Config.model_validate({**config.model_dump(), "corpus": corpus})
    assert STAGES["augment"].is_needed(having) == bool(needed), "all that learn from the teacher"
    aside = having.model_copy(update={"kd": having.kd.model_copy(update={"monolingual_weight": 0.0})})
    assert not STAGES["augment"].is_needed(aside)


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_the_module_of_a_stage_is_a_stage_module(stage):
    """A cast tells the type checker so; this holds it to it, to the last annotation."""
    for name in ("pending_artifact", "make"):
        expected = _annotations(getattr(StageModule, name))
        assert _annotations(getattr(stage_module(stage), name)) == {k: v for k, v in expected.items() if k != "self"}


def _annotations(function: Callable[..., object]) -> dict[str, str]:
    """Names of types by parameter and of the return, without the modules that they are of."""
    signature = inspect.signature(function)
    annotations = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    annotations["return"] = signature.return_annotation
    return {
        name: re.sub(r"(\w+\.)+", "", value if isinstance(value, str) else inspect.formatannotation(value))
        for name, value in annotations.items()
    }


def test_every_stage_has_its_command():
    assert [name for name in COMMANDS if name in STAGES] == list(STAGES)
    assert set(STAGES) <= set(JOBS)
    assert all((ROOT / "jobs" / f"{name}.py").is_file() for name in STAGES)


def test_no_other_list_names_the_stages():
    """A stage's name is written where it is declared; its room may log under it. (Some are names of sections too.)"""
    names = set(STAGES) - set(Config.model_fields)
    rooms = ("cli", "config", "core", "plan", "report", "pipeline", "tracking")
    modules = [path for room in rooms for path in sorted((ROOT / "bertkd_ray" / room).rglob("*.py"))]
    written = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.partition("/")[0] in names
    ]
    assert {where.partition(":")[0] for where in written} == {"bertkd_ray/core/stages.py"}


def test_contributing_says_where_a_stage_is_declared():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "| `bertkd_ray/core/stages.py`, `STAGES` |" in table
    assert "| the module of its room that the declaration names |" in table
