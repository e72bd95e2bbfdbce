"""Keys of earlier versions: refused with what they are today, and translated where manifests hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertkd_ray.config import Config, dotted, load_config, with_current_keys
from bertkd_ray.config.sections import StudentConfig, TeacherConfig, TranslateConfig
from bertkd_ray.config.study import load_study
from bertkd_ray.core.errors import UserError

DEMO = "name: x\ncorpus: {source: demo}\n"

REFUSALS = {
    "teacher.lr=1e-4": "unknown key teacher.lr; it is teacher.peak_lr now",
    "teacher.warmup=0.1": ("unknown key teacher.warmup; warmup 0.1 with steps 100000 is teacher.warmup_steps: 10000"),
    "teacher={warmup: 0.1, steps: 200}": (
        "unknown key teacher.warmup; warmup 0.1 with steps 200 is teacher.warmup_steps: 20"
    ),
    "teacher.warmup=0.05": "unknown key teacher.warmup; warmup 0.05 with steps 100000 is teacher.warmup_steps: null",
    "teacher.warmup=0": "unknown key teacher.warmup; it is teacher.warmup_steps now",
    "teacher.left_to_right=true": (
        "unknown key teacher.left_to_right; left_to_right True is teacher.direction: left_to_right"
    ),
    "teacher.left_to_right=false": "unknown key teacher.left_to_right; left_to_right False is teacher.direction: both",
    "student.lr=2.0": ("unknown key student.lr; lr 2.0 with warmup 8000 and width 512 is student.peak_lr: 9.882118e-4"),
    "student={lr: 0.3, width: 128, warmup_steps: 200}": (
        "unknown key student.lr; lr 0.3 with warmup 200 and width 128 is student.peak_lr: 1.875e-3"
    ),
    "student={lr: 1, warmup: 2000}": (
        "unknown key student.lr; lr 1 with warmup 2000 and width 512 is student.peak_lr: 9.882118e-4; "
        "unknown key student.warmup; it is student.warmup_steps now"
    ),
    "student.lr=fast": "unknown key student.lr; it is student.peak_lr now",
    "student.lr=.nan": "unknown key student.lr; lr nan with warmup 8000 and width 512 is student.peak_lr: nan",
    "student={lr: 1, warmup: -1}": (
        "unknown key student.lr; it is student.peak_lr now; unknown key student.warmup; it is student.warmup_steps now"
    ),
    "extract.batch_tokens=4096": "unknown key extract.batch_tokens; it is extract.forward_tokens now",
    "translate.batch_tokens=4096": "unknown key translate.batch_tokens; it is translate.forward_tokens now",
}


@pytest.fixture
def demo(tmp_path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(DEMO, encoding="utf-8")
    return path


@pytest.mark.parametrize(("override", "refusal"), REFUSALS.items(), ids=REFUSALS)
def test_an_earlier_key_is_refused_with_what_it_is_today(demo, override, refusal):
    with pytest.raises(UserError) as caught:
        load_config(demo, [override])
    assert str(caught.value) == f"{demo}: {refusal}"


def test_an_earlier_key_of_an_arm_is_refused(demo, tmp_path):
    lr = "unknown key student.lr; lr 0.5 with warmup 400 and width 256 is student.peak_lr: 1.5625e-3"
    arm = ["student.width=256", "student.warmup_steps=400", "arms={a: {kd.alpha: 0, student.lr: 0.5}}"]
    with pytest.raises(UserError) as caught:
        load_config(demo, arm)
    assert str(caught.value) == f"arms.a: {lr}"
    study = tmp_path / "s.yaml"
    study.write_text(
        "name: s\nbase: c.yaml\noverrides: {student.width: 256, student.warmup_steps: 400}\nseeds: [1]\n"
        "arms: {control: {kd.alpha: 0}, a: {student.lr: 0.5}}\n"
    )
    with pytest.raises(UserError) as caught:
        load_study(study)
    assert str(caught.value) == f"{study}: arms.a: {lr}"
    with pytest.raises(UserError, match=r"overrides: unknown key teacher\.lr; it is teacher\.peak_lr now"):
        load_study(study, ["arms.a={kd.topk: 4}", "teacher.lr=1e-4"])


def test_a_peak_of_seven_digits_stands_for_the_factor_it_was_computed_from():
    random = np.random.default_rng(1)
    for _ in range(2000):
        width, warmup = int(random.integers(8, 2048)), int(random.integers(1, 20_000))
        factor = float(f"{10 ** random.uniform(-3, 2):.{random.integers(0, 6)}e}")
        settings = {"width": width, "lr": factor, "warmup": warmup}
        peak_lr = with_current_keys({"student": settings})["student"]["peak_lr"]
        assert peak_lr == float(f"{peak_lr:.6e}")
        student = StudentConfig(width=width, heads=1, peak_lr=peak_lr, warmup_steps=warmup)
        assert student.noam_factor == factor


def test_the_settings_of_a_manifest_under_todays_keys():
    student = StudentConfig(width=128, heads=4, peak_lr=1.875e-3, warmup_steps=200)
    teacher = TeacherConfig(steps=1000, warmup_steps=200)
    manifest = {
        "student": student.fingerprinted(),
        "teacher": teacher.fingerprinted(),
        "translate": TranslateConfig().fingerprinted(),
        "extract": {"passes": 7, "batch_tokens": 4096},
        "seed": 1,
    }
    assert (manifest["student"]["lr"], manifest["student"]["warmup"]) == (0.3, 200)
    assert (manifest["teacher"]["lr"], manifest["teacher"]["warmup"]) == (5e-5, 0.2)
    today = with_current_keys(manifest)
    assert today["student"] == student.model_dump(exclude={*StudentConfig.added_later})
    assert today["teacher"] == teacher.model_dump(exclude={"direction"})
    assert today["translate"] == TranslateConfig().model_dump(exclude={"teacher"})
    assert today["extract"] == {"passes": 7, "forward_tokens": 4096}
    assert today["seed"] == 1
    assert with_current_keys({"teacher": TeacherConfig().fingerprinted()})["teacher"]["warmup_steps"] is None


def test_a_run_is_found_again_that_a_version_with_earlier_keys_has_made():
    demo = {"name": "x", "corpus": {"source": "demo"}}
    student = {"peak_lr": 0.0125, "warmup_steps": 100, "width": 64, "heads": 4}
    settings = Config.model_validate(
        {**demo, "teacher": {"warmup_steps": 20, "steps": 200}, "student": student}
    ).run_settings()
    assert (settings["teacher"]["lr"], settings["teacher"]["warmup"]) == (5e-5, 0.1)
    assert (settings["student"]["lr"], settings["student"]["warmup"]) == (1.0, 100)
    assert (settings["extract"]["batch_tokens"], settings["translate"]["batch_tokens"]) == (16_384, 8_192)
    assert not {key.rpartition(".")[2] for key, _ in dotted(settings)} & {"peak_lr", "warmup_steps", "forward_tokens"}
    assert "storage" not in settings
