from __future__ import annotations

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
