"""Relative clauses, of the subject, the object, an owner or a preposition.

After an object the clause waits for the verb bracket to close: *Ich habe den Mann getroffen, der ...*
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tools.demo_corpus.grammar.clause_drawing import draw_clause, draw_personal_verb, draw_tense
from tools.demo_corpus.grammar.clauses import SEIN, Clause
from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.grammar.english_clauses import english_statement
from tools.demo_corpus.grammar.german_clauses import german_subordinate
from tools.demo_corpus.grammar.noun_phrases import ACCUSATIVE, DATIVE, GENITIVE, NOMINATIVE, NounPhrase, nominal
from tools.demo_corpus.grammar.phrase_drawing import (
    adjectives_for,
    draw_adjectives,
    draw_nominal,
    draw_noun,
    draw_person,
    draw_plural,
)
from tools.demo_corpus.grammar.places import draw_spot
from tools.demo_corpus.grammar.pronouns import relative_pronoun
from tools.demo_corpus.sentences.predicates import draw_feeling, draw_state
from tools.demo_corpus.sentences.statements import stated, statement
from tools.demo_corpus.words.nouns import NOUN
from tools.demo_corpus.words.text import Pair, Sentence
from tools.demo_corpus.words.verbs import VERBS_OF, verb_named


def with_relative(rng: Random) -> Sentence:
    """A main clause whose object or subject has a relative clause; after an object it waits for the verb bracket."""
    if chance(rng, 0.4):
        return relative_after_subject(rng)
    verb = draw(rng, [verb for verb in VERBS_OF["t"] if "bare" not in verb.flags])
    noun = draw_noun(rng, [draw_skewed(rng, verb.objects)])
    plural = draw_plural(rng, noun, 0.2)
    determiner = draw(rng, ["the", "the", "this"] if plural or noun.mass else ["the", "the", "this", "a"])
    clause = draw_clause(rng, verb, adjuncts=0.3, negation=0.05)
    clause.accusative = nominal(determiner, draw_adjectives(rng, noun, 0.2), noun, plural)
    clause.time, clause.place, clause.manner = None, None, None
    clause.negation = "nicht" if clause.negation and determiner != "a" else ""
    german, english = relative_clause(rng, clause.accusative)
    clause.then = f", {german}", english
    return *statement(rng, clause), "."


def relative_after_subject(rng: Random) -> Sentence:
    """A main clause whose subject has a relative clause between commas."""
    phrase = draw_nominal(rng, ["person"], plural=0.2, attributes=False)
    if not phrase.definite:
        phrase = nominal("the", [], draw_noun(rng, ["person"]))
    german, english = relative_clause(rng, phrase)
    subject = replace(
        phrase,
        german=(f"{phrase.german[0]} , {german} ,", *phrase.german[1:]),
        english=(f"{phrase.english[0]} {english}", *phrase.english[1:]),
    )
    if chance(rng, 0.3):
        clause = Clause(subject, SEIN, tense=draw(rng, ["present", "preterite"]), complement=draw_feeling(rng))
    else:
        clause = draw_clause(rng, draw_personal_verb(rng), phrase, adjuncts=0.3)
        clause.subject = subject
    return stated(clause)


def class_of(phrase: NounPhrase) -> str:
    """The class of the head noun that decides what one does with the thing, or that it is a person."""
    classes = phrase.noun.classes if phrase.noun else frozenset[str]()
    return next((name for name in DEEDS if name in classes), "thing")


# What one does with a thing, or with a person, by class; a noun counts for the first class it belongs to.
DEEDS = {
    "person": ["kennen", "treffen", "besuchen", "einladen", "sehen", "anrufen", "fragen", "abholen"],
    "text": ["lesen", "schreiben", "kaufen", "finden", "übersetzen", "suchen"],
    "drink": ["trinken", "kaufen", "bestellen", "probieren"],
    "food": ["kaufen", "essen", "bestellen", "probieren"],
    "clothing": ["tragen", "kaufen", "waschen", "anziehen"],
    "device": ["reparieren", "einschalten", "kaufen", "ausschalten"],
    "vehicle": ["sehen", "kaufen", "reparieren", "waschen"],
    "room": ["aufräumen", "putzen"],
    "music": ["hören", "singen"],
    "event": ["vorbereiten", "absagen"],
    "portable": ["kaufen", "suchen", "finden", "mitbringen", "verlieren", "brauchen", "vergessen"],
    "building": ["sehen", "bauen", "fotografieren", "verkaufen"],
    "furniture": ["kaufen", "verkaufen", "putzen"],
    "opening": ["öffnen", "schließen", "zumachen", "putzen"],
    "part": ["putzen", "reparieren"],
    "animal": ["füttern", "sehen", "fotografieren"],
    "thing": ["sehen"],
}


def relative_clause(rng: Random, phrase: NounPhrase) -> Pair:
    """A relative clause about `phrase`, which is its subject, object or owner, or stands after its preposition."""
    kind = class_of(phrase)
    person = kind == "person"
    which = relative_pronoun(phrase, person)
    role = rng.random()
    if person and role < 0.45:
        verb = draw_skewed(rng, VERBS_OF[draw(rng, ["i", "l", "t", "p", "d"])])
        verb = verb if "person" in verb.subjects else verb_named("kennen", "t")
        clause = draw_clause(rng, verb, which, adjuncts=0.4, negation=0.1)
        return german_subordinate(clause, which.german[NOMINATIVE], "subject"), english_statement(clause)
    if person and role < 0.6:
        return relative_with_preposition(rng, which)
    if role < 0.7 and (person or kind == "building"):
        return relative_of_possession(rng, which, person)
    if role < 0.35:
        return relative_position(rng, which, phrase)
    clause = draw_clause(rng, verb_named(draw(rng, DEEDS[kind]), "t"), draw_person(rng), adjuncts=0.35, negation=0.08)
    clause.accusative = which
    clause.negation = "nicht" if clause.negation else ""
    if clause.frequency and clause.aspect == "perfect":
        clause.frequency, clause.aspect = None, ""
    german = german_subordinate(clause, which.german[ACCUSATIVE], "accusative")
    gap = replace(clause, accusative=replace(which, english=("", "", "")))
    return german, f"{which.english[1]} {english_statement(gap)}"


def relative_with_preposition(rng: Random, which: NounPhrase) -> Pair:
    """mit dem ich arbeite, with whom I work."""
    preposition, case, english, name = draw(rng, _COMPANY)
    verb = verb_named(name)
    verb = replace(verb, frame="i", english=replace(verb.english, preposition=""))
    clause = Clause(draw_person(rng), verb)
    draw_tense(rng, clause, "any")
    german = german_subordinate(clause, f"{preposition} {which.german[case]}")
    return german, f"{english} whom {english_statement(clause)}"


_COMPANY = [
    ("mit", DATIVE, "with", "arbeiten"),
    ("mit", DATIVE, "with", "spielen"),
    ("mit", DATIVE, "with", "tanzen"),
    ("mit", DATIVE, "with", "frühstücken"),
    ("mit", DATIVE, "with", "wohnen"),
    ("mit", DATIVE, "to", "sprechen"),
    ("von", DATIVE, "of", "träumen"),
    ("auf", ACCUSATIVE, "for", "warten"),
]


def relative_of_possession(rng: Random, which: NounPhrase, person: bool) -> Pair:
    """dessen Auto kaputt ist, whose car is broken."""
    noun = draw_noun(rng, ["vehicle", "kin", "portable", "pet"] if person else ["part"])
    adjective = draw_skewed(rng, adjectives_for(noun))
    possession = nominal("", [], noun)
    clause = Clause(possession, SEIN, complement=(adjective.german[0], adjective.english[0]))
    german = german_subordinate(clause, f"{which.german[GENITIVE]} {noun.singular}", "subject")
    return german, english_statement(clause, subject=f"whose {noun.english}")


def relative_position(rng: Random, which: NounPhrase, phrase: NounPhrase) -> Pair:
    """das auf dem Tisch liegt, that is lying on the table; or how it is: das sehr teuer war."""
    noun = phrase.noun or NOUN["Buch"]
    if noun.classes & {"small", "text"} and chance(rng, 0.6):
        clause = Clause(
            which, verb_named("liegen"), tense=draw(rng, ["present", "preterite"]), complement=draw_spot(rng, False)
        )
        clause.aspect = "past progressive" if clause.tense == "preterite" else ""
    else:
        clause = Clause(which, SEIN, tense=draw(rng, ["present", "preterite"]), complement=draw_state(rng, noun))
    return german_subordinate(clause, which.german[NOMINATIVE], "subject"), english_statement(clause)
