"""What things and persons are: adjectives with their degrees, professions, comparison."""

from __future__ import annotations

import re
from random import Random

from tools.demo_corpus.grammar.clauses import SEIN, WERDEN, Clause
from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.grammar.english_clauses import english_statement
from tools.demo_corpus.grammar.german_clauses import german_subordinate
from tools.demo_corpus.grammar.names import NAMES
from tools.demo_corpus.grammar.noun_phrases import ACCUSATIVE, NOMINATIVE, english_nominal, nominal
from tools.demo_corpus.grammar.phrase_drawing import (
    adjectives_for,
    draw_noun,
    draw_person,
    draw_plural,
    with_attribute,
)
from tools.demo_corpus.grammar.pronouns import GAP, relative_pronoun
from tools.demo_corpus.grammar.times import Time
from tools.demo_corpus.sentences.statements import asked, stated
from tools.demo_corpus.words.adjectives import ALL_ADJECTIVES, Adjective
from tools.demo_corpus.words.nouns import NOUNS_OF, Noun
from tools.demo_corpus.words.numbers import number_words
from tools.demo_corpus.words.text import Pair, Sentence, join, word_list
from tools.demo_corpus.words.verbs import verb_named

_DEGREES = [
    ("sehr", "very"),
    ("zu", "too"),
    ("besonders", "particularly"),
    ("ziemlich", "quite"),
    *[("", "")] * 3,
]


def negate_state(clause: Clause) -> None:
    """nicht before a predicate, which loses ziemlich and noch: *not quite old* would mean something else."""
    clause.negation = "nicht"
    if clause.complement:
        german, english = clause.complement
        clause.complement = re.sub("^(ziemlich|noch) ", "", german), re.sub("^(quite|still) ", "", english)


def draw_state(rng: Random, noun: Noun) -> Pair:
    """An adjective that suits the noun, half of the time with a degree if it has degrees."""
    adjective = draw_skewed(rng, adjectives_for(noun) or ALL_ADJECTIVES[:1])
    degree = draw(rng, _DEGREES) if adjective.comparable else ("", "")
    return join(degree[0], adjective.german[0]), join(degree[1], adjective.english[0])


def draw_feeling(rng: Random) -> Pair:
    """An adjective for a person, now and then with a degree."""
    adjective = draw_skewed(rng, _FEELINGS)
    degree = ("noch", "still") if adjective.english[0] in _PASSING and chance(rng, 0.2) else draw(rng, _DEGREES)
    return join(degree[0], adjective.german[0]), join(degree[1], adjective.english[0])


_PASSING = frozenset(word_list("tired sick sad hungry empty full dirty clean"))
_FEELINGS = [adjective for adjective in ALL_ADJECTIVES if "person" in adjective.classes]


def predicate(rng: Random) -> Sentence:
    """Der Tisch ist neu: predicative adjectives, negated or with a degree, of things and persons."""
    if chance(rng, 0.4):
        return profession(rng)
    noun = draw_noun(rng, _DESCRIBED)
    plural = draw_plural(rng, noun, 0.25)
    subject = nominal(draw(rng, ["the", "the", "this", "my", "your"]), [], noun, plural)
    if chance(rng, 0.25) and not plural and not noun.mass:
        subject = with_attribute(rng, nominal("the", [], noun), [], noun, False)
    clause = Clause(subject, SEIN, tense=draw(rng, ["present", "present", "preterite"]))
    clause.complement = draw_state(rng, noun)
    if chance(rng, 0.25):
        negate_state(clause)
    if clause.complement[1] in _PASSING and clause.tense == "present" and not clause.negation and chance(rng, 0.4):
        clause.frequency = draw(rng, [("immer", "always"), ("oft", "often"), ("schon", "already")])
    if chance(rng, 0.2):
        return asked(clause)
    return stated(clause)


_DESCRIBED = word_list("furniture portable clothing vehicle building text device room show food drink person animal")


