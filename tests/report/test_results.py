from __future__ import annotations

from dataclasses import replace

import pytest

from bertkd_ray.core.errors import UserError
from bertkd_ray.evaluation.significance import compare, resample
from tests.report.stages import REFERENCES, SAID, finished_stages, results_of


def test_the_p_value_of_an_arm_is_that_of_the_one_test(tmp_path):
    results = results_of(finished_stages(tmp_path))
    arms = {arm.arm: arm for arm in results.arms}
    control, distilled = (resample(SAID[arm], REFERENCES, samples=20) for arm in ("control", "distilled"))
    expected = compare([control], [distilled])
    assert (arms["distilled"].delta, arms["distilled"].p_value) == (expected.delta, expected.p_value)
    assert (arms["control"].delta, arms["control"].p_value) == (None, None)
    assert results.signatures["bootstrap"] == "samples:20|over:sentences|tails:2"


def test_arms_without_a_control_have_no_p_value(tmp_path):
    stages = finished_stages(tmp_path)
    del stages["translate/control"]
    results = results_of(stages)
    assert [(arm.arm, arm.delta, arm.p_value) for arm in results.arms] == [("distilled", None, None)]
    assert "bootstrap" not in results.signatures


def test_of_several_arms_without_a_teacher_the_one_called_control_is_the_control(tmp_path):
    known = results_of(finished_stages(tmp_path))
    stages = {
        **known.stages,
        **{f"{stage}/plain": known.stages[f"{stage}/control"] for stage in ("distill", "translate")},
    }

    def of_arms(*names):
        arms = {name: known.config.arms.get(name, {"kd.alpha": 0}) for name in names}
        return replace(known, config=known.config.model_copy(update={"arms": arms}), stages=stages)

    several = of_arms("plain", "distilled", "control")
    assert {arm.arm for arm in several.arms if arm.delta is None} == {"control"}
    assert of_arms("distilled", "plain").control == "plain"
    # Another control makes another report, and so do the same students under other names.
    assert of_arms("distilled", "plain").directory != several.directory
    exchanged = {"distill/distilled": "distill/control", "distill/control": "distill/distilled"}
    renamed = {exchanged.get(result, result): artifact for result, artifact in stages.items()}
    assert replace(several, stages=renamed).directory != several.directory
    assert of_arms("control", "plain", "distilled").directory == of_arms("distilled", "control", "plain").directory


@pytest.mark.parametrize("first", ["control", "distilled"])
def test_bleu_of_two_tokenizers_does_not_stand_in_one_table(tmp_path, first):
    stages = finished_stages(tmp_path)
    by_characters = stages[f"translate/{first}"]
    for arm, tokenize in (("control", "ja-mecab"), ("distilled", "ja-mecab"), (first, "char")):
        translation = stages[f"translate/{arm}"]
        stages[f"translate/{arm}"] = replace(translation, info={**translation.info, "tokenize": tokenize})
    expected = f"move {by_characters.display_uri} away, and run bertkd run small.yaml again where ja-mecab is installed"
    with pytest.raises(UserError, match="so that they do not compare") as refused:
        assert results_of(stages).arms
    assert str(refused.value).endswith(expected)
    with pytest.raises(UserError):
        assert results_of(stages).signatures


def test_arms_computed_in_different_precisions_say_so(tmp_path):
    stages = finished_stages(tmp_path)
    assert "precision" not in results_of(stages).signatures
    for arm, trained_in in (("control", "bf16"), ("distilled", "float32")):
        of = stages[f"translate/{arm}"]
        stages[f"translate/{arm}"] = replace(of, info={**of.info, "trained_in": trained_in, "precision": "bf16"})
    assert results_of(stages).signatures["precision"] == (
        "distilled: trained in float32, translated in bf16; control: trained in bf16, translated in bf16"
    )


def test_of_two_versions_of_sacrebleu_both_signatures_are_told(tmp_path):
    stages = finished_stages(tmp_path)
    control = stages["translate/control"]
    signatures = {"bleu_signature": "nrefs:1|tok:13a|version:3", "chrf_signature": "nc:6|nw:0"}
    stages["translate/control"] = replace(control, info={**control.info, "signatures": signatures})
    found = results_of(stages).signatures
    assert found["bleu_signature"] == "nrefs:1|tok:13a, nrefs:1|tok:13a|version:3"
    assert found["chrf_signature"] == "nc:6|nw:0"
