"""Imperatives to du, ihr and Sie."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tools.demo_corpus.grammar.clause_drawing import draw_clause, draw_personal_verb, negate, plain
from tools.demo_corpus.grammar.drawing import chance, draw
from tools.demo_corpus.grammar.english_clauses import english_infinitive
from tools.demo_corpus.grammar.german_clauses import german_fields
from tools.demo_corpus.grammar.pronouns import pronoun
from tools.demo_corpus.grammar.times import draw_time
from tools.demo_corpus.words.conjugation import german_imperative
from tools.demo_corpus.words.text import Sentence, join


def imperative(rng: Random) -> Sentence:
    """Imperatives to du, ihr and Sie, with bitte and negated."""
    address = draw(rng, ["du", "du", "ihr", "Sie"])
    subject = pronoun(address)
    verb = draw_personal_verb(rng)
    while "noimp" in verb.flags:
        verb = draw_personal_verb(rng)
    clause = plain(draw_clause(rng, verb, subject, "present", adjuncts=0.0, negation=0.25))
    if clause.verb.infinitive == "vergessen":
        negate(clause)
    if chance(rng, 0.25) and not clause.negation:
        clause.time = draw_time(rng, ["future", "now", "today"])
    finite = f"{verb.infinitive} Sie" if address == "Sie" else german_imperative(verb, address == "ihr")
    please = chance(rng, 0.4) and not (clause.accusative and clause.accusative.pronoun) and verb.frame != "refl"
    please = please and not (clause.dative and clause.dative.pronoun)
    middle = [text for name, text in german_fields(clause) if name != "subject"]
    german = join(finite, "bitte" if please else "", *middle, verb.particle.strip())
    lead = "do not" if clause.negation else ""
    body = english_infinitive(replace(clause, negation=""))
    return german, join("please" if please else "", lead, body), "!"
