from __future__ import annotations

import logging
import math
import random
from typing import NamedTuple

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest

from bertkd_ray.evaluation.metrics import corpus_bleu
from bertkd_ray.evaluation.significance import BleuResamples, bootstrap_signature, compare, resample

SAMPLES = 200


def sentences(count: int = 80) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choice("abcdefgh") for _ in range(draw.randint(5, 14))) for _ in range(count)]


def noisy(references: list[str], share: float, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join("x" if draw.random() < share else word for word in line.split()) for line in references]


def made(*resampled: float) -> BleuResamples:
    return BleuResamples(float(np.mean(resampled)), np.array(resampled))


def sacrebleus_p(baseline: list[str], system: list[str], references: list[str]) -> float:
    systems = [("baseline", baseline), ("system", system)]
    _, results = PairedTest(systems, {"BLEU": BLEU()}, [references], test_type="bs", n_samples=SAMPLES, n_jobs=1)()
    return results["BLEU"][1].p_value


def plain_p_values(baseline: list[str], system: list[str], references: list[str]) -> dict[str, float]:
    """The two-tailed p and that of the tail above, by scoring every resample of the lines anew."""
    draws = np.random.default_rng(12345).choice(len(references), size=(SAMPLES, len(references)))
    differences = np.empty(SAMPLES)
    for sample, rows in enumerate(draws):
        before, after, expected = ([lines[row] for row in rows] for lines in (baseline, system, references))
        differences[sample] = corpus_bleu(after, expected) - corpus_bleu(before, expected)
    delta = corpus_bleu(system, references) - corpus_bleu(baseline, references)
    about_zero = differences - differences.mean()
    counts = {"two": np.sum(np.abs(about_zero) > abs(delta)), "one": np.sum(about_zero > abs(delta))}
    return {tails: (count + 1) / (SAMPLES + 1) for tails, count in counts.items()}


def test_both_tails_are_counted_where_they_differ_from_one() -> None:
    references = sentences()
    baseline, system = noisy(references, 0.2, 1), noisy(references, 0.17, 2)
    expected = plain_p_values(baseline, system, references)
    before, after = (resample(lines, references, samples=SAMPLES) for lines in (baseline, system))
    assert compare([before], [after]).p_value == pytest.approx(expected["two"])
    assert compare([after], [before]).p_value == pytest.approx(expected["two"])
    assert expected["two"] > 1.4 * expected["one"]
    assert expected["two"] > 1.4 * sacrebleus_p(baseline, system, references)


def test_the_signature_names_what_is_drawn() -> None:
    assert bootstrap_signature(1000) == "samples:1000|over:sentences|tails:2"
    assert bootstrap_signature(50, over_seeds=True) == "samples:50|over:sentences,seeds|tails:2"
    both = bootstrap_signature(50, over_seeds=True, over_teachers=True)
    assert both == "samples:50|over:sentences,seeds,teachers|tails:2"


def test_bleu_is_sacrebleus_and_the_draws_are_too() -> None:
    references = sentences()
    baseline, system = noisy(references, 0.2, 1), noisy(references, 0.17, 2)
    before, after = (resample(lines, references, samples=SAMPLES) for lines in (baseline, system))
    assert before.bleu == pytest.approx(corpus_bleu(baseline, references), abs=1e-9)
    delta = corpus_bleu(system, references) - corpus_bleu(baseline, references)
    # sacrebleu's own count on our resamples gives sacrebleu's own p.
    absolute = np.abs(after.resampled_B - before.resampled_B)
    counted = np.sum(absolute - absolute.mean() > abs(delta))
    assert (counted + 1) / (SAMPLES + 1) == pytest.approx(sacrebleus_p(baseline, system, references))
    assert compare([before], [after]).delta == pytest.approx(delta, abs=1e-9)


