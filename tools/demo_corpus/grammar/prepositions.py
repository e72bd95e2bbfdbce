"""Phrases after a preposition: contractions with the article, and case by motion or rest."""

from __future__ import annotations

from tools.demo_corpus.grammar.noun_phrases import ACCUSATIVE, DATIVE, NounPhrase
from tools.demo_corpus.words.text import Pair

_CONTRACTIONS = {
    ("in", "dem"): "im",
    ("in", "das"): "ins",
    ("an", "dem"): "am",
    ("an", "das"): "ans",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
    ("von", "dem"): "vom",
    ("bei", "dem"): "beim",
}


def german_prepositional(preposition: str, phrase: NounPhrase, case: int) -> str:
    """The phrase after a preposition, which contracts with a definite article: in dem Garten is im Garten."""
    first, separator, rest = phrase.german[case].partition(" ")
    contracted = _CONTRACTIONS.get((preposition, first)) if separator else None
    return f"{contracted} {rest}" if contracted else f"{preposition} {phrase.german[case]}"


def prepositional(german: str, english: str, phrase: NounPhrase, case: int) -> Pair:
    """The phrase after a preposition in both languages."""
    return german_prepositional(german, phrase, case), f"{english} {phrase.english[1]}"


def two_way(preposition: tuple[str, str, str], phrase: NounPhrase, motion: bool) -> Pair:
    """A two-way preposition with its phrase: accusative where something moves, dative where it rests."""
    return prepositional(preposition[0], preposition[1 + motion], phrase, ACCUSATIVE if motion else DATIVE)
