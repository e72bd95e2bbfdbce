"""Clauses in both languages, checked by hand."""

from __future__ import annotations

import pytest

from tools.demo_corpus.grammar.clauses import Clause
from tools.demo_corpus.grammar.english_clauses import english_question, english_statement
from tools.demo_corpus.grammar.german_clauses import (
    german_infinitive,
    german_main,
    german_question,
    german_subordinate,
)
from tools.demo_corpus.grammar.noun_phrases import nominal
from tools.demo_corpus.grammar.pronouns import pronoun, pronoun_for
from tools.demo_corpus.grammar.times import Time
from tools.demo_corpus.words.nouns import NOUN
from tools.demo_corpus.words.verbs import verb_named


def calling(**more: object) -> Clause:
    """She calls the teacher."""
    clause = Clause(pronoun("sie"), verb_named("anrufen"), accusative=nominal("the", [], NOUN["Lehrer"]))
    for name, value in more.items():
        setattr(clause, name, value)
    return clause


def test_separable_verb_in_every_position() -> None:
    assert german_main(calling()) == "sie ruft den Lehrer an"
    assert german_main(calling(time=Time("morgen", "tomorrow", "future")), "time") == "morgen ruft sie den Lehrer an"
    assert german_subordinate(calling(), "weil") == "weil sie den Lehrer anruft"
    assert german_main(calling(tense="perfect")) == "sie hat den Lehrer angerufen"
    assert german_subordinate(calling(tense="perfect"), "dass") == "dass sie den Lehrer angerufen hat"
    assert german_main(calling(modal="müssen")) == "sie muss den Lehrer anrufen"
    assert german_infinitive(calling(), "um") == "um den Lehrer anzurufen"
    assert german_question(calling()) == "ruft sie den Lehrer an"
    assert german_main(calling(negation="nicht")) == "sie ruft den Lehrer nicht an"


@pytest.mark.parametrize(
    ("more", "english"),
    [
        ({}, "she is calling the teacher"),
        ({"negation": "nicht"}, "she is not calling the teacher"),
        ({"time": Time("morgen", "tomorrow", "future")}, "she will call the teacher tomorrow"),
        ({"time": Time("jeden Tag", "every day", "habit")}, "she calls the teacher every day"),
        (
            {"time": Time("jeden Tag", "every day", "habit"), "negation": "nicht"},
            "she does not call the teacher every day",
        ),
        ({"frequency": ("oft", "often")}, "she often calls the teacher"),
        ({"tense": "perfect"}, "she called the teacher"),
        ({"tense": "preterite", "negation": "nicht"}, "she did not call the teacher"),
        ({"tense": "pluperfect"}, "she had called the teacher"),
        ({"modal": "müssen"}, "she must call the teacher"),
        ({"modal": "müssen", "negation": "nicht"}, "she does not have to call the teacher"),
        ({"modal": "müssen", "tense": "preterite"}, "she had to call the teacher"),
        ({"modal": "wollen"}, "she wants to call the teacher"),
        ({"modal": "dürfen", "negation": "nicht"}, "she is not allowed to call the teacher"),
        ({"liking": True}, "she likes to call the teacher"),
    ],
)
def test_english_tenses(more: dict[str, object], english: str) -> None:
    assert english_statement(calling(**more)) == english


def test_english_questions() -> None:
    assert english_question(calling()) == "is she calling the teacher"
    assert english_question(calling(tense="perfect")) == "did she call the teacher"
    assert english_question(calling(aspect="simple"), "how often") == "how often does she call the teacher"


def test_english_particle_follows_a_pronoun() -> None:
    switch = Clause(pronoun("er"), verb_named("ausschalten"), accusative=nominal("the", [], NOUN["Lampe"]))
    assert english_statement(switch) == "he is turning off the lamp"
    switch.accusative = pronoun_for(nominal("the", [], NOUN["Lampe"]))
    assert german_main(switch) == "er schaltet sie aus"
    assert english_statement(switch) == "he is turning it off"


def test_passive() -> None:
    house = nominal("the", [], NOUN["Haus"])
    forms = [
        Clause(house, verb_named("bauen"), passive=True),
        Clause(house, verb_named("bauen"), "preterite", passive=True),
        Clause(house, verb_named("bauen"), "perfect", passive=True),
        Clause(house, verb_named("bauen"), modal="müssen", passive=True),
    ]
    assert [german_main(clause) for clause in forms] == [
        "das Haus wird gebaut",
        "das Haus wurde gebaut",
        "das Haus ist gebaut worden",
        "das Haus muss gebaut werden",
    ]
    assert [english_statement(clause) for clause in forms] == [
        "the house is being built",
        "the house was built",
        "the house was built",
        "the house must be built",
    ]


def test_dative_and_accusative_objects_and_their_pronouns() -> None:
    child, book = nominal("the", [], NOUN["Kind"]), nominal("the", [], NOUN["Buch"])
    giving = Clause(pronoun("ich"), verb_named("geben"), accusative=book, dative=child, tense="perfect")
    assert german_main(giving) == "ich habe dem Kind das Buch gegeben"
    assert english_statement(giving) == "I gave the child the book"
    giving.accusative = pronoun_for(book)
    assert german_main(giving) == "ich habe es dem Kind gegeben"
    assert english_statement(giving) == "I gave it to the child"
