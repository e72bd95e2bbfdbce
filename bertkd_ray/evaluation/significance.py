"""Whether one system translates better than another: a two-tailed paired bootstrap test of corpus BLEU.

The test set is a sample, and so are the seeds where each system was trained under several, and the teachers where every
seed of the system learned from each of several. Each of B resamples draws as many sentences as there are, with
replacement and the same ones for every system (Koehn, 2004, as sacrebleu draws them), as many seeds as there are, the
same ones for both systems, and, independently, as many teachers as there are; its difference is the mean, over these
seeds and teachers, of corpus BLEU of these sentences. So crossed factors are resampled in the pigeonhole bootstrap
(Owen, 2007, Annals of Applied Statistics 1(2), arXiv 0712.1111). Joining the outputs of all seeds into one long test
set would instead count every sentence several times as if it were another one, and would call differences significant
that are luck of the sentences.

Drawn from S seeds, the variance of a mean is smaller by the factor (S - 1) / S than that of a mean of S new seeds, and
so it is with T teachers. Its distance from the mean of all students is therefore multiplied by
√(S / (S - 1) · T / (T - 1)), where a single seed or teacher counts as 1. Part of the variance is enlarged twice, which
about makes up for percentiles of few draws: of systems that are equal, 4% to 5% have p < 0.05 where seeds, teachers and
sentences all differ; where teachers alone do beside the sentences, 6% with three of them and 10% with two (simulated in
tests/evaluation/test_significance.py). With one seed nothing is known of other seeds, and with one teacher nothing of
other teachers: the test is then of these alone.

The p-value counts differences in both tails, about their mean; sacrebleu takes absolute values before it subtracts
their mean, so that it counts about one tail and its p is half as large. Not supported: correction for the number of
arms that are compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU

from bertkd_ray.evaluation.metrics import DEFAULT_TOKENIZER, bleu_metric, check_sides

_SEED = 12345
"""The seed of sacrebleu's resampling."""
_CENTRAL = (2.5, 97.5)
_FEWEST = 6
"""Sentences that a p-value needs: of five all point one way by chance once in 16 times, which resampling them hides."""


class BleuResamples(NamedTuple):
    """Corpus BLEU of one system's output, and of B resamples of its sentences."""

    bleu: float
    resampled_B: NDArray[np.float64]
    tells_chance: bool = True
    """Whether there are sentences enough for a p-value."""


@dataclass(frozen=True)
class PairedTestResult:
    """A system against a baseline, both of the same seeds."""

    delta: float
    """System minus baseline, BLEU, mean over the seeds and teachers."""
    p_value: float | None
    """Two-tailed: the chance of a difference at least this large between equally good systems; 1 for equal scores, None
    where they differ on fewer than six sentences."""
    interval: tuple[float, float]
    """Lower and upper end of the central 95% of the resampled differences."""


def bootstrap_signature(samples: int, *, over_seeds: bool = False, over_teachers: bool = False) -> str:
    """What a p-value is of, in the form of sacrebleu's signatures."""
    drawn = f"sentences{',seeds' if over_seeds else ''}{',teachers' if over_teachers else ''}"
    return f"samples:{samples}|over:{drawn}|tails:2"


def resample(
    hypotheses: Sequence[str], references: Sequence[str], *, samples: int, tokenize: str = DEFAULT_TOKENIZER
) -> BleuResamples:
    """`resample_counts` of one output. Raises as `sentence_counts`."""
    return resample_counts(sentence_counts(hypotheses, references, tokenize=tokenize), samples=samples)


def sentence_counts(
    hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str = DEFAULT_TOKENIZER
) -> NDArray[np.int64]:
    """What corpus BLEU sums over sentences, int64[N, 10]: lengths of both sides, matching and all n-grams by order.

    Raises ValueError for an empty corpus and for unequal numbers of sentences.
    """
    check_sides(hypotheses, references)
    metric = bleu_metric(tokenize)
    both = zip(hypotheses, references, strict=True)
    scores = (metric.corpus_score([hypothesis], [[reference]]) for hypothesis, reference in both)
    return np.array([[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores], np.int64)


def resample_counts(counts_NC: NDArray[np.int64], *, samples: int) -> BleuResamples:
    """sacrebleu's BLEU of one output, and of `samples` resamples of it; the same draws for every output as long.

    counts_NC: see `sentence_counts`.
    """
    sentences = len(counts_NC)
    rows_BN = np.random.default_rng(_SEED).choice(sentences, size=(samples, sentences), replace=True)
    resampled_B = np.array([_bleu(counts_NC[rows_N].sum(axis=0)) for rows_N in rows_BN])
    return BleuResamples(_bleu(counts_NC.sum(axis=0)), resampled_B, sentences >= _FEWEST)


def compare(baseline: Sequence[BleuResamples], system: Sequence[BleuResamples], teachers: int = 1) -> PairedTestResult:
    """A system against a baseline, the seeds in the same order.

    baseline: an output a seed. system: an output a teacher, the same ones in the same order for each seed, seed after
    seed.

    Raises ValueError unless both have the same number of seeds, at least one, and all seeds as many teachers.
    """
    seeds = len(baseline)
    if not baseline or len(system) != seeds * teachers:
        raise ValueError(f"{len(system)} seeds against {seeds}{f' with {teachers} teachers' if teachers > 1 else ''}")
    pairs = [(baseline[index // teachers], output) for index, output in enumerate(system)]
    deltas_NB = np.array([after.resampled_B - before.resampled_B for before, after in pairs])
    delta = float(np.mean([after.bleu - before.bleu for before, after in pairs]))
    mean_B, samples = deltas_NB.mean(axis=0), deltas_NB.shape[1]
    seeds_BS, teachers_BT = (
        np.random.default_rng(_SEED + number).integers(count, size=(samples, count))
        for number, count in enumerate((seeds, teachers), start=1)
    )
    students_BST = seeds_BS[:, :, None] * teachers + teachers_BT[:, None, :]
    of_drawn_B = deltas_NB[students_BST, np.arange(samples)[:, None, None]].mean(axis=2).mean(axis=1)
    widening = math.prod(math.sqrt(count / max(count - 1, 1)) for count in (seeds, teachers))
    resampled_B = mean_B + widening * (of_drawn_B - mean_B)
    farther = int(np.sum(np.abs(resampled_B - resampled_B.mean()) > abs(delta)))
    low, high = np.percentile(resampled_B, _CENTRAL)
    p_value = (farther + 1) / (samples + 1) if all(of.tells_chance for of in (*baseline, *system)) else None
    # Equal scores, which the strict comparison would call different, are not.
    return PairedTestResult(delta, p_value if delta else 1.0, (float(low), float(high)))


def _bleu(sums_C: NDArray[np.int64]) -> float:
    sys_len, ref_len, *ngrams = (int(value) for value in sums_C)
    orders = len(ngrams) // 2
    return float(BLEU.compute_bleu(ngrams[:orders], ngrams[orders:], sys_len, ref_len, smooth_method="exp").score)
