from __future__ import annotations

import math
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkd_ray.report import figures
from bertkd_ray.report.figures import (
    draw_all,
    draw_fidelity,
    draw_scores,
    draw_seeds,
    finetuning_panels,
    translation_loss_panels,
    translation_quality_panels,
)
from bertkd_ray.report.frame import DPI, Drawing, draw_panels, styles
from bertkd_ray.report.tables import ArmResult
from bertkd_ray.training.curves import CurveRow

FIDELITY = {"topk_mass": 0.913, "gold_in_topk": 0.951, "gold_first": 0.742, "entropy_t1": 0.9, "entropy_t10": 2.0}


def finetuning(steps: int = 600) -> list[CurveRow]:
    rows: list[CurveRow] = [CurveRow(s, 0.0, {"train/loss": 2 + 7 * math.exp(-s / 90)}) for s in range(5, steps + 1, 5)]
    rows += [
        CurveRow(s, 0.0, {"valid/loss": 2 + abs(s - 400) / 400, "valid/accuracy": s / 1000})
        for s in range(100, steps + 1, 100)
    ]
    return rows


def arm(best: float) -> list[CurveRow]:
    rows: list[CurveRow] = [CurveRow(s, 0.0, {"train/nll": 3 + 6 * math.exp(-s / 4000)}) for s in range(50, 20_001, 50)]
    for s in range(1000, 20_001, 1000):
        rows.append(
            CurveRow(s, 0.0, {"valid/nll": 2 + 5 * math.exp(-s / 4000), "valid/accuracy": 0.6, "valid/bleu": best})
        )
    return rows


def check(drawing: Drawing, *texts: str) -> None:
    """Both files open, the texts are drawn, and nothing is cut at the border of the image."""
    from matplotlib.image import imread

    svg = drawing.svg.read_text()
    assert xml.etree.ElementTree.fromstring(svg).tag.endswith("svg")
    for text in texts:
        assert f"<!-- {text} -->" in svg, text
    pixels = imread(drawing.png)
    assert pixels.shape[1] >= 6 * DPI
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (border == 1).all()
    assert (pixels[..., :3] < 1).any()


def test_finetuning(tmp_path: Path) -> None:
    drawing = draw_panels(finetuning_panels(finetuning()), tmp_path / "made" / "v1.0")
    assert drawing == (tmp_path / "made" / "v1.0.png", tmp_path / "made" / "v1.0.svg")
    check(drawing, "nats per masked token", "masked tokens predicted, %", "training", "validation", "best checkpoint")


def test_translation_of_two_arms(tmp_path: Path) -> None:
    arms = {"with the teacher (α = 0.5)": arm(36.0), "control": arm(34.0)}
    check(
        draw_panels(translation_loss_panels(arms), tmp_path / "l"),
        "nats per target token",
        "perplexity",
        *arms,
        "100",
        "15k",
    )
    check(
        draw_panels(translation_quality_panels(arms), tmp_path / "q"),
        "target tokens predicted, %",
        "BLEU, validation set",
        *arms,
    )


def test_the_divergence_from_the_teacher_has_a_panel_where_there_is_one(tmp_path: Path) -> None:
    distilled = [*arm(36.0), CurveRow(1000, 0.0, {"valid/kl": 2.5}), CurveRow(2000, 0.0, {"valid/kl": 1.25})]
    panels = translation_loss_panels({"control": arm(34.0), "hot": distilled})
    assert panels[2].title == "KL(teacher ‖ student), validation"
    hot = "hot: from 2.5 nats per target token at step 1,000 to 1.25 nats per target token at step 2,000"
    assert panels[2].summary == hot
    check(draw_panels(panels, tmp_path / "l"), "KL(teacher ‖ student), validation")
    assert len(translation_loss_panels({"control": arm(34.0)})) == 2


def test_arms_over_seeds(tmp_path: Path) -> None:
    arms = {
        "control": [arm(30.0), arm(31.0)],
        "hot": [arm(33.0), [CurveRow(1000, 0.0, {"valid/bleu": 36.0})]],
        "none": [],
    }
    check(draw_seeds(arms, tmp_path / "s"), "control", "hot", "Greedy BLEU, mean ± standard deviation over seeds")
    steps, means, deviations = figures._over_seeds(arms["hot"], "valid/bleu")
    assert (steps[0], means[0], deviations[0]) == (1000, 34.5, pytest.approx(math.sqrt(4.5)))
    assert (means[1], deviations[1]) == (33.0, 0.0)
    check(draw_seeds({"control": [arm(30.0)]}, tmp_path / "one"), "Greedy BLEU")


def test_more_arms_than_colours(tmp_path: Path) -> None:
    arms = {f"arm {i}": arm(30.0 + i) for i in range(9)}
    check(draw_panels(translation_quality_panels(arms), tmp_path / "q"), *arms)
    assert len(set(styles(28))) == 28, "colour, line and marker together tell 28 arms apart"


