"""Clauses at random: a verb with fitting subject, objects, tense, negation and adverbials.

What suits a verb is a matter of its frame, classes and flags; the few lists of verbs here hold the exceptions.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tools.demo_corpus.grammar.clauses import Clause
from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.grammar.names import TOWNS, town_phrase
from tools.demo_corpus.grammar.noun_phrases import CASES, DATIVE, NounPhrase, nominal
from tools.demo_corpus.grammar.phrase_drawing import (
    draw_adjectives,
    draw_nominal,
    draw_noun,
    draw_object_person,
    draw_person,
)
from tools.demo_corpus.grammar.places import draw_distant_place, draw_place, draw_spot
from tools.demo_corpus.grammar.prepositions import german_prepositional, prepositional, two_way
from tools.demo_corpus.grammar.pronouns import pronoun
from tools.demo_corpus.grammar.times import FREQUENCIES, draw_time
from tools.demo_corpus.words.nouns import NOUN, NOUNS_OF
from tools.demo_corpus.words.text import Pair, entries, parse_pairs, word_list
from tools.demo_corpus.words.verbs import VERBS_OF, Verb

_MANNER_TABLE = """
schnell = quickly | quick
langsam = slowly | quick
vorsichtig = carefully | care
leise = quietly | quiet
laut = loudly | quiet
gut = well | well
hart = hard | hard
freundlich = in a friendly way | friendly
"""
_MANNERS = [(*pair, kind) for line, kind in entries(_MANNER_TABLE) for pair in parse_pairs(line)]
_FRAMES = word_list("t t t t t t i i i i l l m m m d d dt dt dt p p refl put lie")
RAIN = VERBS_OF["w"]
LASTING = frozenset(
    word_list(
        "lesen suchen kennen haben brauchen schlafen arbeiten lernen warten weinen wohnen sitzen stehen studieren "
        "liegen"
    )
)
_PLACEABLE = frozenset(
    word_list("lesen kaufen sehen essen trinken suchen treffen finden verlieren vergessen singen probieren malen")
)
_NO_FREE_PLACE = frozenset(word_list("einschlafen ausgehen umziehen zurückkommen anfangen aufhören abfahren abfliegen"))
_UNTIMED = frozenset(word_list("kennen mögen lieben vertrauen interessieren erinnern verstehen wohnen sehen"))
_PRETERITE_PREFERRED = frozenset(word_list("haben kennen mögen brauchen"))
_ENJOYED = frozenset(
    word_list(
        "lesen schreiben essen trinken tragen kochen backen hören singen spielen malen fotografieren füttern helfen "
        "arbeiten tanzen schwimmen lernen lachen sehen kaufen gehen fahren reisen sitzen sprechen reden besuchen "
        "treffen"
    )
)


def draw_verb(rng: Random) -> Verb:
    """A verb of a frame that stands on its own in a clause."""
    pick = draw_skewed if chance(rng, 0.75) else draw
    return pick(rng, VERBS_OF[draw(rng, _FRAMES)])


def draw_personal_verb(rng: Random) -> Verb:
    """A verb whose subject may be a person."""
    verb = draw_verb(rng)
    while "person" not in verb.subjects:
        verb = draw_verb(rng)
    return verb


def draw_subject(rng: Random, verb: Verb) -> NounPhrase:
    """A subject of a class that the verb asks for."""
    if verb.frame == "w":
        return pronoun("es")
    if verb.frame == "lie":
        return draw_nominal(rng, verb.subjects, adjective=0.3, plural=0.2)
    if "person" in verb.subjects and ("animal" not in verb.subjects or chance(rng, 0.7)):
        return draw_person(rng)
    classes = [name for name in verb.subjects if name != "person"]
    phrase = draw_nominal(rng, classes, adjective=0.3, plural=0.1)
    return phrase if phrase.definite else draw_nominal(rng, classes, adjective=0.3, plural=0.0)


def draw_object(rng: Random, verb: Verb, subject: NounPhrase, negated: bool) -> NounPhrase:
    """An accusative object of a class that the verb asks for; with a negation it is often indefinite, hence kein."""
    name = draw_skewed(rng, verb.objects)
    if name == "person":
        return draw_object_person(rng, subject)
    if "bare" in verb.flags:
        phrase = nominal("", [], draw_skewed(rng, NOUNS_OF[name]))
        return replace(phrase, english=(phrase.english[0], f"the {phrase.english[1]}", ""))
    if negated and chance(rng, 0.5):
        noun = draw_noun(rng, [name])
        return nominal("no", draw_adjectives(rng, noun, 0.2), noun, not noun.mass and chance(rng, 0.3))
    return draw_nominal(rng, [name], owner=subject)


def draw_complement(rng: Random, verb: Verb, subject: NounPhrase) -> Pair | None:
    """The direction, position or prepositional object that the verb asks for."""
    if "wall" in verb.flags:
        return two_way(("an", "on", "on"), nominal("the", [], NOUN["Wand"]), verb.frame == "put")
    if verb.frame in {"put", "lie"}:
        return draw_spot(rng, verb.frame == "put")
    if verb.frame == "l":
        if verb.infinitive in {"sitzen", "stehen"} and chance(rng, 0.35):
            return draw_spot(rng, False, containers=0.0)
        if verb.infinitive == "studieren":
            return town_phrase(draw_skewed(rng, TOWNS), False)
        return draw_distant_place(rng, False) if "far" in verb.flags else draw_place(rng, False)
    if verb.frame == "m":
        if "city" in verb.flags:
            return town_phrase(draw_skewed(rng, TOWNS), True)
        return draw_distant_place(rng, True) if "far" in verb.flags else draw_place(rng, True, towns=0.0)
    if verb.preposition:
        name = draw_skewed(rng, verb.objects)
        phrase = draw_object_person(rng, subject) if name == "person" else draw_nominal(rng, [name], owner=subject)
        return german_prepositional(verb.preposition, phrase, CASES[verb.case]), phrase.english[1]
    return None


def draw_manner(rng: Random, verb: Verb, subject: NounPhrase) -> Pair | None:
    """A manner that suits the verb, a means of transport, or company."""
    if "ride" in verb.flags:
        vehicle = draw_skewed(rng, NOUNS_OF["vehicle"])
        return german_prepositional("mit", nominal("the", [], vehicle), DATIVE), f"by {vehicle.english}"
    fitting = [(german, english) for german, english, kind in _MANNERS if kind in verb.flags]
    if fitting and chance(rng, 0.5):
        return draw(rng, fitting)
    if verb.frame in {"i", "m", "l"} and "person" in verb.subjects and verb.particle != "mit":
        company = draw_object_person(rng, subject)
        if not company.plural or company.pronoun:
            return prepositional("mit", "with", company, DATIVE)
    return None


def draw_tense(rng: Random, clause: Clause, tenses: str) -> None:
    """Set the tense, or a modal, or gern: `tenses` is "any", "present" or "past"."""
    kind = rng.random()
    if tenses == "past" or (tenses == "any" and kind < 0.36):
        preterite = clause.verb.infinitive in _PRETERITE_PREFERRED or chance(rng, 0.45)
        if clause.subject.person == 2 or clause.subject.formal:
            preterite = clause.verb.infinitive == "haben"
        clause.tense = "preterite" if preterite else "perfect"
        if chance(rng, 0.12) and volitional(clause):
            clause.tense, clause.modal = "preterite", draw(rng, ["können", "müssen", "wollen", "dürfen"])
        return
    if kind < 0.54 and volitional(clause):
        clause.modal = draw(
            rng, ["können", "können", "müssen", "müssen", "wollen", "wollen", "dürfen", "sollen", "möchten"]
        )
    elif kind < 0.66 and volitional(clause) and clause.verb.infinitive in _ENJOYED and not clause.subject.negative:
        clause.liking = True


def volitional(clause: Clause) -> bool:
    """Whether modals and gern make sense: a person does something, and not by mishap."""
    verb = clause.verb
    return "person" in verb.subjects and verb.frame not in {"lie", "w"} and "stat" not in verb.flags


def draw_clause(
    rng: Random,
    verb: Verb | None = None,
    subject: NounPhrase | None = None,
    tenses: str = "any",
    adjuncts: float = 0.5,
    negation: float = 0.16,
) -> Clause:
    """A clause around a verb: tense, objects, and each kind of adverbial with about the probability `adjuncts`."""
    verb = verb or draw_verb(rng)
    subject = subject or draw_subject(rng, verb)
    clause = Clause(subject, verb)
    draw_tense(rng, clause, tenses)
    negated = chance(rng, negation) and not subject.negative and "bare" not in verb.flags
    if verb.frame in {"t", "dt", "put"}:
        clause.accusative = draw_object(rng, verb, subject, negated and verb.frame != "put")
    if verb.frame in {"d", "dt"}:
        clause.dative = draw_object_person(rng, subject)
    clause.complement = draw_complement(rng, verb, subject)
    if negated:
        negate(clause)
    if chance(rng, adjuncts):
        add_time(rng, clause)
    if chance(rng, 0.35 * adjuncts) and not clause.negation and not clause.liking:
        clause.manner = draw_manner(rng, verb, subject)
    free_place = verb.frame in {"i", "w"} or (verb.infinitive in _PLACEABLE and not clause.negation)
    if free_place and verb.full_infinitive not in _NO_FREE_PLACE and chance(rng, 0.7 * adjuncts):
        clause.place = draw_place(rng, False)
    if clause.manner and clause.place and clause.time and chance(rng, 0.6):
        clause.manner = None
    return clause


def negate(clause: Clause) -> None:
    """kein if the object carries it, nicht before the verb's complement if the object is definite."""
    accusative = clause.accusative
    if accusative and accusative.negative:
        clause.negation = "kein"
    elif accusative is None or accusative.definite:
        clause.negation = "nicht"


