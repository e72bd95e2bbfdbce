"""Prices, ages and years, timetables and durations."""

from __future__ import annotations

from random import Random

from tools.demo_corpus.grammar.clauses import SEIN, WERDEN, Clause
from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.grammar.english_clauses import BE, english_statement
from tools.demo_corpus.grammar.german_clauses import german_main
from tools.demo_corpus.grammar.names import TOWNS, town_phrase
from tools.demo_corpus.grammar.noun_phrases import ACCUSATIVE, followed_by, nominal
from tools.demo_corpus.grammar.phrase_drawing import draw_adjectives, draw_noun, draw_person, words_or_digits
from tools.demo_corpus.grammar.prepositions import german_prepositional
from tools.demo_corpus.grammar.times import MONTHS, Time, clock, draw_amount
from tools.demo_corpus.sentences.statements import asked, fronted, stated, statement
from tools.demo_corpus.words.conjugation import english_finite, german_finite
from tools.demo_corpus.words.numbers import number_words
from tools.demo_corpus.words.text import Pair, Sentence, join
from tools.demo_corpus.words.verbs import parse_verbs, verb_named


def price(rng: Random, expensive: bool) -> Pair:
    """12 Euro, zwölf Euro, 3,50 Euro; 1.200 Euro if expensive: decimal comma and thousands point change over."""
    kind = 1.0 if expensive else rng.random()
    if kind < 0.3:
        german, english = number_words(rng.randint(2, 120))
        return f"{german} Euro", f"{english} euros"
    if kind < 0.55:
        n = rng.randint(2, 999)
        return f"{n} Euro", f"{n} euros"
    if not expensive:
        whole, cents = rng.randint(2, 99), rng.choice([5, 20, 25, 40, 50, 75, 80, 90, 95, 99])
        return f"{whole},{cents:02d} Euro", f"{whole}.{cents:02d} euros"
    thousands, rest = rng.randint(1, 98), rng.randint(0, 19) * 50
    return f"{thousands}.{rest:03d} Euro", f"{thousands},{rest:03d} euros"


_KOSTEN, _DAUERN, _BEZAHLEN = parse_verbs("""
kosten | cost cost cost | n | thing | | stat
dauern | last | n | event | | stat
bezahlen | pay paid paid | n | person | |
""")


def priced(rng: Random) -> Sentence:
    """Prices, asked and stated."""
    noun = draw_noun(rng, ["clothing", "furniture", "vehicle", "portable", "device", "text"])
    plural = chance(rng, 0.2)
    adjectives = draw_adjectives(rng, noun, 0.4)
    subject = nominal(draw(rng, ["the", "the", "this"]), adjectives, noun, plural)
    german, english = price(rng, "vehicle" in noun.classes)
    kind = rng.random()
    if kind < 0.15:
        return asked(Clause(subject, _KOSTEN), ("wie viel", "how much"))
    if kind < 0.4:
        payer = draw_person(rng, formal=False, indefinite=False)
        thing = german_prepositional("für", subject, ACCUSATIVE)
        clause = Clause(payer, _BEZAHLEN, tense="perfect", complement=(german, f"{english} for {subject.english[1]}"))
        if chance(rng, 0.5):
            return german_main(clause, opening=thing), english_statement(clause), "."
        clause.place = (thing, "")
        return stated(clause)
    tense = draw(rng, ["present", "present", "preterite"])
    about = draw(rng, [("", ""), ("", ""), ("nur", "only"), ("mehr als", "more than"), ("fast", "almost")])
    clause = Clause(subject, _KOSTEN, tense=tense, complement=(join(about[0], german), join(about[1], english)))
    if chance(rng, 0.15):
        clause.negation = "nicht"
        clause.complement = f"mehr als {german}", f"more than {english}"
    return stated(clause)


def age_or_year(rng: Random) -> Sentence:
    """Ages and years of birth."""
    subject = draw_person(rng, formal=False, indefinite=False)
    if chance(rng, 0.6):
        german, english = words_or_digits(rng, rng.randint(2, 99))
        clause = Clause(subject, SEIN, complement=(f"{german} Jahre alt", f"{english} years old"))
        clause.tense = draw(rng, ["present", "present", "preterite"])
        if chance(rng, 0.2):
            clause.frequency = ("schon", "already")
        return stated(clause)
    year = rng.randint(1920, 2015)
    town = town_phrase(draw_skewed(rng, TOWNS), False)
    be = german_finite(WERDEN, True, subject.person, subject.plural)
    was = english_finite(BE, True, subject.agreement)
    month = draw(rng, MONTHS)
    when = draw(rng, [(str(year), f"in {year}"), (f"im {month[0]} {year}", f"in {month[1]} {year}")])
    if chance(rng, 0.5):
        german = f"{subject.german[0]} {be} {when[0]} {town[0]} geboren"
        return german, f"{subject.english[0]} {was} born {town[1]} {when[1]}", "."
    german = f"{when[0]} {be} {subject.german[0]} {town[0]} geboren"
    return german, f"{fronted(when[1])} {subject.english[0]} {was} born {town[1]}", "."


def timetable(rng: Random) -> Sentence:
    """Der Zug nach Berlin fährt um halb acht ab; Das Konzert dauert zwei Stunden."""
    if chance(rng, 0.35):
        noun = draw_noun(rng, ["event", "show"])
        amount = draw_amount(rng, 12, ["Stunden", "Tage", "Minuten"])
        subject = nominal(draw(rng, ["the", "this"]), draw_adjectives(rng, noun, 0.3), noun)
        tense = draw(rng, ["present", "preterite", "perfect"])
        return stated(Clause(subject, _DAUERN, tense, complement=amount))
    verb = verb_named(draw(rng, ["abfahren", "ankommen", "anfangen", "stattfinden"]), "i")
    noun = draw_noun(rng, ["public"] if "public" in verb.subjects else ["event"])
    subject = nominal("the", [], noun)
    town = draw_skewed(rng, TOWNS)
    if "public" in verb.subjects and not town[0].startswith("die "):
        way = ("nach", "to") if chance(rng, 0.6) else ("aus", "from")
        if verb.english.base == "leave":
            way = ("nach", "to")
        subject = followed_by(subject, (f"{way[0]} {town[0]}", f"{way[1]} {town[1]}"))
    german, english = clock(rng)
    clause = Clause(subject, verb, time=Time(german, english, "habit"))
    if chance(rng, 0.3):
        clause.time = Time(f"morgen {german}", f"{english} tomorrow", "future")
    elif chance(rng, 0.4):
        clause.tense = draw(rng, ["preterite", "perfect"])
        clause.time = Time(f"gestern {german}", f"{english} yesterday", "past")
    return *statement(rng, clause), "."
