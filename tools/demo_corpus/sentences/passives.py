"""Passive sentences."""

from __future__ import annotations

from random import Random

from tools.demo_corpus.grammar.clauses import Clause
from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.grammar.names import NAMES
from tools.demo_corpus.grammar.noun_phrases import DATIVE, nominal
from tools.demo_corpus.grammar.phrase_drawing import draw_nominal, draw_noun
from tools.demo_corpus.grammar.prepositions import prepositional
from tools.demo_corpus.grammar.times import Time, draw_time
from tools.demo_corpus.sentences.statements import statement
from tools.demo_corpus.words.text import Sentence
from tools.demo_corpus.words.verbs import ALL_VERBS


def passive(rng: Random) -> Sentence:
    """wird gebaut, wurde gebaut, ist gebaut worden, muss gebaut werden; the agent with von."""
    verb = draw(rng, [verb for verb in ALL_VERBS if "pass" in verb.flags and verb.frame == "t"])
    name = draw_skewed(rng, verb.objects)
    subject = draw_nominal(rng, [name], adjective=0.3, plural=0.25)
    if not subject.definite:
        subject = nominal(
            "the", [], draw_noun(rng, [name]), chance(rng, 0.2) and name not in {"drink", "food", "baked", "dish"}
        )
    clause = Clause(subject, verb, passive=True, tense=draw(rng, ["present", "preterite", "preterite", "perfect"]))
    kind = rng.random()
    if "stat" in verb.flags:
        clause.tense = draw(rng, ["preterite", "perfect"])
    elif kind < 0.25:
        clause.tense, clause.modal = "present", draw(rng, ["müssen", "können", "sollen", "dürfen"])
    if chance(rng, 0.15):
        clause.negation = "nicht"
    if chance(rng, 0.35) and not clause.negation and not clause.modal:
        agent = (
            draw_nominal(rng, ["person"], adjective=0.2, plural=0.2) if chance(rng, 0.7) else draw_skewed(rng, NAMES)
        )
        clause.manner = prepositional("von", "by", agent, DATIVE)
    if chance(rng, 0.5):
        clause.time = passive_time(rng, clause)
    return *statement(rng, clause), "."


def passive_time(rng: Random, clause: Clause) -> Time:
    """A time that fits the tense; a past passive may carry a year."""
    if clause.modal:
        return draw_time(rng, ["future", "day"])
    if clause.tense == "present":
        return draw_time(rng, ["now", "future", "habit", "day"])
    if chance(rng, 0.4):
        year = rng.randint(1850, 2023)
        return Time(f"im Jahr {year}", f"in {year}", "past")
    return draw_time(rng, ["past", "day"])