def profession(rng: Random) -> Sentence:
    """Sie ist Ärztin: no article in German; Er ist ein guter Arzt."""
    female = chance(rng, 0.5)
    refers = "she" if female else "he"
    noun = draw_skewed(rng, [noun for noun in NOUNS_OF["job"] if noun.refers == refers])
    if chance(rng, 0.5):
        subject = draw(rng, [name for name in NAMES if name.refers == refers])
    else:
        kin = draw(rng, [noun for noun in NOUNS_OF["kin"] if noun.refers == refers])
        subject = nominal(draw(rng, ["my", "our", "his", "her", "their", "your"]), [], kin)
    adjectives = [(draw(rng, _PROFESSIONAL), 0)] if chance(rng, 0.4) else []
    phrase = nominal("a" if adjectives else "", adjectives, noun)
    english = english_nominal("a", adjectives, noun, False)
    clause = Clause(subject, SEIN, complement=(phrase.german[NOMINATIVE], english))
    clause.tense = draw(rng, ["present", "present", "preterite"])
    if chance(rng, 0.2) and not adjectives:
        clause.complement, clause.negation = (nominal("no", [], noun).german[NOMINATIVE], english), "kein"
    elif chance(rng, 0.3):
        clause = Clause(subject, WERDEN, modal=draw(rng, ["wollen", "möchten"]), complement=clause.complement)
    elif chance(rng, 0.3) and clause.tense == "present":
        german, english = number_words(rng.randint(2, 40))
        clause.time = Time(f"seit {german} Jahren", f"for {english} years", "since")
        clause.aspect = "perfect"
    return stated(clause)


_PROFESSIONAL = [
    adjective for adjective in ALL_ADJECTIVES if adjective.english[0] in {"good", "honest", "kind", "rich"}
]


def comparison(rng: Random) -> Sentence:
    """älter als, so alt wie, der älteste."""
    adjective = draw(rng, [adjective for adjective in ALL_ADJECTIVES if adjective.comparable])
    classes = [name for name in _DESCRIBED if name in adjective.classes and name not in {"food", "drink"}]
    if not classes:
        return comparison(rng)
    name = draw(rng, classes)
    first, second = draw_noun(rng, [name]), draw_noun(rng, [name])
    if first.english == second.english:
        return comparison(rng)
    left = nominal(draw(rng, ["the", "this", "my", "your"]), [], first)
    if chance(rng, 0.22):
        return superlative(rng, adjective, first)
    right = nominal(draw(rng, ["the", "my", "your", "this"]), [], second)
    tense = draw(rng, ["present", "present", "preterite"])
    if chance(rng, 0.6):
        degree = draw(rng, [("", ""), ("", ""), ("viel", "much"), ("noch", "even")])
        german = join(degree[0], adjective.german[1], "als", right.german[NOMINATIVE])
        english = join(degree[1], adjective.english[1], "than", right.english[0])
        return stated(Clause(left, SEIN, tense=tense, complement=(german, english)))
    same = f"so {adjective.german[0]} wie {right.german[0]}", f"as {adjective.english[0]} as {right.english[0]}"
    return stated(Clause(left, SEIN, tense=tense, complement=same, negation="nicht" if chance(rng, 0.5) else ""))


def superlative(rng: Random, adjective: Adjective, noun: Noun) -> Sentence:
    """Das ist der älteste Turm in der Stadt."""
    phrase = nominal("the", [(adjective, 2)], noun)
    if "person" in noun.classes or chance(rng, 0.4):
        where = draw(rng, [("in der Stadt", "in the town"), ("im Dorf", "in the village"), ("von allen", "of all")])
        german, english = f"das ist {phrase.german[0]} {where[0]}", f"this is {phrase.english[0]} {where[1]}"
        return german, english, "."
    which = relative_pronoun(phrase, False)
    clause = Clause(draw_person(rng, indefinite=False), verb_named("sehen", "t"), "perfect", aspect="perfect")
    clause.accusative, clause.frequency = GAP, ("jemals", "ever")
    german = german_subordinate(clause, which.german[ACCUSATIVE], "accusative")
    return (
        f"das ist {phrase.german[NOMINATIVE]} , {german}",
        f"this is {phrase.english[0]} that {english_statement(clause)}",
        ".",
    )
