"""Translations of the test set to read: some drawn at random, and those that tell the students apart."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import pyarrow as pa
from sacrebleu.metrics.chrf import CHRF

from bertkd_ray.core.keyed_random import keyed_permutation
from bertkd_ray.translation.translate import best_hypotheses

DRAWN = 8
MOST_SCORED = 20_000
"""Sentences among which those that differ most are looked for; of a larger test set so many are drawn."""
_WORD = re.compile(r"\w+|[^\w\s]|\s+")


@dataclass(frozen=True)
class Sentence:
    """A sentence of the test set; hypotheses and their chrF (0 to 100) by label."""

    id: int
    source: str
    reference: str
    hypotheses: dict[str, str]
    chrf: dict[str, float]

    @property
    def spread(self) -> float:
        """The highest chrF minus the lowest."""
        return max(self.chrf.values()) - min(self.chrf.values())


class MarkedSpan(NamedTuple):
    """A part of a translation that the reference has, or has not."""

    text: str
    is_in_reference: bool


def sentences_of(tables: Mapping[str, pa.Table]) -> list[Sentence]:
    """All sentences, in the order of the test set.

    tables: by label, see `translation.translate.read_translations`; all of one test set.
    """
    first = next(iter(tables.values()))
    columns = [first[column].to_pylist() for column in ("id", "source", "reference")]
    metric, sentences = CHRF(), []
    for row, source, reference, *lines in zip(*columns, *map(best_hypotheses, tables.values()), strict=True):
        # Equal hypotheses are scored once.
        scores = {line: float(metric.sentence_score(line, [reference]).score) for line in set(lines)}
        hypotheses = dict(zip(tables, lines, strict=True))
        chrf = {label: scores[line] for label, line in hypotheses.items()}
        sentences.append(Sentence(row, source, reference, hypotheses, chrf))
    return sentences


def most_different(sentences: Sequence[Sentence], count: int) -> list[Sentence]:
    """The sentences of the widest spread, widest first and equal ones in their order; never one without a spread."""
    spread = [sentence for sentence in sentences if sentence.spread > 0]
    return sorted(spread, key=lambda sentence: -sentence.spread)[:count]


def drawn_samples(tables: Mapping[str, pa.Table], *, seed: int, count: int = DRAWN) -> list[Sentence]:
    """Sentences drawn by the seed alone, in the order of the test set. tables: see `sentences_of`."""
    size = len(next(iter(tables.values())))
    rows = sorted(keyed_permutation(size, seed)[:count].tolist())
    return sentences_of({arm: table.take(rows) for arm, table in tables.items()})


def differing_samples(tables: Mapping[str, pa.Table], *, seed: int, count: int = DRAWN) -> list[Sentence]:
    """The sentences whose chrF differs most between the best and the worst arm, the widest gap first.

    Fewer than `count` where the arms differ in fewer. Of a test set of more than `MOST_SCORED` sentences so many are
    drawn by the seed. tables: see `sentences_of`.
    """
    return most_different(drawn_samples(tables, seed=seed, count=MOST_SCORED), count)


def marked(hypothesis: str, reference: str) -> list[MarkedSpan]:
    """The hypothesis cut into what the reference has, in this order, and what it has not; together they are it.

    By words where the reference has spaces, else by characters. White space at the ends of a difference is no part of
    it.
    """
    by_word = bool(re.search(r"\s", reference))
    ours, theirs = (_WORD.findall(text) if by_word else list(text) for text in (hypothesis, reference))
    parts: list[tuple[bool, str]] = []
    for tag, start, end, *_ in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        text = "".join(ours[start:end])
        inner = text.strip()
        before, _, after = text.partition(inner) if inner else (text, "", "")
        parts += [(True, before), (tag == "equal", inner), (True, after)]
    spans = groupby((part for part in parts if part[1]), key=itemgetter(0))
    return [MarkedSpan("".join(text for _, text in stretch), is_in_reference) for is_in_reference, stretch in spans]
