"""Infinitive clauses with zu: after verbs, adjectives and nouns, and with um and ohne."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tools.demo_corpus.grammar.clause_drawing import draw_clause, dynamic_clause, in_past
from tools.demo_corpus.grammar.clauses import HABEN, Clause
from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.grammar.english_clauses import english_infinitive
from tools.demo_corpus.grammar.german_clauses import german_infinitive
from tools.demo_corpus.grammar.phrase_drawing import draw_person
from tools.demo_corpus.grammar.pronouns import ANYONE, pronoun_for
from tools.demo_corpus.sentences.statements import continued
from tools.demo_corpus.words.text import Sentence
from tools.demo_corpus.words.verbs import VERBS_OF, parse_verbs

# Verbs that an infinitive clause depends on; English has to, or with the flag "ing" the ing form.
_INFINITIVE_VERBS = parse_verbs("""
versuchen | try tried tried | z | person | |
vergessen vergisst vergaß vergessen | forget forgot forgotten | z | person | | stat
hoffen | hope | z | person | | stat
planen | plan planned planned | z | person | | stat
beschließen beschließt beschloss beschlossen | decide | z | person | | stat
an·fangen fängt fing gefangen | begin began begun | z | person | |
auf·hören | stop stopped stopped | z | person | | stat ing
versprechen verspricht versprach versprochen | promise | z | person | | stat
""")
_INFINITIVE_ADJECTIVES = [
    ("wichtig", "important"),
    ("leicht", "easy"),
    ("schwer", "difficult"),
    ("schön", "nice"),
    ("verboten", "forbidden"),
    ("möglich", "possible"),
    ("gefährlich", "dangerous"),
]


def infinitive_clause(rng: Random) -> Sentence:
    """zu with the infinitive after a verb, an adjective or a noun."""
    kind = rng.random()
    subject = draw_person(rng, formal=False) if kind > 0.2 else ANYONE
    clause = dynamic_clause(rng, subject)
    if kind <= 0.2:
        german, english = draw(rng, _INFINITIVE_ADJECTIVES)
        return f"es ist {german} , {german_infinitive(clause)}", f"it is {english} to {english_infinitive(clause)}", "."
    if kind < 0.35:
        noun = draw(rng, [("keine Zeit", "no time"), ("genug Zeit", "enough time"), ("genug Geld", "enough money")])
        main = Clause(subject, HABEN, tense=draw(rng, ["present", "preterite"]), complement=noun)
        return continued(main, german_infinitive(clause), f"to {english_infinitive(clause)}")
    verb = draw_skewed(rng, _INFINITIVE_VERBS)
    main = Clause(subject, verb)
    if chance(rng, 0.6):
        main = in_past(main) if chance(rng, 0.4) else replace(main, tense="perfect")
    ing = "ing" in verb.flags
    english = english_infinitive(clause, "ing") if ing else f"to {english_infinitive(clause)}"
    return continued(main, german_infinitive(clause), english)


def purpose(rng: Random) -> Sentence:
    """um ... zu (to), ohne ... zu (without doing)."""
    subject = draw_person(rng, formal=False, indefinite=False)
    main = draw_clause(
        rng, draw(rng, VERBS_OF["m"]), subject, draw(rng, ["present", "past"]), adjuncts=0.2, negation=0.0
    )
    clause = dynamic_clause(rng, pronoun_for(subject) or subject)
    if chance(rng, 0.7):
        return continued(main, german_infinitive(clause, "um"), f"to {english_infinitive(clause)}")
    return continued(main, german_infinitive(clause, "ohne"), f"without {english_infinitive(clause, 'ing')}")
