"""BLEU of parts of a test set: of short and long sentences, of those with frequent words and with rare ones.

Sentences are put into buckets by a value of the source or the reference, the same for every system, and each bucket is
scored as a test set of its own: BLEU by sentence length as Koehn and Knowles (2017, arXiv 1706.03872) plot it, in the
buckets of compare-mt (Neubig et al., 2019, arXiv 1903.07926). Buckets hold about as many sentences each instead of
having ends at round numbers, so that the differences in all of them are about as certain. Not supported: correction for
the number of buckets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.evaluation.significance import PairedTestResult, compare, resample_counts

MOST_BUCKETS = 5
FEWEST_SENTENCES = 6
"""Sentences a bucket on average, below which there are fewer buckets: that many a p-value needs."""


class Bucket(NamedTuple):
    """Sentences of like values."""

    low: float
    """Least value of its sentences."""
    high: float
    """Greatest value of its sentences."""
    rows: NDArray[np.int64]
    """The sentences' positions in the test set."""


@dataclass(frozen=True)
class BucketScores:
    """BLEU (0 to 100) of every system in a bucket."""

    low: float
    """Least value of its sentences."""
    high: float
    """Greatest value of its sentences."""
    sentences: int
    bleu: dict[str, float]
    """By system, mean over its outputs."""
    differences: dict[str, PairedTestResult]
    """From the baseline, by each other system."""


def quantile_buckets(values_N: NDArray[Any]) -> list[Bucket]:
    """Up to five buckets of about as many sentences each, by rising value; equal values are in one bucket."""
    count = min(MOST_BUCKETS, len(values_N) // FEWEST_SENTENCES)
    if count < 1:
        return []
    shares = np.arange(1, count) / count
    ends = np.unique(np.quantile(values_N, shares, method="inverted_cdf"))
    numbers_N = np.searchsorted(ends, values_N, side="left")
    rows = (np.flatnonzero(numbers_N == number) for number in np.unique(numbers_N))
    return [Bucket(float(values_N[of].min()), float(values_N[of].max()), of) for of in rows]


def bleu_by_bucket(
    counts: Mapping[str, Sequence[NDArray[np.int64]]], baseline: str, buckets: Sequence[Bucket], *, samples: int
) -> list[BucketScores]:
    """BLEU of every system in every bucket, and its difference from the baseline by a two-tailed paired bootstrap.

    counts: by system what corpus BLEU sums (`significance.sentence_counts`), an array an output: one a seed or, in the
    order of `significance.compare`, several. samples: resamples of a bucket's sentences.
    """
    scores = []
    for bucket in buckets:
        resamples = {
            name: [resample_counts(counts_NC[bucket.rows], samples=samples) for counts_NC in outputs]
            for name, outputs in counts.items()
        }
        before = resamples[baseline]
        differences = {
            name: compare(before, after, len(after) // len(before))
            for name, after in resamples.items()
            if name != baseline
        }
        bleu = {name: float(np.mean([output.bleu for output in outputs])) for name, outputs in resamples.items()}
        scores.append(BucketScores(bucket.low, bucket.high, len(bucket.rows), bleu, differences))
    return scores


def mean_frequencies(sentences: Ragged, frequencies_V: NDArray[np.int64]) -> NDArray[np.float64]:
    """Geometric mean of the frequencies of a sentence's tokens, float64[N].

    sentences: N rows of token ids. frequencies_V: how often each token stands in the training text. 1 is added to each,
    so that a token that is not there counts. A row without tokens has 0.

    Its logarithm is the sentence's mean log frequency, the rarity of Platanios et al. (2019, arXiv 1903.09848) for
    each token, so that it does not rise with length as that of the rarest token would.
    """
    logs = np.log(frequencies_V[sentences.values] + 1.0)
    sums = np.diff(np.concatenate([[0.0], np.cumsum(logs)])[sentences.offsets])
    lengths = sentences.lengths
    means: NDArray[np.float64] = np.exp(sums / np.maximum(lengths, 1))
    return np.where(lengths > 0, means, 0.0)
