"""Questions, direct and indirect."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tools.demo_corpus.grammar.clause_drawing import (
    LASTING,
    draw_clause,
    draw_personal_verb,
    dynamic_clause,
    in_past,
    plain,
)
from tools.demo_corpus.grammar.clauses import Clause
from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.grammar.english_clauses import english_statement
from tools.demo_corpus.grammar.german_clauses import german_main
from tools.demo_corpus.grammar.noun_phrases import ACCUSATIVE, NOMINATIVE, NounPhrase, nominal
from tools.demo_corpus.grammar.phrase_drawing import draw_noun, draw_person
from tools.demo_corpus.grammar.pronouns import GAP, pronoun
from tools.demo_corpus.sentences.statements import asked, subordinate
from tools.demo_corpus.words.nouns import Noun
from tools.demo_corpus.words.text import Pair, Sentence
from tools.demo_corpus.words.verbs import VERBS_OF


def question(rng: Random) -> Sentence:
    """Yes/no questions."""
    clause = draw_clause(rng, adjuncts=0.6, negation=0.03)
    return asked(clause)


_LASTING_INTRANSITIVE = [verb for verb in VERBS_OF["i"] if verb.full_infinitive in LASTING]
_SOCIABLE = [verb for verb in VERBS_OF["i"] if verb.infinitive in {"spielen", "tanzen", "arbeiten", "frühstücken"}]


def ask_adverbial(rng: Random) -> Sentence:
    """warum, wann, wie oft, wie lange."""
    word, english, aspect = draw(
        rng,
        [
            ("warum", "why", ""),
            ("warum", "why", "past"),
            ("wann", "when", "will"),
            ("wann", "when", "past"),
            ("wie oft", "how often", "simple"),
            ("wie lange", "how long", "will"),
        ],
    )
    clause = dynamic_clause(rng, draw_asked_person(rng))
    if word == "wie lange":
        clause = Clause(clause.subject, draw(rng, _LASTING_INTRANSITIVE))
    if aspect == "past":
        clause = in_past(clause) if chance(rng, 0.3) else replace(clause, tense="perfect")
    else:
        clause.aspect = aspect
    return asked(clause, (word, english))


def draw_asked_person(rng: Random) -> NounPhrase:
    """The subject of a question: neither the speaker nor nobody in particular."""
    person = draw_person(rng, indefinite=False)
    return pronoun("du") if person.german[NOMINATIVE] == "ich" else person


def ask_place(rng: Random) -> Sentence:
    """wo and wohin."""
    motion = chance(rng, 0.5)
    verb = draw(rng, [verb for verb in VERBS_OF["m" if motion else "l"] if not verb.particle])
    clause = plain(draw_clause(rng, verb, draw_asked_person(rng), adjuncts=0.0, negation=0.0))
    clause.complement = None
    return asked(clause, ("wohin" if motion else "wo", "where"))


def ask_object(rng: Random) -> Sentence:
    """wen, wem, was, welch-, wie viele."""
    verb = draw_skewed(rng, [verb for verb in VERBS_OF["t"] if "bare" not in verb.flags])
    clause = plain(draw_clause(rng, verb, draw_asked_person(rng), adjuncts=0.0, negation=0.0))
    kind = draw_skewed(rng, verb.objects)
    clause.accusative, clause.place = GAP, None
    if kind == "person":
        word = ("wen", "who")
    elif chance(rng, 0.4):
        word = ("was", "what")
    else:
        word = which_or_how_many(rng, draw_noun(rng, [kind]))
    return asked(clause, word, "accusative")


def which_or_how_many(rng: Random, noun: Noun) -> Pair:
    """welchen Tisch, which table; wie viele Tische, how many tables; wie viel Brot, how much bread."""
    if noun.mass:
        return f"wie viel {noun.singular}", f"how much {noun.english}"
    if chance(rng, 0.5):
        return f"wie viele {noun.plural}", f"how many {noun.english_plural}"
    phrase = nominal("which", [], noun)
    return phrase.german[ACCUSATIVE], phrase.english[1]


def ask_dative(rng: Random) -> Sentence:
    """wem with verbs of the dative."""
    verb = draw(rng, [verb for verb in VERBS_OF["d"] if not verb.english.preposition])
    clause = plain(draw_clause(rng, verb, draw_asked_person(rng), adjuncts=0.0, negation=0.0))
    clause.dative = GAP
    return asked(clause, ("wem", "who"), "dative")


def ask_subject(rng: Random) -> Sentence:
    """wer: no do in English."""
    who = NounPhrase(("wer", "", "", ""), ("who", "", ""))
    clause = draw_clause(rng, draw_personal_verb(rng), who, adjuncts=0.5, negation=0.05)
    return german_main(clause), english_statement(clause), "?"


_WH_QUESTIONS = [ask_adverbial, ask_adverbial, ask_place, ask_object, ask_object, ask_dative, ask_subject]


def wh_question(rng: Random) -> Sentence:
    """Questions with warum, wann, wo, wohin, wer, wen, wem, was, welch-, wie viele, wie lange."""
    return draw(rng, _WH_QUESTIONS)(rng)


def indirect_question(rng: Random) -> Sentence:
    """Weißt du, wo ...? Ich weiß nicht, ob ...: verb-final in German, no inversion in English."""
    word, english = draw(rng, _INDIRECT)
    clause = dynamic_clause(rng, draw_person(rng, indefinite=False))
    if word == "wo":
        clause = Clause(clause.subject, draw(rng, VERBS_OF["l"]))
    elif word == "mit wem":
        clause = Clause(clause.subject, draw(rng, _SOCIABLE))
    if word == "wann":
        clause.aspect = "will"
    elif chance(rng, 0.4):
        clause = in_past(clause)
    opening = draw(rng, _ASKING)
    asking = subordinate(clause, (word, english))
    return f"{opening[0]} , {asking[0]}", f"{opening[1]} {asking[1]}", opening[2]


_INDIRECT = [
    ("ob", "whether"),
    ("ob", "whether"),
    ("warum", "why"),
    ("wann", "when"),
    ("wo", "where"),
    ("mit wem", "with whom"),
]
_ASKING = [
    ("weißt du", "do you know", "?"),
    ("wissen Sie", "do you know", "?"),
    ("ich weiß nicht", "I do not know", "."),
    ("er fragt sich", "he wonders", "."),
    ("Anna möchte wissen", "Anna would like to know", "."),
    ("niemand weiß", "no one knows", "."),
    ("kannst du mir sagen", "can you tell me", "?"),
    ("wir möchten wissen", "we would like to know", "."),
    ("die Lehrerin will wissen", "the teacher wants to know", "."),
    ("es ist nicht klar", "it is not clear", "."),
]