def add_time(rng: Random, clause: Clause) -> None:
    """An adverbial of time or frequency that fits the tense."""
    if clause.tense in {"perfect", "preterite"}:
        if clause.tense == "perfect" and not clause.negation and chance(rng, 0.2):
            if not clause.subject.negative:
                clause.frequency, clause.aspect = ("schon", "already"), "perfect"
            return
        clause.time = draw_time(rng, ["past", "past", "past", "day", "today"])
        return
    if clause.modal:
        clause.time = draw_time(rng, ["future", "future", "day", "now", "today"])
        return
    if clause.liking:
        clause.time = draw_time(rng, ["habit"])
        return
    if not (clause.negation or clause.subject.negative or "stat" in clause.verb.flags) and chance(rng, 0.25):
        clause.frequency = draw_skewed(rng, FREQUENCIES)
        return
    kinds = present_times(clause)
    if kinds:
        clause.time = draw_time(rng, kinds)


def present_times(clause: Clause) -> list[str]:
    """The kinds of time that fit a plain verb in the present, none for some verbs that last."""
    verb = clause.verb
    if verb.infinitive in {"kennen", "wohnen"} and not clause.negation:
        return ["since"]
    if verb.infinitive in _UNTIMED:
        return []
    if verb.frame == "lie":
        kinds = ["now", "today"]
    elif verb.infinitive in {"haben", "brauchen"}:
        kinds = ["today", "now"]
    elif "stat" in verb.flags:
        kinds = ["future", "habit"]
    else:
        kinds = ["future", "future", "future", "day", "now", "today", "habit", "habit"]
    if verb.infinitive in LASTING and not verb.particle and not clause.negation:
        kinds += ["since", "since"]
    return kinds


def plain(clause: Clause) -> Clause:
    """The clause without adverbials, gern and modal, so that a construction can fix its tense."""
    tense = "present" if clause.tense == "present" or clause.modal else clause.tense
    return replace(clause, modal="", liking=False, time=None, frequency=None, manner=None, aspect="", tense=tense)


def dynamic_clause(rng: Random, subject: NounPhrase | None = None) -> Clause:
    """A clause in the present about something that a person does, without adverbials."""
    verb = draw_personal_verb(rng)
    while "stat" in verb.flags:
        verb = draw_personal_verb(rng)
    clause = draw_clause(rng, verb, subject, tenses="present", adjuncts=0.0, negation=0.0)
    return plain(replace(clause, tense="present"))


def in_past(clause: Clause) -> Clause:
    """The clause in the preterite, or in the perfect for du and ihr, whose preterite is rare."""
    return replace(clause, tense="perfect" if clause.subject.person == 2 else "preterite")
