"""Translations to read: some drawn at random, and those where the arms differ most."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from bertkd_ray.core.keyed_random import keyed_permutation
from bertkd_ray.report.sentences import Sentence, most_different, sentences_of

if TYPE_CHECKING:
    import pyarrow as pa

DRAWN = 8
MOST_SCORED = 20_000
"""Sentences among which those that differ most are looked for; of a larger test set so many are drawn."""
_WORD = re.compile(r"\w+|[^\w\s]|\s+")


class MarkedSpan(NamedTuple):
    """A part of a translation that the reference has, or has not."""

    text: str
    is_in_reference: bool


def drawn_samples(tables: Mapping[str, pa.Table], *, seed: int, count: int = DRAWN) -> list[Sentence]:
    """Sentences drawn by the seed alone, in the order of the test set. tables: see `sentences_of`."""
    return sentences_of(_drawn(tables, seed, count))


def differing_samples(tables: Mapping[str, pa.Table], *, seed: int, count: int = DRAWN) -> list[Sentence]:
    """The sentences whose chrF differs most between the best and the worst arm, the widest gap first.

    Fewer than `count` where the arms differ in fewer. Of a test set of more than `MOST_SCORED` sentences so many are
    drawn by the seed. tables: see `sentences_of`.
    """
    return most_different(sentences_of(_drawn(tables, seed, MOST_SCORED)), count)


def _drawn(tables: Mapping[str, pa.Table], seed: int, count: int) -> dict[str, pa.Table]:
    size = len(next(iter(tables.values())))
    rows = sorted(keyed_permutation(size, seed)[:count].tolist())
    return {arm: table.take(rows) for arm, table in tables.items()}


def marked(hypothesis: str, reference: str) -> list[MarkedSpan]:
    """The hypothesis cut into what the reference has, in this order, and what it has not; together they are it.

    By words where the reference has spaces, else by characters.
    """
    by_word = bool(re.search(r"\s", reference))
    ours, theirs = (_WORD.findall(text) if by_word else list(text) for text in (hypothesis, reference))
    matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
    return list(_merged((tag == "equal", "".join(ours[start:end])) for tag, start, end, *_ in matcher.get_opcodes()))


def _merged(stretches: Iterator[tuple[bool, str]]) -> Iterator[MarkedSpan]:
    """Spans without empty ones; white space at the ends of a difference is no part of it."""
    parts = []
    for is_equal, text in stretches:
        inner = text.strip()
        before, _, after = text.partition(inner) if inner else (text, "", "")
        parts += [(True, before), (is_equal, inner), (True, after)]
    for is_in_reference, of_kind in groupby((part for part in parts if part[1]), key=itemgetter(0)):
        yield MarkedSpan("".join(text for _, text in of_kind), is_in_reference)
