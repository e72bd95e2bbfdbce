"""The clause: a verb with its subject, objects and adverbials, drawn once and spelled out in each language."""

from __future__ import annotations

from dataclasses import dataclass

from tools.demo_corpus.grammar.noun_phrases import NounPhrase
from tools.demo_corpus.grammar.times import Time
from tools.demo_corpus.words.text import Pair
from tools.demo_corpus.words.verbs import Verb, parse_verbs


@dataclass(slots=True)
class Clause:
    """One clause, independent of word order and language.

    `tense` is the German one: present, preterite, perfect or pluperfect. `aspect` is the English one where a
    construction fixes it, otherwise it follows from tense, verb and time. `negation` is nicht, kein (already in a noun
    phrase) or empty. `complement` belongs to the verb (direction, prepositional object, predicate), `place` is free.
    `then` is what follows the clause in both languages: an extraposed relative clause, an infinitive clause.
    """

    subject: NounPhrase
    verb: Verb
    tense: str = "present"
    modal: str = ""
    liking: bool = False
    negation: str = ""
    passive: bool = False
    aspect: str = ""
    accusative: NounPhrase | None = None
    dative: NounPhrase | None = None
    complement: Pair | None = None
    place: Pair | None = None
    manner: Pair | None = None
    time: Time | None = None
    frequency: Pair | None = None
    then: Pair = ("", "")


SEIN, HABEN, WERDEN = parse_verbs("""
sein ist war gewesen* | be was been | copula | | | stat
haben hat hatte gehabt | have had had | t | person | | stat noimp
werden wird wurde geworden* | become became become | copula | | |
""")