def test_a_better_system_is_told_and_its_draws_repeat() -> None:
    references = sentences()
    lines = noisy(references, 0.5, 1), noisy(references, 0.05, 2)
    before, after = (resample(side, references, samples=SAMPLES) for side in lines)
    result = compare([before], [after])
    assert result.p_value == pytest.approx(1 / (SAMPLES + 1))  # no resample reaches the difference
    assert 0 < result.interval[0] < result.delta < result.interval[1]
    assert compare(*([resample(side, references, samples=SAMPLES)] for side in lines)) == result


def test_chinese_is_resampled_by_characters() -> None:
    hypotheses, references = ["我喜欢吃苹果!"] * 5, ["我喜欢吃苹果。"] * 5
    by_hand = 100 * (6 / 7 * 5 / 6 * 4 / 5 * 3 / 4) ** 0.25
    resamples = resample(hypotheses, references, samples=10, tokenize="zh")
    assert resamples.bleu == pytest.approx(by_hand)
    assert resamples.resampled_B == pytest.approx([by_hand] * 10)


def test_output_that_looks_tokenised_is_resampled_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    lines = ["a b c d ."] * 200
    with caplog.at_level(logging.WARNING, logger="sacrebleu"):
        resample(lines, lines, samples=10)
    assert not caplog.records


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


