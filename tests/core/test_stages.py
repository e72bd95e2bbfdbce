"""The declaration of the stages: it holds together, and what iterates over it needs nothing else."""

from __future__ import annotations

from bertkd_ray.config import Config
from bertkd_ray.core.stages import BY_ARTIFACT, STAGES, results_of

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
    arms = {"control": {"kd.alpha": 0}, "soft": {}}
    config = Config.model_validate({**DEMO, "arms": arms})
    shared = ["prepare", "finetune", "extract"]
    own = ["distill/control", "translate/control", "distill/soft", "translate/soft"]
    assert list(results_of(config)) == [*shared, *own]
    alone = Config.model_validate({**DEMO, "arms": {"control": {"kd.alpha": 0}}})
    assert list(results_of(alone)) == ["prepare", *own[:2]]


def test_the_inputs_of_a_control_leave_out_the_teacher():
    control = Config.model_validate({**DEMO, "kd": {"alpha": 0}})
    assert [stage.name for stage in STAGES["distill"].inputs_of(control)] == ["prepare"]
    # Whatever the configuration itself says: an arm of it has a teacher, which is made from these.
    assert [stage.name for stage in STAGES["extract"].inputs_of(control)] == ["prepare", "finetune"]
