from __future__ import annotations

import random

import numpy as np
import pytest

from bertkd_ray.evaluation.metrics import corpus_bleu, paired_bootstrap
from bertkd_ray.evaluation.significance import Resampled, compare, resample

SAMPLES = 200


def sentences(count: int = 80) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choice("abcdefgh") for _ in range(draw.randint(5, 14))) for _ in range(count)]


def noisy(references: list[str], share: float, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join("x" if draw.random() < share else word for word in line.split()) for line in references]


def made(*of_samples: float) -> Resampled:
    return Resampled(float(np.mean(of_samples)), np.array(of_samples))


def test_bleu_is_sacrebleus_and_the_draws_are_too() -> None:
    references = sentences()
    baseline, system = noisy(references, 0.2, 1), noisy(references, 0.17, 2)
    before, after = (resample(lines, references, samples=SAMPLES) for lines in (baseline, system))
    assert before.bleu == pytest.approx(corpus_bleu(baseline, references), abs=1e-9)
    theirs = paired_bootstrap(baseline, system, references, samples=SAMPLES)
    # sacrebleu's own count on our resamples gives sacrebleu's own p.
    absolute = np.abs(after.of_samples_B - before.of_samples_B)
    counted = np.sum(absolute - absolute.mean() > abs(theirs.delta_bleu))
    assert (counted + 1) / (SAMPLES + 1) == pytest.approx(theirs.p_value)
    ours = compare([before], [after])
    assert ours.delta == pytest.approx(theirs.delta_bleu, abs=1e-9)
    assert ours.p_value >= theirs.p_value


def test_one_seed_counts_both_tails() -> None:
    # Differences -3, 1, 1, 5 about their mean of 1: two of four lie farther from it than 1 from 0.
    found = compare([made(0, 0, 0, 0)], [made(-3, 1, 1, 5)])
    assert found.delta == 1
    assert found.p_value == pytest.approx((2 + 1) / (4 + 1))
    assert found.interval == pytest.approx((-2.7, 4.7))


def test_seeds_that_disagree_are_no_evidence_and_seeds_that_agree_are() -> None:
    zero = made(*[0.0] * SAMPLES)
    steady = [made(*[1.0] * SAMPLES)] * 3
    assert compare([zero] * 3, steady).p_value == pytest.approx(1 / (SAMPLES + 1))
    spread = [made(*[value] * SAMPLES) for value in (-2.0, 1.0, 4.0)]
    found = compare([zero] * 3, spread)
    assert found.delta == pytest.approx(1)
    assert found.p_value > 0.3


def test_the_mean_over_seeds_varies_as_the_mean_of_new_seeds_would() -> None:
    count = 20_000
    seeds = [made(*[value] * count) for value in (-1.0, 0.0, 1.0)]
    low, high = compare([made(*[0.0] * count)] * 3, seeds).interval
    # Means of three draws from {-1, 0, 1} are ±2/3 in 6/27 and ±1 in 2/27 of all cases; √(3/2) makes the ±1 ±1.22.
    assert (low, high) == pytest.approx((-(1.5**0.5), 1.5**0.5))


def test_sentences_that_vary_are_drawn_alike_for_all_seeds() -> None:
    # The same outputs under three seeds say no more than one seed does.
    references = sentences()
    baseline = resample(noisy(references, 0.2, 1), references, samples=SAMPLES)
    system = resample(noisy(references, 0.17, 2), references, samples=SAMPLES)
    assert compare([baseline] * 3, [system] * 3).p_value == pytest.approx(compare([baseline], [system]).p_value)


def test_equal_systems() -> None:
    references = sentences(5)
    one = resample(references, references, samples=10)
    assert one.bleu == pytest.approx(100)
    assert compare([one], [one]).p_value == 1


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="0 hypotheses for 0 references"):
        resample([], [], samples=10)
    with pytest.raises(ValueError, match="1 hypotheses for 2 references"):
        resample(["a"], ["a", "b"], samples=10)
    with pytest.raises(ValueError, match="2 seeds against 1"):
        compare([made(1)], [made(1), made(2)])
    with pytest.raises(ValueError, match="0 seeds against 0"):
        compare([], [])
