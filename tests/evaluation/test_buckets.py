from __future__ import annotations

import random

import numpy as np
import pytest

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.evaluation.buckets import bleu_by_bucket, mean_frequencies, quantile_buckets
from bertkd_ray.evaluation.metrics import corpus_bleu
from bertkd_ray.evaluation.significance import compare, resample, sentence_counts


def test_buckets_hold_about_as_many_sentences_each() -> None:
    values = np.random.default_rng(0).permutation(1000)
    buckets = quantile_buckets(values)
    assert [len(bucket.rows) for bucket in buckets] == [200] * 5
    assert [(bucket.low, bucket.high) for bucket in buckets] == [(200 * i, 200 * i + 199) for i in range(5)]
    assert sorted(row for bucket in buckets for row in bucket.rows) == list(range(1000))
    for bucket in buckets:
        assert {bucket.low <= values[row] <= bucket.high for row in bucket.rows} == {True}


def test_equal_values_are_never_parted() -> None:
    values = np.array([3] * 50 + [4] * 5 + [9] * 5)
    found = [(bucket.low, bucket.high, len(bucket.rows)) for bucket in quantile_buckets(values)]
    assert found == [(3, 3, 50), (4, 9, 10)]
    assert [len(bucket.rows) for bucket in quantile_buckets(np.full(30, 7))] == [30]


@pytest.mark.parametrize(("sentences", "buckets"), [(0, 0), (5, 0), (6, 1), (12, 2), (29, 4), (30, 5), (999, 5)])
def test_few_sentences_make_few_buckets(sentences: int, buckets: int) -> None:
    assert len(quantile_buckets(np.arange(sentences))) == buckets


def test_each_bucket_is_scored_and_tested_as_a_test_set_of_its_own() -> None:
    draw = random.Random(1)
    references = [" ".join(draw.choice("abcdefgh") for _ in range(5 + row % 10)) for row in range(60)]

    def system(seed: int, share: float) -> list[str]:
        noise = random.Random(seed)
        return [" ".join("x" if noise.random() < share else word for word in line.split()) for line in references]

    outputs = {"control": [system(1, 0.3), system(2, 0.3)], "hot": [system(seed, 0.1) for seed in range(3, 7)]}
    lengths = np.array([len(line.split()) for line in references])
    counts = {name: [sentence_counts(lines, references) for lines in of] for name, of in outputs.items()}
    found = bleu_by_bucket(counts, "control", quantile_buckets(lengths), samples=50)
    assert [(scores.low, scores.high, scores.sentences) for scores in found] == [
        (5 + 2 * number, 6 + 2 * number, 12) for number in range(5)
    ]
    for scores in found:
        rows = [row for row, length in enumerate(lengths) if scores.low <= length <= scores.high]
        expected = [references[row] for row in rows]
        texts = {name: [[lines[row] for row in rows] for lines in of] for name, of in outputs.items()}
        for name, of in texts.items():
            assert scores.bleu[name] == pytest.approx(np.mean([corpus_bleu(lines, expected) for lines in of]))
        control, hot = ([resample(lines, expected, samples=50) for lines in texts[name]] for name in outputs)
        # Two seeds, and two teachers for each.
        assert scores.differences == {"hot": compare(control, hot, 2)}
        assert scores.differences["hot"].delta == pytest.approx(scores.bleu["hot"] - scores.bleu["control"])


def test_the_mean_frequency_is_geometric_and_counts_what_was_never_seen() -> None:
    sentences = Ragged.from_lists([[0, 0, 1], [], [2], [1, 2]])
    found = mean_frequencies(sentences, np.array([9, 0, 99]))
    assert found == pytest.approx([(10 * 10 * 1) ** (1 / 3), 0, 100, 10])
