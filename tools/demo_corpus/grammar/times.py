"""Adverbials of time: fixed phrases, weekdays, months, dates, the clock, and amounts of time.

Each has a kind, from which the English tense follows: *morgen* asks for "will", *jeden Tag* for the simple present.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.words.numbers import (
    english_number,
    english_ordinal,
    german_number,
    german_ordinal,
    number_words,
)
from tools.demo_corpus.words.text import Pair, entries, parse_pairs

# Adverbials of time by class: now (progressive), today (present and past), day (future and past), past, future, habit.
_TIME_TABLE = """
gerade = right now | now
jetzt = now | now
im Moment = at the moment | now
heute = today | today
gestern = yesterday | past
letzte Woche = last week | past
gestern Abend = yesterday evening | past
letztes Jahr = last year | past
vorgestern = the day before yesterday | past
heute Morgen = this morning | past
letzten Sommer = last summer | past
letzten Monat = last month | past
vor einer Stunde = an hour ago | past
damals = at that time | past
morgen = tomorrow | future
heute Abend = this evening | future
bald = soon | future
nächste Woche = next week | future
übermorgen = the day after tomorrow | future
nächstes Jahr = next year | future
morgen früh = tomorrow morning | future
nächsten Monat = next month | future
später = later | future
jeden Tag = every day | habit
jeden Morgen = every morning | habit
jeden Abend = every evening | habit
am Wochenende = at the weekend | habit
jede Woche = every week | habit
nach der Arbeit = after work | habit
im Sommer = in summer | habit
im Winter = in winter | habit
einmal im Monat = once a month | habit
nachts = at night | habit
"""
_WEEKDAYS = parse_pairs("""
Montag = Monday
Dienstag = Tuesday
Mittwoch = Wednesday
Donnerstag = Thursday
Freitag = Friday
Samstag = Saturday
Sonntag = Sunday
""")
MONTHS = parse_pairs("""
Januar = January
Februar = February
März = March
April = April
Mai = May
Juni = June
Juli = July
August = August
September = September
Oktober = October
November = November
Dezember = December
""")
FREQUENCIES = parse_pairs("""
oft = often
immer = always
manchmal = sometimes
selten = rarely
nie = never
normalerweise = usually
""")


@dataclass(frozen=True, slots=True)
class Time:
    """An adverbial of time; `kind` decides the tenses: now, today, past, future, habit, since, day (either way)."""

    german: str
    english: str
    kind: str


_TIMES = [Time(*text, kind) for line, kind in entries(_TIME_TABLE) for text in parse_pairs(line)]
_UNITS = {
    "Minuten": "minutes", "Stunden": "hours", "Tage": "days", "Tagen": "days", "Wochen": "weeks", "Monaten": "months",
    "Jahren": "years",
}  # fmt: skip
_TIMES_OF = {kind: [time for time in _TIMES if time.kind == kind] for kind in {time.kind for time in _TIMES}}


def clock(rng: Random) -> Pair:
    """um acht Uhr, um 8 Uhr, um 18:30 Uhr, um halb acht (half past seven), um Viertel vor neun."""
    hour = rng.randint(1, 11)
    kind = rng.random()
    if kind < 0.3:
        return f"um {german_number(hour)} Uhr".replace("eins", "ein"), f"at {english_number(hour)} o'clock"
    if kind < 0.45:
        return f"um {hour} Uhr", f"at {hour} o'clock"
    if kind < 0.6:
        time = f"{rng.randint(6, 22)}:{rng.randint(1, 11) * 5:02d}"
        return f"um {time} Uhr", f"at {time}"
    if kind < 0.85:
        return f"um halb {german_number(hour + 1)}", f"at half past {english_number(hour)}"
    german, english = draw(rng, [("nach", "past"), ("vor", "to")])
    return f"um Viertel {german} {german_number(hour)}", f"at a quarter {english} {english_number(hour)}"


def draw_amount(rng: Random, most: int, units: Sequence[str]) -> Pair:
    """Two to `most` of one of the German units, in words."""
    german, english = number_words(rng.randint(2, most))
    unit = draw(rng, units)
    return f"{german} {unit}", f"{english} {_UNITS[unit]}"


def draw_time(rng: Random, kinds: Sequence[str]) -> Time:
    """An adverbial of one of the kinds; some carry a number, a weekday, a month, a date or the time of day."""
    kind = draw(rng, kinds)
    if kind == "since":
        return draw_since(rng)
    if kind == "day":
        return draw_day(rng)
    if kind == "past" and chance(rng, 0.25):
        german, english = draw_amount(rng, 12, ["Tagen", "Wochen", "Monaten", "Jahren"])
        return Time(f"vor {german}", f"{english} ago", "past")
    if kind == "future" and chance(rng, 0.15):
        german, english = draw_amount(rng, 12, ["Tagen", "Wochen", "Minuten", "Stunden"])
        return Time(f"in {german}", f"in {english}", "future")
    if kind == "habit" and chance(rng, 0.1):
        german, english = draw(rng, _WEEKDAYS)
        return Time(german.lower() + "s", f"on {english}s", "habit")
    time = draw_skewed(rng, _TIMES_OF[kind])
    if time.german in {"gestern", "morgen", "jeden Tag", "heute Abend"} and chance(rng, 0.25):
        german, english = clock(rng)
        return Time(f"{time.german} {german}", f"{english} {time.english}", time.kind)
    return time


def draw_since(rng: Random) -> Time:
    """seit drei Jahren, for three years; seit gestern, since yesterday."""
    if chance(rng, 0.3):
        german, english = draw(rng, [("gestern", "yesterday"), *_WEEKDAYS, ("letzter Woche", "last week")])
        return Time(f"seit {german}", f"since {english}", "since")
    if chance(rng, 0.2):
        return Time(*draw(rng, [("seit einer Stunde", "for an hour"), ("seit einem Jahr", "for a year")]), "since")
    german, english = draw_amount(rng, 30, ["Jahren", "Monaten", "Tagen", "Stunden"])
    return Time(f"seit {german}", f"for {english}", "since")


def draw_day(rng: Random) -> Time:
    """am Montag, im Mai, am 3. Mai, am dritten Mai: past or future by the tense of the verb."""
    kind = rng.random()
    weekday, month, n = draw(rng, _WEEKDAYS), draw(rng, MONTHS), rng.randint(1, 31)
    if kind < 0.5:
        return Time(f"am {weekday[0]}", f"on {weekday[1]}", "day")
    if kind < 0.7:
        return Time(f"im {month[0]}", f"in {month[1]}", "day")
    n = min(n, 28)
    if kind < 0.88:
        return Time(f"am {n}. {month[0]}", f"on {n} {month[1]}", "day")
    return Time(f"am {german_ordinal(n)}en {month[0]}", f"on the {english_ordinal(n)} of {month[1]}", "day")
