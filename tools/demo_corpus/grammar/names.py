"""Proper names: persons, and towns and countries."""

from __future__ import annotations

from tools.demo_corpus.grammar.noun_phrases import NounPhrase
from tools.demo_corpus.words.spelling import english_possessive
from tools.demo_corpus.words.text import Pair, parse_pairs

_NAME_TABLE = """
Anna she
Peter he
Maria she
Paul he
Lena she
Felix he
Julia she
Martin he
Sophie she
Daniel he
Emma she
Lukas he
Clara she
Georg he
Herr_Müller=Mr_Müller he
Frau_Schmidt=Ms_Schmidt she
Herr_Weber=Mr_Weber he
Frau_Fischer=Ms_Fischer she
"""
# Towns and countries: German = English; "in" and "nach" unless an article stands before the name.
TOWNS = parse_pairs("""
Berlin = Berlin
Hamburg = Hamburg
München = Munich
Köln = Cologne
Wien = Vienna
Paris = Paris
Zürich = Zurich
Deutschland = Germany
Italien = Italy
Leipzig = Leipzig
die Schweiz = Switzerland
Frankreich = France
Spanien = Spain
London = London
Österreich = Austria
die Türkei = Turkey
Rom = Rome
Polen = Poland
""")


def proper_name(german: str, refers: str, english: str = "") -> NounPhrase:
    """A person's name; Herr is weak (Herrn Müller)."""
    english = english or german
    oblique = german.replace("Herr ", "Herrn ")
    genitive = oblique + ("'" if oblique.endswith(("s", "x", "z")) else "s")
    return NounPhrase(
        german=(german, oblique, oblique, genitive),
        english=(english, english, english_possessive(english, False)),
        gender="m" if refers == "he" else "f",
        refers=refers,
    )


def _parse_name(name: str, refers: str) -> NounPhrase:
    """One line of `_NAME_TABLE`."""
    german, _, english = name.replace("_", " ").partition("=")
    return proper_name(german, refers, english)


NAMES = [_parse_name(*line.split()) for line in _NAME_TABLE.split("\n") if line]


def town_phrase(town: Pair, motion: bool) -> Pair:
    """in Berlin, nach Berlin; in der Schweiz, in die Schweiz."""
    german, english = town
    english = f"{'to' if motion else 'in'} {english}"
    if german.startswith("die "):
        return f"in {german if motion else german.replace('die ', 'der ')}", english
    return f"{'nach' if motion else 'in'} {german}", english
