"""Sentences whose subject is not the one it is in the other language: es gibt, gefallen, mir ist kalt."""

from __future__ import annotations

from random import Random

from tools.demo_corpus.grammar.clauses import SEIN, Clause
from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.grammar.english_clauses import BE, english_question, english_statement
from tools.demo_corpus.grammar.german_clauses import german_main, german_question
from tools.demo_corpus.grammar.noun_phrases import DATIVE, nominal
from tools.demo_corpus.grammar.phrase_drawing import (
    draw_adjectives,
    draw_count,
    draw_noun,
    draw_object_person,
    draw_plural,
)
from tools.demo_corpus.grammar.places import PLACES, place_phrase
from tools.demo_corpus.grammar.pronouns import pronoun
from tools.demo_corpus.words.conjugation import english_finite
from tools.demo_corpus.words.text import Sentence, join
from tools.demo_corpus.words.verbs import parse_verbs


def existence(rng: Random) -> Sentence:
    """Es gibt with the accusative: there is, there are."""
    place = draw_skewed(rng, PLACES)
    where = place_phrase(place, False, draw_adjectives(rng, place.noun, 0.2))
    outdoor = place.noun.singular in {"Park", "Stadt", "Markt", "Wald", "Strand", "See", "Dorf", "Garten"}
    noun = draw_noun(
        rng, ["building", "animal", "person", "vehicle"] if outdoor else ["furniture", "text", "device", "person"]
    )
    plural = draw_plural(rng, noun, 0.55)
    negative = chance(rng, 0.25)
    adjectives = draw_adjectives(rng, noun, 0.35)
    if negative:
        phrase = nominal("no", adjectives, noun, plural)
    elif plural and chance(rng, 0.6):
        phrase = nominal("", adjectives, noun, True, number=draw_count(rng))
    else:
        phrase = nominal(draw(rng, ["many", "some"]) if plural else "a", adjectives, noun, plural)
    past = chance(rng, 0.3)
    gives = "gab" if past else "gibt"
    be = english_finite(BE, past, phrase.agreement)
    if chance(rng, 0.2) and not negative:
        return f"{gives} es {where[0]} {phrase.german[1]}", f"{be} there {phrase.english[0]} {where[1]}", "?"
    if chance(rng, 0.5):
        return f"{where[0]} {gives} es {phrase.german[1]}", f"there {be} {phrase.english[0]} {where[1]}", "."
    return f"es {gives} {where[0]} {phrase.german[1]}", f"there {be} {phrase.english[0]} {where[1]}", "."


# German verbs whose dative is the English subject, save with "belong to".
_EXPERIENCES = parse_verbs("""
gefallen gefällt gefiel gefallen | like | x | | clothing text building show music room | stat
schmecken | like | x | | food baked dish fruit drink | stat
fehlen | miss | x | | person kin pet | stat
gehören | belong ~to | x | | vehicle building clothing portable pet | stat
""")


def experience(rng: Random) -> Sentence:
    """Das Kleid gefällt meiner Schwester: My sister likes the dress."""
    verb = draw_skewed(rng, _EXPERIENCES)
    noun = draw_noun(rng, verb.objects)
    plural = draw_plural(rng, noun, 0.25)
    thing = nominal(draw(rng, ["the", "the", "this", "my", "your"]), draw_adjectives(rng, noun, 0.3), noun, plural)
    person = draw_object_person(rng, thing)
    if not person.definite or ("person" in noun.classes and not person.pronoun):
        person = pronoun(draw(rng, ["ich", "er", "sie", "wir", "sie (plural)"]))
    tense = draw(rng, ["present", "present", "present", "preterite", "perfect"])
    negation = "nicht" if chance(rng, 0.25) else ""
    german = english = Clause(thing, verb, tense, negation=negation, dative=person)
    if not verb.english.preposition:
        english = Clause(person, verb, tense, negation=negation, accusative=thing)
    if chance(rng, 0.15):
        return german_question(german), english_question(english), "?"
    front = "dative" if chance(rng, 0.35) else "subject"
    return german_main(german, front), english_statement(english), "."


def feeling(rng: Random) -> Sentence:
    """Mir ist kalt: I am cold."""
    person = draw_object_person(rng, pronoun("es"))
    if not person.definite:
        person = pronoun("ich")
    german, english = draw(
        rng,
        [("kalt", "cold"), ("warm", "warm"), ("schlecht", "unwell"), ("langweilig", "bored"), ("zu heiß", "too hot")],
    )
    past = chance(rng, 0.3)
    state = Clause(person, SEIN, tense="preterite" if past else "present", complement=("", english))
    times = [("gestern", "yesterday")] if past else [("heute", "today"), ("jetzt", "now")]
    time = draw(rng, [("", ""), *times])
    text = join(person.german[DATIVE], "war" if past else "ist", time[0], german)
    return text, join(english_statement(state), time[1]), "."
