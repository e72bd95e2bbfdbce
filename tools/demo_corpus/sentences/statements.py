"""Statements: what may open them, how clauses are joined to sentences, and the plain ones."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tools.demo_corpus.grammar.clause_drawing import draw_clause
from tools.demo_corpus.grammar.clauses import Clause
from tools.demo_corpus.grammar.drawing import chance, draw
from tools.demo_corpus.grammar.english_clauses import english_aspect, english_question, english_statement
from tools.demo_corpus.grammar.german_clauses import german_main, german_question, german_subordinate
from tools.demo_corpus.grammar.noun_phrases import ACCUSATIVE, GENITIVE, NOMINATIVE, nominal
from tools.demo_corpus.grammar.phrase_drawing import draw_adjectives, draw_noun
from tools.demo_corpus.words.adjectives import Adjective
from tools.demo_corpus.words.nouns import NOUN
from tools.demo_corpus.words.text import Pair, Sentence


def frontable(clause: Clause) -> list[str]:
    """The fields other than the subject that may open the sentence without changing or blurring what it says."""
    fields = []
    if clause.time and clause.time.kind != "now":
        fields += ["time", "time", "time"]
    if clause.place and not clause.negation and clause.place[0] not in {"hier", "dort"}:
        fields.append("place")
    accusative, subject = clause.accusative, clause.subject
    if accusative and accusative.definite and not accusative.pronoun and not clause.negation:
        marked = accusative.german[ACCUSATIVE] != accusative.german[NOMINATIVE]
        marked_subject = subject.pronoun and subject.german[NOMINATIVE] != subject.german[ACCUSATIVE]
        if (marked or marked_subject) and not clause.frequency and not clause.then[0]:
            fields += ["accusative", "accusative", "accusative"]
    return fields


_OPENINGS = [
    ("vielleicht", "perhaps"),
    ("leider", "unfortunately,"),
    ("zum Glück", "fortunately,"),
    ("natürlich", "of course,"),
    ("deshalb", "therefore,"),
]


def statement(rng: Random, clause: Clause) -> Pair:
    """The clause as a main clause, some field first; English puts time and place first where German does.

    A formal Sie never comes first: its capital would be lost in that of the sentence, and with it the difference to
    they.
    """
    options = frontable(clause)
    formal = clause.subject.formal
    if (formal and not options) or chance(rng, 0.07):
        german, english = draw(rng, _OPENINGS)
        return german_main(clause, opening=german), english_statement(clause, english)
    if not options or (not formal and chance(rng, 0.45)):
        return german_main(clause), english_statement(clause)
    front = draw(rng, options)
    german = german_main(clause, front)
    if front == "time" and clause.time:
        untimed = replace(clause, time=None, aspect=fixed_aspect(clause))
        return german, english_statement(untimed, fronted(clause.time.english))
    if front == "place" and clause.place:
        return german, english_statement(replace(clause, place=None), fronted(clause.place[1]))
    return german, english_statement(clause)


def fixed_aspect(clause: Clause) -> str:
    """The aspect of a clause that is about to lose its time adverbial."""
    return "" if clause.modal else english_aspect(clause)


def fronted(english: str) -> str:
    """An adverbial at the start of the sentence, with a comma after two words or more."""
    return english if " " not in english else f"{english},"


def stated(clause: Clause) -> Sentence:
    """The clause as a statement that opens with its subject."""
    return german_main(clause), english_statement(clause), "."


def asked(clause: Clause, word: Pair = ("", ""), gap: str = "") -> Sentence:
    """The clause as a question: yes or no, or with a question word that stands for the German field `gap`."""
    return german_question(clause, word[0], gap), english_question(clause, word[1]), "?"


def subordinate(clause: Clause, conjunction: Pair) -> Pair:
    """The clause after a conjunction."""
    return german_subordinate(clause, conjunction[0]), f"{conjunction[1]} {english_statement(clause)}"


def continued(main: Clause, german: str, english: str) -> Sentence:
    """The main clause and another one after it, for which English sets no comma."""
    return f"{german_main(main)} , {german}", f"{english_statement(main)} {english}", "."


def simple(rng: Random) -> Sentence:
    """One main clause."""
    return *statement(rng, draw_clause(rng, adjuncts=0.9)), "."


_CAUSES = [
    ("Wetter", "schlecht", "bad"),
    ("Regen", "stark", "heavy"),
    ("Schnee", "tief", "deep"),
    ("Kälte", "groß", "great"),
    ("Hitze", "groß", "great"),
    ("Lärm", "laut", "loud"),
]


def genitive_preposition(rng: Random) -> Sentence:
    """wegen, trotz and während with the genitive."""
    main = draw_clause(rng, tenses=draw(rng, ["present", "past"]), adjuncts=0.25)
    main.time = None
    if chance(rng, 0.35):
        noun = draw_noun(rng, ["event"])
        phrase = nominal("the", draw_adjectives(rng, noun, 0.3), noun)
        german, english = f"während {phrase.german[GENITIVE]}", f"during {phrase.english[1]}"
    else:
        name, adjective_german, adjective_english = draw(rng, _CAUSES)
        adjective = Adjective((adjective_german, "", ""), (adjective_english, "", ""), frozenset(), False)
        phrase = nominal("the", [(adjective, 0)] if chance(rng, 0.7) else [], NOUN[name])
        word = draw(rng, [("wegen", "because of"), ("trotz", "despite")])
        german, english = f"{word[0]} {phrase.german[GENITIVE]}", f"{word[1]} {phrase.english[1]}"
    return german_main(main, opening=german), english_statement(main, f"{english},"), "."
