"""Whether one system translates better than another: a two-tailed paired bootstrap test of corpus BLEU.

The test set is a sample, and so are the seeds where each system was trained under several. Each of B resamples draws as
many sentences as there are, with replacement and the same ones for every system (Koehn, 2004, as sacrebleu draws them),
and as many seeds as there are, the same ones for both systems; its difference is the mean over these seeds of corpus
BLEU of these sentences. Joining the outputs of all seeds into one long test set would instead count every sentence
several times as if it were another one, and would call differences significant that are luck of the sentences.

Drawn from S seeds, a mean varies by (S - 1) / S less than a mean of S new seeds does, so its distance from the mean of
all seeds is multiplied by √(S / (S - 1)). With one seed nothing is known of other seeds: the test is then of these two
students alone. The p-value counts differences in both tails, about their mean; sacrebleu takes absolute values before
it subtracts their mean, so that it counts about one tail and its p is half as large. Not supported: correction for the
number of arms that are compared.
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
    """System minus baseline, BLEU, mean over the seeds."""
    p_value: float | None
    """Two-tailed: the chance of a difference at least this large between equally good systems; 1 for equal scores, None
    where they differ on fewer than six sentences."""
    interval: tuple[float, float]
    """Lower and upper end of the central 95% of the resampled differences."""


def bootstrap_signature(samples: int, *, over_seeds: bool = False) -> str:
    """What a p-value is of, in the form of sacrebleu's signatures."""
    return f"samples:{samples}|over:sentences{',seeds' if over_seeds else ''}|tails:2"


def resample(
    hypotheses: Sequence[str], references: Sequence[str], *, samples: int, tokenize: str = DEFAULT_TOKENIZER
) -> BleuResamples:
    """sacrebleu's BLEU of one output, and of `samples` resamples of it; the same draws for every output as long.

    Raises ValueError for an empty corpus and for unequal numbers of sentences.
    """
    check_sides(hypotheses, references)
    metric = bleu_metric(tokenize)
    # What corpus BLEU sums over sentences: lengths of both sides, matching and all n-grams by order.
    both = zip(hypotheses, references, strict=True)
    scores = (metric.corpus_score([hypothesis], [[reference]]) for hypothesis, reference in both)
    counts_NC = np.array([[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores], np.int64)
    rows_BN = np.random.default_rng(_SEED).choice(len(references), size=(samples, len(references)), replace=True)
    resampled_B = np.array([_bleu(counts_NC[rows_N].sum(axis=0)) for rows_N in rows_BN])
    return BleuResamples(_bleu(counts_NC.sum(axis=0)), resampled_B, len(references) >= _FEWEST)


def compare(baseline: Sequence[BleuResamples], system: Sequence[BleuResamples]) -> PairedTestResult:
    """A system against a baseline, one output a seed each, the seeds in the same order.

    Raises ValueError unless both have the same number of seeds, at least one.
    """
    if not baseline or len(baseline) != len(system):
        raise ValueError(f"{len(system)} seeds against {len(baseline)}")
    seeds = len(system)
    pairs = list(zip(baseline, system, strict=True))
    deltas_SB = np.array([after.resampled_B - before.resampled_B for before, after in pairs])
    delta = float(np.mean([after.bleu - before.bleu for before, after in pairs]))
    mean_B = deltas_SB.mean(axis=0)
    samples = deltas_SB.shape[1]
    drawn_BS = np.random.default_rng(_SEED + 1).integers(seeds, size=(samples, seeds))
    of_drawn_B = deltas_SB[drawn_BS, np.arange(samples)[:, None]].mean(axis=1)
    resampled_B = mean_B + math.sqrt(seeds / max(seeds - 1, 1)) * (of_drawn_B - mean_B)
    farther = int(np.sum(np.abs(resampled_B - resampled_B.mean()) > abs(delta)))
    low, high = np.percentile(resampled_B, _CENTRAL)
    p_value = (farther + 1) / (samples + 1) if all(of.tells_chance for of in (*baseline, *system)) else None
    # Equal scores, which the strict comparison would call different, are not.
    return PairedTestResult(delta, p_value if delta else 1.0, (float(low), float(high)))


def _bleu(sums_C: NDArray[np.int64]) -> float:
    sys_len, ref_len, *ngrams = (int(value) for value in sums_C)
    orders = len(ngrams) // 2
    return float(BLEU.compute_bleu(ngrams[:orders], ngrams[orders:], sys_len, ref_len, smooth_method="exp").score)
