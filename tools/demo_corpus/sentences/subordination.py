"""Sentences with a subordinate clause after a conjunction: reasons, time, purpose, dass, and conditions."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tools.demo_corpus.grammar.clause_drawing import (
    RAIN,
    draw_clause,
    draw_personal_verb,
    draw_verb,
    dynamic_clause,
    in_past,
)
from tools.demo_corpus.grammar.clauses import SEIN, Clause
from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.grammar.english_clauses import english_statement
from tools.demo_corpus.grammar.german_clauses import german_main
from tools.demo_corpus.grammar.noun_phrases import NOMINATIVE, NounPhrase
from tools.demo_corpus.grammar.phrase_drawing import draw_object_person, draw_person
from tools.demo_corpus.grammar.pronouns import pronoun, pronoun_for
from tools.demo_corpus.sentences.predicates import draw_feeling, negate_state
from tools.demo_corpus.sentences.statements import continued, subordinate
from tools.demo_corpus.words.conjugation import modal_finite
from tools.demo_corpus.words.text import Pair, Sentence
from tools.demo_corpus.words.verbs import parse_verbs

_REASONS = [("weil", "because"), ("weil", "because"), ("obwohl", "although"), ("da", "since")]


def same_or_new(rng: Random, subject: NounPhrase) -> NounPhrase | None:
    """The subject of a second clause: mostly the first one again, as a pronoun, if it is a person."""
    again = pronoun_for(subject)
    return again if again is not None and subject.refers != "it" and chance(rng, 0.65) else None


def reason_clause(rng: Random, subject: NounPhrase, tenses: str) -> Clause:
    """What stands after weil, obwohl and dass: weather, a state, or an action."""
    kind = rng.random()
    tense = "preterite" if tenses == "past" else "present"
    if kind < 0.1:
        aspect = "past progressive" if tenses == "past" else "progressive"
        return Clause(pronoun("es"), draw(rng, RAIN), tense, aspect=aspect)
    again = same_or_new(rng, subject)
    if kind < 0.35:
        clause = Clause(again or draw_person(rng), SEIN, tense, complement=draw_feeling(rng))
        if chance(rng, 0.15) and not clause.subject.negative:
            negate_state(clause)
        return clause
    verb = draw_personal_verb(rng) if again else draw_verb(rng)
    return draw_clause(rng, verb, again, tenses, adjuncts=0.4)


def preceded(main: Clause, german: str, english: str) -> Sentence:
    """A main clause and a subordinate one before it, which the German main verb follows at once."""
    return german_main(main, opening=f"{german} ,"), f"{english}, {english_statement(main)}", "."


def combine(rng: Random, main: Clause, clause: Clause, conjunction: Pair, first: float = 0.35) -> Sentence:
    """A main clause and a subordinate one, in either order."""
    fronted = main.subject.formal or chance(rng, first)
    return (preceded if fronted else continued)(main, *subordinate(clause, conjunction))


def reason(rng: Random) -> Sentence:
    """weil, obwohl, da."""
    tenses = draw(rng, ["present", "past"])
    main = draw_clause(rng, tenses=tenses, adjuncts=0.4)
    conjunction = draw(rng, _REASONS)
    clause = reason_clause(rng, main.subject, tenses)
    if conjunction[0] == "da":
        return preceded(main, *subordinate(clause, conjunction))
    return combine(rng, main, clause, conjunction)


def temporal_present(rng: Random) -> Sentence:
    """wenn, sobald, bevor in the present: English has will in the main clause and the present after them."""
    main = dynamic_clause(rng)
    conjunction = draw(rng, [*[("wenn", "if")] * 3, ("sobald", "as soon as"), ("bevor", "before")])
    if chance(rng, 0.3):
        main.modal = draw(rng, ["können", "müssen", "wollen", "möchten", "dürfen", "werden"])
    else:
        main.aspect = "will"
    if conjunction[0] == "wenn" and chance(rng, 0.3):
        clause = Clause(pronoun("es"), draw(rng, RAIN), aspect="simple")
    else:
        clause = replace(dynamic_clause(rng, same_or_new(rng, main.subject)), aspect="simple")
    return combine(rng, main, clause, conjunction, 0.5)


def whenever(rng: Random) -> Sentence:
    """immer wenn: the simple present on both sides."""
    main = replace(dynamic_clause(rng), aspect="simple")
    clause = replace(dynamic_clause(rng, same_or_new(rng, main.subject)), aspect="simple")
    return combine(rng, main, clause, ("immer wenn", "whenever"), 0.6)


def temporal_past(rng: Random) -> Sentence:
    """als, während, bevor in the past."""
    main = dynamic_clause(rng)
    main = in_past(main) if chance(rng, 0.5) else replace(main, tense="perfect")
    conjunction = draw(rng, [("als", "when"), ("als", "when"), ("während", "while"), ("bevor", "before")])
    clause = in_past(dynamic_clause(rng, same_or_new(rng, main.subject)))
    if conjunction[0] == "während":
        clause.aspect = "past progressive"
    if conjunction[0] == "als" and chance(rng, 0.25):
        clause = Clause(draw_person(rng), SEIN, tense="preterite", complement=draw(rng, _STAGES))
    return combine(rng, main, clause, conjunction, 0.5)


_STAGES = [("noch jung", "still young"), ("krank", "sick"), ("noch klein", "still small"), ("sehr müde", "very tired")]


def after(rng: Random) -> Sentence:
    """nachdem with the pluperfect."""
    main = in_past(dynamic_clause(rng))
    clause = replace(dynamic_clause(rng, same_or_new(rng, main.subject)), tense="pluperfect")
    return combine(rng, main, clause, ("nachdem", "after"), 0.7)


def so_that(rng: Random) -> Sentence:
    """damit with können."""
    main = dynamic_clause(rng, draw_person(rng, formal=False))
    clause = replace(dynamic_clause(rng, draw_person(rng)), modal="können")
    return continued(main, *subordinate(clause, ("damit", "so that")))


# Verbs that take a clause with dass.
_SAYING = parse_verbs("""
sagen | say said said | c | person | |
wissen weiß wusste gewusst | know knew known | c | person | | stat
glauben | believe | c | person | | stat
hoffen | hope | c | person | | stat
denken denkt dachte gedacht | think thought thought | c | person | | stat
erzählen | tell told told | d | person | |
merken | notice | c | person | | stat
""")
_IT_IS = [
    ("es ist schade", "it is a pity"),
    ("es ist gut", "it is good"),
    ("es ist möglich", "it is possible"),
    ("es tut mir leid", "I am sorry"),
    ("es freut mich", "I am glad"),
    ("es ist wichtig", "it is important"),
]


def that_clause(rng: Random) -> Sentence:
    """dass after verbs of saying and thinking, and after es ist ..."""
    tenses = draw(rng, ["present", "present", "past"])
    if chance(rng, 0.25):
        german, english = draw(rng, _IT_IS)
        that = subordinate(reason_clause(rng, pronoun("ich"), tenses), ("dass", "that"))
        return f"{german} , {that[0]}", f"{english} {that[1]}", "."
    subject, verb = draw_person(rng, formal=False), draw_skewed(rng, _SAYING)
    main = Clause(subject, verb, aspect="simple")
    if verb.frame == "d":
        main.dative = draw_object_person(rng, subject)
    if tenses == "past":
        main = in_past(replace(main, aspect=""))
    return continued(main, *subordinate(reason_clause(rng, subject, tenses), ("dass", "that")))


def conditional(rng: Random) -> Sentence:
    """Wenn ich Zeit hätte, würde ich ...: If I had time, I would ..."""
    subject = draw_person(rng, indefinite=False)
    having = chance(rng, 0.5)
    german, english = draw(rng, _WEALTH if having else _STATES)
    verb = modal_finite("hätte" if having else "wäre", False, subject.person, subject.plural)
    main = replace(dynamic_clause(rng, pronoun_for(subject)), modal="würden")
    opening = f"wenn {subject.german[NOMINATIVE]} {german} {verb} ,"
    condition = f"if {subject.english[0]} {'had' if having else 'were'} {english},"
    return german_main(main, opening=opening), f"{condition} {english_statement(main)}", "."


_WEALTH = [
    ("mehr Zeit", "more time"),
    ("mehr Geld", "more money"),
    ("ein Auto", "a car"),
    ("einen Garten", "a garden"),
    ("ein größeres Haus", "a bigger house"),
    ("Ferien", "holidays"),
    ("einen Hund", "a dog"),
]
_STATES = [
    ("reich", "rich"),
    ("jünger", "younger"),
    ("nicht so müde", "not so tired"),
    ("gesund", "healthy"),
    ("älter", "older"),
]
