"""Coordinated main clauses, pronouns that refer from one to the other, and corrections."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tools.demo_corpus.grammar.clause_drawing import draw_clause, draw_personal_verb, plain
from tools.demo_corpus.grammar.clauses import SEIN, Clause
from tools.demo_corpus.grammar.drawing import chance, draw
from tools.demo_corpus.grammar.english_clauses import english_statement
from tools.demo_corpus.grammar.german_clauses import german_main
from tools.demo_corpus.grammar.noun_phrases import ACCUSATIVE, NOMINATIVE, NounPhrase, nominal
from tools.demo_corpus.grammar.phrase_drawing import draw_noun, draw_person, draw_plural
from tools.demo_corpus.grammar.pronouns import pronoun_for
from tools.demo_corpus.sentences.predicates import draw_state
from tools.demo_corpus.sentences.relatives import DEEDS, class_of
from tools.demo_corpus.sentences.statements import continued, stated, subordinate
from tools.demo_corpus.sentences.subordination import same_or_new
from tools.demo_corpus.words.text import Pair, Sentence
from tools.demo_corpus.words.verbs import verb_named


def coordinate(first: Clause, conjunction: Pair, second: Clause) -> Sentence:
    """Two main clauses; the conjunction comes with the comma before it."""
    return (
        f"{german_main(first)}{conjunction[0]} {german_main(second)}",
        f"{english_statement(first)}{conjunction[1]} {english_statement(second)}",
        ".",
    )


def reference(rng: Random) -> Sentence:
    """Der Koffer ist schwer, aber Peter trägt ihn: a pronoun for a thing, by the gender of its noun."""
    kind = draw(rng, [kind for kind in DEEDS if kind not in {"person", "thing"}])
    noun = draw_noun(rng, [kind])
    phrase = nominal(draw(rng, ["the", "this", "my", "your"]), [], noun, draw_plural(rng, noun, 0.2))
    again = pronoun_for(phrase)
    verb = verb_named(draw(rng, DEEDS[class_of(phrase)]), "t")
    if again is None:
        return reference(rng)
    tenses = draw(rng, ["present", "past"])
    as_object = chance(rng, 0.6)
    person = draw_person(rng, formal=as_object)
    clause = plain(draw_clause(rng, verb, person, tenses, adjuncts=0.0, negation=0.15 if as_object else 0.4))
    clause = replace(clause, accusative=phrase, place=None, negation="nicht" if clause.negation else "")
    state = Clause(phrase, SEIN, "present" if tenses == "present" else "preterite", complement=draw_state(rng, noun))
    if as_object:
        clause.accusative = again
        german, english = draw(rng, [("aber", "but"), ("und", "and"), ("aber", "but")])
        return coordinate(state, (f" , {german}", f", {english}"), clause)
    state.subject = again
    return continued(clause, *subordinate(state, draw(rng, [("weil", "because"), ("obwohl", "although")])))


def coordination(rng: Random) -> Sentence:
    """Two main clauses with und, aber or denn; or one subject with two verbs."""
    tenses = draw(rng, ["present", "past"])
    subject = draw_person(rng, formal=False, indefinite=False)
    main = draw_clause(rng, draw_personal_verb(rng), subject, tenses, adjuncts=0.4, negation=0.1)
    if chance(rng, 0.45):
        return shared_subject(rng, main, tenses)
    again = same_or_new(rng, subject) or draw_person(rng)
    second = draw_clause(rng, draw_personal_verb(rng), again, tenses, adjuncts=0.3, negation=0.2)
    return coordinate(main, draw(rng, [(" und", " and"), (" , aber", ", but"), (" , denn", " because")]), second)


def shared_subject(rng: Random, main: Clause, tenses: str) -> Sentence:
    """Er öffnet das Fenster und macht das Licht aus: the second verb has no subject of its own."""
    verb = draw_personal_verb(rng)
    while verb.infinitive == main.verb.infinitive:
        verb = draw_personal_verb(rng)
    second = draw_clause(rng, verb, main.subject, tenses, adjuncts=0.2, negation=0.1)
    german_second = german_main(second).removeprefix(second.subject.german[NOMINATIVE] + " ")
    english_second = english_statement(second, subject="")
    return f"{german_main(main)} und {german_second}", f"{english_statement(main)} and {english_second}", "."


def correction(rng: Random) -> Sentence:
    """nicht/kein ..., sondern ...; weder ... noch ...; sowohl ... als auch ..."""
    verb = verb_named(draw(rng, ["kaufen", "haben", "brauchen", "essen", "trinken", "bestellen"]), "t")
    name = draw(rng, verb.objects)
    first, second = draw_noun(rng, [name]), draw_noun(rng, [name])
    subject = draw_person(rng, formal=False, indefinite=False)
    if first.english == second.english:
        return correction(rng)
    clause = plain(draw_clause(rng, verb, subject, draw(rng, ["present", "past"]), adjuncts=0.0, negation=0.0))
    clause.place = None
    first_phrase, second_phrase = (nominal("" if noun.mass else "a", [], noun) for noun in (first, second))
    if chance(rng, 0.6):
        clause.accusative, clause.negation = replace(nominal("no", [], first), english=first_phrase.english), "kein"
        clause.then = f", sondern {second_phrase.german[ACCUSATIVE]}", f"but {second_phrase.english[1]}"
        return stated(clause)
    if chance(rng, 0.5):
        german = f"weder {first_phrase.german[ACCUSATIVE]} noch {second_phrase.german[ACCUSATIVE]}"
        english = f"neither {first_phrase.english[1]} nor {second_phrase.english[1]}"
    else:
        german = f"sowohl {first_phrase.german[ACCUSATIVE]} als auch {second_phrase.german[ACCUSATIVE]}"
        english = f"both {first_phrase.english[1]} and {second_phrase.english[1]}"
    clause.accusative = NounPhrase((german,) * 4, (english, english, ""), definite=False)
    return stated(clause)