def test_seeds_and_teachers_are_drawn_as_a_plain_implementation_draws_them() -> None:
    references = sentences(40)
    seeds, teachers, samples = 3, 2, 60
    before = [noisy(references, 0.2, seed) for seed in range(seeds)]
    after = [noisy(references, 0.18, 10 + student) for student in range(seeds * teachers)]
    rows = np.random.default_rng(12345).choice(len(references), size=(samples, len(references)))
    seeds_drawn = np.random.default_rng(12346).integers(seeds, size=(samples, seeds))
    teachers_drawn = np.random.default_rng(12347).integers(teachers, size=(samples, teachers))
    differences = []
    for sample in range(samples):
        texts = [[lines[row] for row in rows[sample]] for lines in (*before, *after, references)]
        bleu = [corpus_bleu(lines, texts[-1]) for lines in texts[:-1]]

        def mean_delta(drawn: list[tuple[int, int]], bleu: list[float] = bleu) -> float:
            return float(np.mean([bleu[seeds + seed * teachers + teacher] - bleu[seed] for seed, teacher in drawn]))

        everyone = mean_delta([(seed, teacher) for seed in range(seeds) for teacher in range(teachers)])
        drawn = mean_delta([(seed, teacher) for seed in seeds_drawn[sample] for teacher in teachers_drawn[sample]])
        differences.append(everyone + math.sqrt(3 / 2 * 2 / 1) * (drawn - everyone))
    full = [corpus_bleu(lines, references) for lines in (*before, *after)]
    delta = np.mean([full[seeds + student] - full[student // teachers] for student in range(seeds * teachers)])
    about_zero = np.array(differences) - np.mean(differences)
    found = compare(
        *([resample(lines, references, samples=samples) for lines in side] for side in (before, after)), teachers
    )
    assert found.delta == pytest.approx(delta)
    assert found.p_value == pytest.approx((np.sum(np.abs(about_zero) > abs(delta)) + 1) / (samples + 1))
    assert found.interval == pytest.approx(tuple(np.percentile(differences, (2.5, 97.5))))


class Simulated(NamedTuple):
    """Standard deviations of what differs between students, in BLEU, and how many there are."""

    seeds: int
    teachers: int
    of_seeds: float
    of_teachers: float
    of_students: float
    of_sentences: float

    def draw(self, random: np.random.Generator, truth: float) -> tuple[list[BleuResamples], list[BleuResamples]]:
        """A control and a system that is better by `truth`, of new sentences, seeds and teachers."""
        count = 50
        of_sentences = random.normal(0, self.of_sentences * math.sqrt(count), count)
        rows = np.random.default_rng(12345).choice(count, size=(SAMPLES, count))
        shared = BleuResamples(of_sentences.mean(), of_sentences[rows].mean(axis=1))
        by_seed = random.normal(0, self.of_seeds, self.seeds)
        by_teacher = random.normal(0, self.of_teachers, self.teachers)
        by_student = random.normal(0, self.of_students, (self.seeds, self.teachers))
        deltas = truth + by_seed[:, None] + by_teacher + by_student
        zero = BleuResamples(0.0, np.zeros(SAMPLES))
        system = [BleuResamples(shared.bleu + delta, shared.resampled_B + delta) for delta in deltas.ravel()]
        return [zero] * self.seeds, system

    def rates(self, truth: float, repeats: int = 500) -> tuple[float, float]:
        """How often p is below 0.05, and how often the interval misses the truth."""
        random = np.random.default_rng(7)
        results = [compare(*self.draw(random, truth), self.teachers) for _ in range(repeats)]
        misses = [not result.interval[0] <= truth <= result.interval[1] for result in results]
        return float(np.mean([result.p_value < 0.05 for result in results])), float(np.mean(misses))


@pytest.mark.parametrize(
    ("simulated", "low", "high"),
    [
        # The sentences differ most, as in a study of a small test set; then seeds, teachers and students alike.
        pytest.param(Simulated(3, 2, 0.3, 0.3, 0.3, 0.5), 0.02, 0.06, id="3 seeds, 2 teachers"),
        pytest.param(Simulated(3, 3, 0.3, 0.3, 0.3, 0.15), 0.02, 0.06, id="3 seeds, 3 teachers, few sentences"),
        pytest.param(Simulated(5, 3, 0.3, 0.3, 0.3, 0.15), 0.02, 0.06, id="5 seeds, 3 teachers, few sentences"),
        pytest.param(Simulated(8, 6, 0.3, 0.3, 0.3, 0.15), 0.03, 0.07, id="8 seeds, 6 teachers, few sentences"),
        # What the module's text warns of: a factor with few values that differs alone.
        pytest.param(Simulated(3, 3, 0.0, 0.5, 0.0, 0.3), 0.05, 0.10, id="teachers alone, 3"),
        pytest.param(Simulated(3, 2, 0.0, 0.5, 0.0, 0.3), 0.08, 0.13, id="teachers alone, 2"),
        pytest.param(Simulated(3, 3, 0.0, 0.0, 0.5, 0.3), 0.0, 0.05, id="students alone"),
    ],
)
def test_equal_systems_are_called_different_about_as_often_as_p_says(
    simulated: Simulated, low: float, high: float
) -> None:
    significant, missed = simulated.rates(0.0)
    assert low <= significant <= high
    assert low <= missed <= high + 0.015
    # Where there is a difference the interval covers it as often.
    assert simulated.rates(2.0)[1] == pytest.approx(missed, abs=1e-9)


def test_without_the_teachers_luck_a_study_would_be_believed_too_often() -> None:
    # One teacher stands for all: nothing that is drawn varies with it, so that its luck passes for the arm's merit.
    significant, _ = Simulated(3, 1, 0.3, 0.5, 0.0, 0.3).rates(0.0)
    assert significant > 0.15


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


@pytest.mark.parametrize(("count", "tells"), [(1, False), (5, False), (6, True)])
def test_a_handful_of_sentences_has_no_p_value(count: int, tells: bool) -> None:
    references = sentences(count)
    ours, theirs = (resample(lines, references, samples=SAMPLES) for lines in (references, noisy(references, 0.5, 1)))
    found = compare([ours], [theirs])
    assert found.delta < 0
    assert found.p_value == (pytest.approx(1 / (SAMPLES + 1)) if tells else None)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="empty corpus"):
        resample([], [], samples=10)
    with pytest.raises(ValueError, match="1 hypotheses for 2 references"):
        resample(["a"], ["a", "b"], samples=10)
    with pytest.raises(ValueError, match="2 seeds against 1"):
        compare([made(1)], [made(1), made(2)])
    with pytest.raises(ValueError, match="3 seeds against 2 with 2 teachers"):
        compare([made(1)] * 2, [made(1)] * 3, 2)
    with pytest.raises(ValueError, match="0 seeds against 0"):
        compare([], [])