def test_one_arm_with_one_point(tmp_path: Path) -> None:
    rows = [CurveRow(20, 0.0, {"train/nll": 5.0, "valid/nll": 4.0, "valid/accuracy": 0.2, "valid/bleu": 0.0})]
    check(draw_panels(translation_loss_panels({"only": rows}), tmp_path / "l"), "only", "perplexity")
    check(draw_panels(translation_quality_panels({"only": rows}), tmp_path / "q"), "only")
    check(
        draw_panels(finetuning_panels([CurveRow(20, 0.0, {"train/loss": 5.0})]), tmp_path / "f"),
        "training",
        "not measured",
    )


def test_nothing_measured(tmp_path: Path) -> None:
    check(draw_panels(finetuning_panels([]), tmp_path / "f"), "not measured")
    check(draw_panels(translation_loss_panels({"a": []}), tmp_path / "l"), "not measured")


def test_diverged_runs_are_drawn(tmp_path: Path) -> None:
    rows = [
        CurveRow(s, 0.0, {"train/nll": math.nan if s > 5 else 1e9, "valid/nll": 1e9, "valid/bleu": math.inf})
        for s in range(9)
    ]
    check(draw_panels(translation_loss_panels({"diverged": rows}), tmp_path / "l"), "diverged")
    check(draw_panels(translation_quality_panels({"diverged": rows}), tmp_path / "q"), "not measured")


def test_fidelity_and_scores(tmp_path: Path) -> None:
    check(draw_fidelity(FIDELITY, tmp_path / "f"), "91.3", "95.1", "74.2", "0.90", "2.00", "entropy, nats")
    check(draw_fidelity({"topk_mass": math.nan, "gold_first": 1.0}, tmp_path / "g"), "100.0")
    check(draw_scores({"distilled": 35.63, "control": 0.0}, tmp_path / "s"), "35.6", "0.0", "BLEU, test set")


def test_draw_all_draws_what_there_is(tmp_path: Path) -> None:
    result = ArmResult("control", 1, 1.0, 2.0, 3.0, 4.0)
    draw_all({"finetune": finetuning(), "control": arm(3.0)}, {"": FIDELITY}, [result], tmp_path)
    names = ["finetuning", "scores", "soft-labels", "translation-losses", "translation-quality"]
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == [f"{name}.{suffix}" for name in names for suffix in ("png", "svg")]
    draw_all({}, {}, [], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    once, again = (draw_panels(finetuning_panels(finetuning()), tmp_path / name) for name in "ab")
    assert once.svg.read_bytes() == again.svg.read_bytes()
    assert once.png.read_bytes() == again.png.read_bytes()


def test_smoothing() -> None:
    short = np.arange(29.0)
    assert figures._smooth(short) is short
    # 80 points: two to each side; fewer on both sides at the start, fewer on the right at the end.
    values = np.arange(80.0) ** 2
    smooth = figures._smooth(values)
    assert smooth[[0, 1, 40, 78, 79]] == pytest.approx(
        [0, (0 + 1 + 4) / 3, 40**2 + 2, (76**2 + 77**2 + 78**2 + 79**2) / 4, (77**2 + 78**2 + 79**2) / 3]
    )


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        (
            [
                CurveRow(1, 0.0, {"valid/bleu": 3.0, "valid/nll": 1.0}),
                CurveRow(2, 0.0, {"valid/bleu": 4.0, "valid/nll": 2.0}),
            ],
            2,
        ),
        ([CurveRow(1, 0.0, {"valid/bleu": 3.0}), CurveRow(2, 0.0, {"valid/bleu": 3.0})], 1),
        (
            [
                CurveRow(1, 0.0, {"valid/nll": 3.0}),
                CurveRow(2, 0.0, {"valid/nll": 2.0}),
                CurveRow(3, 0.0, {"valid/nll": math.nan}),
            ],
            2,
        ),
        ([CurveRow(1, 0.0, {})], None),
    ],
)
def test_best_checkpoint_of_an_arm(rows: list[CurveRow], best: float | None) -> None:
    assert figures._best_step(rows) == best


def test_global_state_is_left_alone(tmp_path: Path) -> None:
    code = """
import sys
import bertkd_ray.report.figures as figures
assert "matplotlib" not in sys.modules
from pathlib import Path
from bertkd_ray.training.curves import CurveRow
figures.draw_panels(figures.finetuning_panels([CurveRow(1, 0.0, {"train/loss": 1.0})]), Path(sys.argv[1]))
import matplotlib
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.rcParams["axes.spines.top"]
"""
    done: Any = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "f"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_every_panel_is_told_in_words() -> None:
    loss, accuracy = finetuning_panels(finetuning())
    assert loss.summary == (
        "validation: from 2.75 nats per masked token at step 100 to 2.5 nats per masked token at step 600"
    )
    assert accuracy.summary == "validation: from 10 % of masked tokens at step 100 to 60 % of masked tokens at step 600"
    assert [panel.summary for panel in finetuning_panels([])] == ["not measured"] * 2
    one = [CurveRow(5, 0.0, {"train/nll": 2.0})]
    training, _ = translation_loss_panels({"a": one, "b": []})
    assert training.summary == "a: 2 nats per target token at step 5"


def test_long_names_stand_below_each_other_in_the_legend(tmp_path: Path) -> None:
    arms = {f"{'an arm with quite a long name ' * 2}{place}": arm(30.0) for place in range(4)}
    check(draw_panels(translation_quality_panels(arms), tmp_path / "q"), *arms)
