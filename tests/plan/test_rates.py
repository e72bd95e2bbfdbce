"""Rates of devices: measured ones against a clock that is known, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import STAGES
from bertkd_ray.plan import rates
from bertkd_ray.plan.rates import DEVICES, LAUNCHES_A_LAYER, known_device, own_device, product_rate

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_the_median_product_counts(monkeypatch, precision):
    # Every product takes two milliseconds, but for one that something else held up.
    spans = iter([0.002, 0.002, 0.7, 0.002] + [0.002] * 200)
    now, calls = 0.0, 0

    def clock() -> float:
        nonlocal now, calls
        calls += 1
        if calls % 2 == 0:
            now += next(spans)
        return now

    monkeypatch.setattr(rates.time, "perf_counter", clock)
    assert product_rate((8, 16, 32), precision, CPU, seconds=1.0) == pytest.approx(2 * 8 * 16 * 32 / 0.002)


def test_three_products_are_made_however_short_the_time():
    made = []

    class Counted(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.mm.out:
                made.append([tuple(factor.shape) for factor in args])
            return func(*args, **(kwargs or {}))

    with Counted():
        product_rate((4, 8, 2), "float32", CPU, seconds=0.0)
    assert made == [[(4, 8), (8, 2)]] * 3


def test_the_table_has_a_rate_and_a_share_for_the_same_stages():
    stages = set(own_device(CPU, {}).utilisation)
    assert stages <= set(STAGES)
    for device in DEVICES.values():
        assert set(device.flops) == set(device.utilisation) == stages
        assert all(0 < share < 1 for share in device.utilisation.values())


def test_a_rate_that_is_given_counts_for_every_stage():
    device = known_device("H100").with_rate(5e14)
    assert dict(device.flops) == dict.fromkeys(device.utilisation, 5e14)
    assert device.utilisation == DEVICES["h100"].utilisation
    assert device.rate_source == "as given"


def test_a_device_that_is_not_in_the_table():
    with pytest.raises(UserError, match="--device a100: known are h100, h200; or give --rate TFLOPS"):
        known_device("a100")


@pytest.mark.parametrize(
    ("stage", "row", "variant", "layers", "passes"),
    [
        ("finetune", "finetune", "16,384 places, eager", 12, 3),
        ("extract", "extract", "65,536 places", 12, 8),
        ("distill", "distill", "24,576 tokens, eager", 12, 3),
    ],
)
def test_launches_are_those_of_the_profiles(stage, row, variant, layers, passes):
    measured = json.loads(Path("benchmarks/results/gpu-h100.json").read_text(encoding="utf-8"))
    (profile,) = (
        each["details"]["profile"] for each in measured["rows"] if (each["row"], each["variant"]) == (row, variant)
    )
    assert LAUNCHES_A_LAYER[stage] == round(profile["launches"] / (layers * passes))


def test_a_launch_takes_as_long_as_in_the_updates_that_were_measured():
    measured = json.loads(Path("benchmarks/results/gpu-h100.json").read_text(encoding="utf-8"))
    for stage, variant in (("finetune", "16,384 places, eager"), ("distill", "24,576 tokens, eager")):
        (rates,) = (row["rates"] for row in measured["rows"] if (row["row"], row["variant"]) == (stage, variant))
        # No update took less than the floor says.
        assert rates["updates/s"] * 12 * LAUNCHES_A_LAYER[stage] * DEVICES["h100"].launch_seconds < 1.01
    assert own_device(CPU, {}).launch_seconds == 0
