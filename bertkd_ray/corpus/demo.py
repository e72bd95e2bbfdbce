"""The demo corpus: German-English sentence pairs written by a small synchronous grammar.

What it is. A clause is drawn once, as a verb with its subject, objects and adverbials, and then spelled out twice, by
the word order and inflection of each language. The German side has verb-second, verb-first and verb-final clauses,
separable verbs, four cases, three adjective declensions, two-way prepositions, compounds, relative clauses that wait
for the verb bracket, modals, passives, and numbers in words and digits. English tense follows from the German context
(*morgen* asks for "will", *jeden Tag* for the simple present, no adverbial for the progressive, *seit* for the
perfect), pronouns follow their antecedent (*der Tisch ... er* is "it"), and some verbs exchange subject and object
(*gefallen*, "like"). A table of words does not translate it, and a small Transformer learns it only by generalising.

Source and licence. Both the words and the rules were written for this project, under its licence; no text was copied.

Limits. About 500 German lemmas and 150 compounds, everyday topics, British spelling, "do not" never contracted. One
fixed translation for each sentence, where a translator would have choices; formal, informal and plural "you" become one
word. Sentences are grammatical but were not checked for good sense, and do not follow from one another: BLEU on this
text says that the pipeline works, not that a system translates German.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.demo_lexicon import (
    ALL_ADJECTIVES,
    ALL_VERBS,
    COMPOUNDS_OF,
    FIXED_PLACES,
    FREQUENCIES,
    MANNERS,
    MONTHS,
    NAMES,
    NOUN,
    NOUNS_OF,
    PLACES,
    PRESENT,
    PRETERITE,
    TIMES,
    TOWNS,
    WEEKDAYS,
    Adjective,
    EnglishVerb,
    Noun,
    Pair,
    Verb,
    a_or_an,
    attributive_stem,
    english_finite,
    english_number,
    english_ordinal,
    entries,
    german_finite,
    german_imperative,
    german_number,
    german_ordinal,
    parse_pairs,
    parse_verb,
    past_ending,
    word_list,
)

Item = TypeVar("Item")
Sentence = tuple[str, str, str]  # (German, English, final mark), both sides without capital and mark

NOMINATIVE, ACCUSATIVE, DATIVE, GENITIVE = range(4)
CASES = {"acc": ACCUSATIVE, "dat": DATIVE}


# --------------------------------------------------------------------------------------------------------------------
# Drawing


def chance(rng: Random, probability: float) -> bool:
    """True with the given probability."""
    return rng.random() < probability


def draw(rng: Random, items: Sequence[Item]) -> Item:
    """One of the items, all alike."""
    return items[int(rng.random() * len(items))]


def draw_skewed(rng: Random, items: Sequence[Item]) -> Item:
    """One of the items, early ones more often: the last tenth is drawn six times in a hundred."""
    return items[int(rng.random() ** 1.7 * len(items))]


# --------------------------------------------------------------------------------------------------------------------
# Noun phrases


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """A noun phrase spelled out: four German cases; English as subject, object and possessive.

    `person`, `plural` and `gender` are the German ones (`gender` is "pl" in the plural); `agreement` is "I", "he" or
    "they", the form of the English verb; `refers` is the English pronoun that takes the phrase up again, empty if none
    would be natural; `noun` is the head, where it is a common noun.
    """

    german: tuple[str, str, str, str]
    english: tuple[str, str, str]
    person: int = 3
    plural: bool = False
    gender: str = "m"
    agreement: str = "he"
    refers: str = ""
    pronoun: bool = False
    definite: bool = True
    negative: bool = False
    noun: Noun | None = None


def _endings(rows: str) -> dict[str, list[str]]:
    """`m er en em es; f ...` as a table; `-` is no ending."""
    table = {}
    for row in rows.split(";"):
        gender, *endings = row.split()
        table[gender] = [ending.replace("-", "") for ending in endings]
    return table


_ARTICLE = _endings("m der den dem des; f die die der der; n das das dem des; pl die die den der")
_DIES = _endings("m er en em es; f e e er er; n es es em es; pl e e en er")
_EIN = _endings("m - en em es; f e e er er; n - - em es; pl e e en er")
_WEAK = _endings("m e en en en; f e e en en; n e e en en; pl en en en en")
_MIXED = _endings("m er en en en; f e e en en; n es es en en; pl en en en en")
_STRONG = _endings("m er en em en; f e e er er; n es es em en; pl e e en er")

# Determiner: German stem, its endings, the endings of a following adjective, English singular and plural.
_DETERMINERS: dict[str, tuple[str, dict[str, list[str]] | None, dict[str, list[str]], str, str]] = {
    "the": ("", _ARTICLE, _WEAK, "the", "the"),
    "a": ("ein", _EIN, _MIXED, "a", ""),
    "no": ("kein", _EIN, _MIXED, "no", "no"),
    "this": ("dies", _DIES, _WEAK, "this", "these"),
    "every": ("jed", _DIES, _WEAK, "every", "every"),
    "which": ("welch", _DIES, _WEAK, "which", "which"),
    "many": ("viel", _DIES, _STRONG, "", "many"),
    "some": ("einig", _DIES, _STRONG, "", "some"),
    "all": ("all", _DIES, _WEAK, "", "all the"),
    "": ("", None, _STRONG, "", ""),
    "my": ("mein", _EIN, _MIXED, "my", "my"),
    "your": ("dein", _EIN, _MIXED, "your", "your"),
    "his": ("sein", _EIN, _MIXED, "his", "his"),
    "her": ("ihr", _EIN, _MIXED, "her", "her"),
    "our": ("unser", _EIN, _MIXED, "our", "our"),
    "your (plural)": ("euer", _EIN, _MIXED, "your", "your"),
    "their": ("ihr", _EIN, _MIXED, "their", "their"),
    "your (formal)": ("Ihr", _EIN, _MIXED, "your", "your"),
}

_SPOUSES = {"Mann": ("husband", "husbands"), "Frau": ("wife", "wives")}

Graded = tuple[Adjective, int]  # an adjective and its degree: 0 positive, 1 comparative, 2 superlative


def decline(
    determiner: str, adjectives: Sequence[Graded], noun: Noun, plural: bool, prefix: str = ""
) -> tuple[str, str, str, str]:
    """Determiner, adjectives and noun in the four cases.

    `prefix` is an uninflected word in the place of the determiner (a number, *Annas*); the adjectives are then strong.
    """
    stem, own_endings, adjective_endings, _, _ = _DETERMINERS[determiner]
    gender = "pl" if plural else noun.gender
    forms = []
    for case in range(4):
        words = [prefix] if prefix else []
        if own_endings is not None:
            ending = own_endings[gender][case]
            words.append((stem if not ending or stem != "euer" else "eur") + ending)
        for adjective, degree in adjectives:
            words.append(attributive_stem(adjective.german[degree]) + adjective_endings[gender][case])
        words.append(noun_form(noun, case, plural))
        forms.append(" ".join(words))
    return forms[0], forms[1], forms[2], forms[3]


def noun_form(noun: Noun, case: int, plural: bool) -> str:
    """The noun alone: genitive -s, dative plural -n, and the n-declension (den Studenten)."""
    if plural:
        dative_n = case == DATIVE and not noun.plural.endswith(("n", "s"))
        return noun.plural + ("n" if dative_n else "")
    if case == GENITIVE:
        return noun.genitive
    return noun.plural if noun.weak and case != NOMINATIVE else noun.singular


def english_nominal(determiner: str, adjectives: Sequence[Graded], noun: Noun, plural: bool) -> str:
    """Determiner, adjectives and noun in English; "a" becomes "an" before a vowel and nothing before mass nouns."""
    words = [adjective.english[degree] for adjective, degree in adjectives]
    words.append(noun.english_plural if plural else noun.english)
    _, _, _, singular_article, plural_article = _DETERMINERS[determiner]
    article = plural_article if plural else singular_article
    if article == "a":
        article = "" if noun.mass else a_or_an(words[0])
    return " ".join([article, *words] if article else words)


def english_possessive(phrase: str, plural: bool) -> str:
    """the teacher's, the teachers', the children's."""
    return phrase + ("'" if plural and phrase.endswith("s") else "'s")


def nominal(
    determiner: str, adjectives: Sequence[Graded], noun: Noun, plural: bool = False, number: Pair | None = None
) -> NounPhrase:
    """A noun phrase with a noun as its head; `number` is a numeral written before the adjectives.

    Someone's Mann or Frau is a husband or wife.
    """
    if noun.singular in _SPOUSES and _DETERMINERS[determiner][1] is _EIN and determiner not in {"a", "no"}:
        english, english_plural = _SPOUSES[noun.singular]
        noun = replace(noun, english=english, english_plural=english_plural)
    german = decline(determiner, adjectives, noun, plural, number[0] if number else "")
    english = english_nominal(determiner, adjectives, noun, plural)
    as_object = english
    if number:
        english = as_object = f"{number[1]} {english}"
    elif determiner == "no":
        as_object = english_nominal("a", adjectives, noun, plural)
        if plural or noun.mass:
            as_object = f"any {as_object}"
    return NounPhrase(
        german=german,
        english=(english, as_object, english_possessive(english, plural)),
        plural=plural,
        gender="pl" if plural else noun.gender,
        agreement="they" if plural else "he",
        refers="they" if plural else noun.refers,
        definite=determiner not in {"a", "no", "", "many", "some"},
        negative=determiner == "no",
        noun=noun,
    )


_PRONOUN_FORMS = {
    "ich": ("ich mich mir mein", "I me my", 1, False, "I"),
    "du": ("du dich dir dein", "you you your", 2, False, "they"),
    "er": ("er ihn ihm sein", "he him his", 3, False, "he"),
    "sie": ("sie sie ihr ihr", "she her her", 3, False, "he"),
    "es": ("es es ihm sein", "it it its", 3, False, "he"),
    "wir": ("wir uns uns unser", "we us our", 1, True, "they"),
    "ihr": ("ihr euch euch euer", "you you your", 2, True, "they"),
    "sie (plural)": ("sie sie ihnen ihr", "they them their", 3, True, "they"),
    "Sie": ("Sie Sie Ihnen Ihr", "you you your", 3, True, "they"),
}
_ENGLISH_PRONOUNS = {"he": "he him his", "she": "she her her", "it": "it it its", "they": "they them their"}


def pronoun(key: str, english: str = "") -> NounPhrase:
    """A personal pronoun; `english` names another English pronoun than the usual one (er for a table is "it")."""
    german, usual, person, plural, agreement = _PRONOUN_FORMS[key]
    forms = _ENGLISH_PRONOUNS.get(english, usual).split()
    cases = german.split()
    return NounPhrase(
        german=(cases[0], cases[1], cases[2], cases[3]),
        english=(forms[0], forms[1], forms[2]),
        person=person,
        plural=plural,
        gender="pl" if plural else {"er": "m", "es": "n"}.get(key, "f"),
        agreement=agreement,
        refers={"er": "he", "sie": "she", "sie (plural)": "they"}.get(key, ""),
        pronoun=True,
    )


def pronoun_for(antecedent: NounPhrase) -> NounPhrase | None:
    """The pronoun that takes a phrase up again: German by grammatical gender, English by what it refers to."""
    if antecedent.person != 3 or antecedent.german[0] == "Sie":
        return antecedent if antecedent.pronoun else None
    if not antecedent.refers:
        return None
    key = {"m": "er", "f": "sie", "n": "es", "pl": "sie (plural)"}[antecedent.gender]
    return pronoun(key, antecedent.refers)


def possessive_of(owner: NounPhrase) -> str:
    """The determiner key of what belongs to `owner` (subject of the same clause), empty where none would be clear."""
    by_pronoun = {"ich": "my", "du": "your", "wir": "our", "ihr": "your (plural)", "Sie": "your (formal)"}
    if owner.pronoun and owner.german[0] in by_pronoun:
        return by_pronoun[owner.german[0]]
    if owner.gender == "n":
        return ""
    return {"he": "his", "she": "her", "they": "their"}.get(owner.refers, "")


def proper_name(german: str, refers: str, english: str = "") -> NounPhrase:
    """A person's name; Herr is weak (Herrn Müller)."""
    english = english or german
    oblique = german.replace("Herr ", "Herrn ")
    genitive = oblique + ("'" if oblique.endswith(("s", "x", "z")) else "s")
    return NounPhrase(
        german=(german, oblique, oblique, genitive),
        english=(english, english, english_possessive(english, False)),
        gender="m" if refers == "he" else "f",
        refers=refers,
    )


def _parse_names() -> list[NounPhrase]:
    names = []
    for line in NAMES.split("\n"):
        if line:
            name, refers = line.split()
            german, _, english = name.replace("_", " ").partition("=")
            names.append(proper_name(german, refers, english))
    return names


_NAMES = _parse_names()


def coordinated(left: NounPhrase, right: NounPhrase) -> NounPhrase:
    """left und right: plural; first person where one of them is."""
    cases = [f"{one} und {two}" for one, two in zip(left.german, right.german, strict=True)]
    forms = [f"{one} and {two}" for one, two in zip(left.english, right.english, strict=True)]
    return NounPhrase(
        german=(cases[0], cases[1], cases[2], cases[3]),
        english=(forms[0], forms[1], forms[2]),
        person=min(left.person, right.person),
        plural=True,
        gender="pl",
        agreement="they",
        refers="they" if left.person == right.person == 3 else "",
    )


_INDEFINITE_PERSONS = [
    NounPhrase(("jemand", "jemanden", "jemandem", ""), ("someone", "someone", "")),
    NounPhrase(("niemand", "niemanden", "niemandem", ""), ("no one", "no one", ""), negative=True),
    NounPhrase(("alle", "alle", "allen", ""), ("everyone", "everyone", ""), plural=True, gender="pl"),
]


def draw_noun(rng: Random, classes: Sequence[str]) -> Noun:
    """A noun of one of the classes; one draw in four is a compound where the class has any, rarely so for persons."""
    name = draw_skewed(rng, classes)
    compounds = COMPOUNDS_OF.get(name)
    if compounds and chance(rng, 0.03 if name == "person" else 0.25):
        return draw_skewed(rng, compounds)
    return draw_skewed(rng, NOUNS_OF[name])


_ADJECTIVES_OF: dict[frozenset[str], list[Adjective]] = {}


def adjectives_for(noun: Noun) -> list[Adjective]:
    """The adjectives that suit a noun, in table order."""
    if noun.classes not in _ADJECTIVES_OF:
        _ADJECTIVES_OF[noun.classes] = [adjective for adjective in ALL_ADJECTIVES if adjective.classes & noun.classes]
    return _ADJECTIVES_OF[noun.classes]


def draw_adjectives(rng: Random, noun: Noun, probability: float) -> list[Graded]:
    """No adjective, one, or rarely two, of which the second is one without degrees (a new red coat)."""
    fitting = adjectives_for(noun)
    if not fitting or not chance(rng, probability):
        return []
    first = draw_skewed(rng, fitting)
    if first.comparable and chance(rng, 0.15):
        second = [adjective for adjective in fitting if not adjective.comparable]
        return [(first, 0), (draw(rng, second), 0)] if second else [(first, 0)]
    return [(first, 0)]


def is_ownable(noun: Noun, plural: bool) -> bool:
    """Whether "my" goes well with the noun: things one has, people one is related to or knows through work."""
    classes = noun.classes
    if "person" in classes:
        return bool(classes & {"kin", "own"}) or (noun.singular in _SPOUSES and not plural)
    if "building" in classes:
        return "home" in classes
    return not classes & {"public", "place", "event"}


def draw_determiner(rng: Random, noun: Noun, plural: bool, owner: NounPhrase | None) -> str:
    """A determiner that suits the noun; relatives belong to someone, by preference to `owner`."""
    classes = noun.classes
    if is_ownable(noun, plural) and chance(rng, 0.85 if "kin" in classes else 0.2):
        own = possessive_of(owner) if owner else ""
        if not own or chance(rng, 0.25):
            own = draw(rng, ["my", "our", "your"]) if not owner or owner.person == 3 else "the"
        several_owners = own in {"our", "their", "your (plural)"}
        return "the" if several_owners and noun.singular in _SPOUSES else own
    options = ["the", "the", "the", "the", "this"]
    if "kin" in classes:
        return "the"
    if plural:
        options += ["", "many", "some", "all", "some"]
    elif noun.mass:
        options += ["", "", "", ""]
    else:
        options += ["a", "a", "a", "a"]
    return draw(rng, options)


def draw_nominal(
    rng: Random,
    classes: Sequence[str],
    owner: NounPhrase | None = None,
    adjective: float = 0.38,
    plural: float = 0.2,
    attributes: bool = True,
) -> NounPhrase:
    """A noun phrase with a noun of one of the classes, perhaps with a number or an attribute."""
    noun = draw_noun(rng, classes)
    is_plural = not noun.mass and "single" not in noun.classes and chance(rng, plural)
    adjectives = draw_adjectives(rng, noun, adjective)
    if is_plural and chance(rng, 0.12 if "person" in noun.classes else 0.3):
        return nominal("", adjectives, noun, True, number=draw_count(rng))
    determiner = draw_determiner(rng, noun, is_plural, owner)
    phrase = nominal(determiner, adjectives, noun, is_plural)
    if attributes and determiner == "the" and not noun.mass and chance(rng, 0.24):
        return with_attribute(rng, phrase, adjectives, noun, is_plural)
    return phrase


def draw_count(rng: Random) -> Pair:
    """A small number in words, or a larger one in words or digits."""
    if chance(rng, 0.7):
        n = rng.randint(2, 12)
        return german_number(n), english_number(n)
    n = rng.randint(13, 99)
    return (str(n), str(n)) if chance(rng, 0.4) else (german_number(n), english_number(n))


def with_attribute(
    rng: Random, phrase: NounPhrase, adjectives: Sequence[Graded], noun: Noun, plural: bool
) -> NounPhrase:
    """The phrase with an owner (genitive, a name before it, von) or, for a person, where the person is from."""
    if "person" in noun.classes:
        if "kin" in noun.classes:
            return owned(draw_nominal(rng, ["person"], attributes=False, plural=0.1), phrase, adjectives, noun, plural)
        town = draw(rng, [pair for pair in _TOWNS if not pair[0].startswith("die ")])
        return followed_by(phrase, (f"aus {town[0]}", f"from {town[1]}"))
    if "part" in noun.classes and len(noun.singular) < 8:
        whole = draw_nominal(rng, ["building"], adjective=0.3, plural=0.0, attributes=False)
        if not whole.definite:
            return phrase
        return followed_by(phrase, (whole.german[GENITIVE], f"of {whole.english[1]}"))
    if noun.classes & {"portable", "clothing", "vehicle", "text", "furniture", "pet", "room"}:
        if chance(rng, 0.4):
            name = draw_skewed(rng, _NAMES)
            return named_owner(name, adjectives, noun, plural)
        return owned(draw_nominal(rng, ["person"], attributes=False, plural=0.15), phrase, adjectives, noun, plural)
    return phrase


def followed_by(phrase: NounPhrase, attribute: Pair) -> NounPhrase:
    """The phrase with an attribute after it, the same in every case."""
    german = [f"{form} {attribute[0]}" for form in phrase.german]
    english = f"{phrase.english[0]} {attribute[1]}"
    return replace(
        phrase,
        german=(german[0], german[1], german[2], german[3]),
        english=(english, english, english_possessive(english, False)),
    )


def owned(owner: NounPhrase, phrase: NounPhrase, adjectives: Sequence[Graded], noun: Noun, plural: bool) -> NounPhrase:
    """das Auto des Lehrers: the teacher's car. A bare plural owner, which has no genitive, leaves the phrase alone."""
    if not owner.definite:
        return phrase
    german = [f"{form} {owner.german[GENITIVE]}" for form in phrase.german]
    english = f"{owner.english[2]} {english_nominal('', adjectives, noun, plural)}"
    return replace(
        phrase,
        german=(german[0], german[1], german[2], german[3]),
        english=(english, english, english_possessive(english, plural)),
    )


def named_owner(name: NounPhrase, adjectives: Sequence[Graded], noun: Noun, plural: bool) -> NounPhrase:
    """Annas neues Auto: strong adjective after the name."""
    phrase = nominal("", adjectives, noun, plural, number=(name.german[GENITIVE], name.english[2]))
    return replace(phrase, definite=True)


_SUBJECT_PRONOUNS = ["er", "sie", "wir", "sie (plural)", "du", "ihr", "ich", "ich", "Sie"]


def draw_person(rng: Random, formal: bool = True, indefinite: bool = True) -> NounPhrase:
    """A person as subject: pronoun, name, noun phrase, or two of them.

    Without `formal` no Sie, for where it would start the sentence; without `indefinite` no one, someone or everyone.
    """
    kind = rng.random()
    if kind < 0.38:
        return pronoun(draw(rng, _SUBJECT_PRONOUNS if formal else _SUBJECT_PRONOUNS[:-1]))
    if kind < 0.6:
        return draw_skewed(rng, _NAMES)
    if kind < 0.64 and indefinite:
        if chance(rng, 0.7):
            return draw(rng, _INDEFINITE_PERSONS)
        return nominal(draw(rng, ["no", "every"]), [], draw_noun(rng, ["person"]))
    if kind < 0.69:
        left, right = draw_skewed(rng, _NAMES), draw_skewed(rng, _NAMES)
        if left is right or chance(rng, 0.5):
            kin = nominal(draw(rng, ["my", "our"]), [], draw_skewed(rng, NOUNS_OF["kin"]))
            return coordinated(kin, pronoun("ich")) if chance(rng, 0.5) else coordinated(left, kin)
        return coordinated(left, right)
    return draw_nominal(rng, ["person"], adjective=0.32)


def draw_object_person(rng: Random, subject: NounPhrase) -> NounPhrase:
    """A person as object: a pronoun of another person than the subject, a name, or a noun phrase."""
    kind = rng.random()
    if kind < 0.28:
        options = ["ich", "du", "er", "sie", "wir", "ihr", "sie (plural)"]
        if subject.person == 1:
            options = ["du", "er", "sie", "ihr", "sie (plural)"]
        elif subject.person == 2 or subject.german[0] == "Sie":
            options = ["ich", "er", "sie", "wir", "sie (plural)"]
        return pronoun(draw(rng, options))
    if kind < 0.42:
        name = draw_skewed(rng, _NAMES)
        if name.german[0] not in subject.german[0]:
            return name
    return draw_nominal(rng, ["person"], owner=subject, adjective=0.2)


# --------------------------------------------------------------------------------------------------------------------
# Adverbials


@dataclass(frozen=True, slots=True)
class Time:
    """An adverbial of time; `kind` decides the tenses: now, today, past, future, habit, since, day (either way)."""

    german: str
    english: str
    kind: str


_TOWNS = parse_pairs(TOWNS)
_TIMES = [Time(*text, kind) for line, kind in entries(TIMES) for text in parse_pairs(line)]
_WEEKDAYS, _MONTHS, _FREQUENCIES = parse_pairs(WEEKDAYS), parse_pairs(MONTHS), parse_pairs(FREQUENCIES)
_MANNERS = [(*pair, kind) for line, kind in entries(MANNERS) for pair in parse_pairs(line)]
_TIMES_OF = {kind: [time for time in _TIMES if time.kind == kind] for kind in {time.kind for time in _TIMES}}

_CONTRACTIONS = {
    ("in", "dem"): "im",
    ("in", "das"): "ins",
    ("an", "dem"): "am",
    ("an", "das"): "ans",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
    ("von", "dem"): "vom",
    ("bei", "dem"): "beim",
}


def german_prepositional(preposition: str, phrase: NounPhrase, case: int) -> str:
    """The phrase after a preposition, which contracts with a definite article: in dem Garten is im Garten."""
    first, space, rest = phrase.german[case].partition(" ")
    contracted = _CONTRACTIONS.get((preposition, first)) if space else None
    return f"{contracted} {rest}" if contracted else f"{preposition} {phrase.german[case]}"


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


def draw_time(rng: Random, kinds: Sequence[str]) -> Time:
    """An adverbial of one of the kinds; some carry a number, a weekday, a month, a date or the time of day."""
    kind = draw(rng, kinds)
    if kind == "since":
        return draw_since(rng)
    if kind == "day":
        return draw_day(rng)
    if kind == "past" and chance(rng, 0.25):
        n = rng.randint(2, 12)
        unit = draw(rng, [("Tagen", "days"), ("Wochen", "weeks"), ("Monaten", "months"), ("Jahren", "years")])
        return Time(f"vor {german_number(n)} {unit[0]}", f"{english_number(n)} {unit[1]} ago", "past")
    if kind == "future" and chance(rng, 0.15):
        n = rng.randint(2, 12)
        unit = draw(rng, [("Tagen", "days"), ("Wochen", "weeks"), ("Minuten", "minutes"), ("Stunden", "hours")])
        return Time(f"in {german_number(n)} {unit[0]}", f"in {english_number(n)} {unit[1]}", "future")
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
    n = rng.randint(2, 30)
    unit = draw(rng, [("Jahren", "years"), ("Monaten", "months"), ("Tagen", "days"), ("Stunden", "hours")])
    return Time(f"seit {german_number(n)} {unit[0]}", f"for {english_number(n)} {unit[1]}", "since")


def draw_day(rng: Random) -> Time:
    """am Montag, im Mai, am 3. Mai, am dritten Mai: past or future by the tense of the verb."""
    kind = rng.random()
    weekday, month, n = draw(rng, _WEEKDAYS), draw(rng, _MONTHS), rng.randint(1, 31)
    if kind < 0.5:
        return Time(f"am {weekday[0]}", f"on {weekday[1]}", "day")
    if kind < 0.7:
        return Time(f"im {month[0]}", f"in {month[1]}", "day")
    n = min(n, 28)
    if kind < 0.88:
        return Time(f"am {n}. {month[0]}", f"on {n} {month[1]}", "day")
    return Time(f"am {german_ordinal(n)}en {month[0]}", f"on the {english_ordinal(n)} of {month[1]}", "day")


@dataclass(frozen=True, slots=True)
class Place:
    """A place: the noun with its prepositions and English phrases at rest and in motion."""

    noun: Noun
    at: str
    english_at: str
    to: str
    english_to: str


def _parse_places() -> list[Place]:
    places = []
    for name, at, to in entries(PLACES):
        (german_at, english_at), (german_to, english_to) = parse_pairs(at)[0], parse_pairs(to)[0]
        places.append(Place(NOUN[name], german_at, english_at, german_to, english_to))
    return places


_PLACES = _parse_places()
_FIXED_PLACES = [tuple(parse_pairs(field)[0] for field in line) for line in entries(FIXED_PLACES)]


def place_phrase(place: Place, motion: bool, adjectives: Sequence[Graded] = ()) -> Pair:
    """im Garten, in the garden; with motion in den Garten, into the garden. Adjectives go where English has "the"."""
    preposition, english = (place.to, place.english_to) if motion else (place.at, place.english_at)
    case = ACCUSATIVE if motion and preposition != "zu" else DATIVE
    if " the " not in english:
        adjectives = ()
    phrase = nominal("the", adjectives, place.noun)
    words = " ".join(adjective.english[degree] for adjective, degree in adjectives)
    return german_prepositional(preposition, phrase, case), english.replace(
        " the ", f" the {words} "
    ) if words else english


def town_phrase(town: Pair, motion: bool) -> Pair:
    """in Berlin, nach Berlin; in der Schweiz, in die Schweiz."""
    german, english = town
    english = f"{'to' if motion else 'in'} {english}"
    if german.startswith("die "):
        return f"in {german if motion else german.replace('die ', 'der ')}", english
    return f"{'nach' if motion else 'in'} {german}", english


def draw_place(rng: Random, motion: bool, towns: float = 0.2) -> Pair:
    """Where or whereto: a town or country with the given probability, else a place or a fixed phrase."""
    kind = rng.random()
    if kind < towns:
        return town_phrase(draw_skewed(rng, _TOWNS), motion)
    if kind > 0.84:
        return draw(rng, _FIXED_PLACES)[motion]
    place = draw_skewed(rng, _PLACES)
    return place_phrase(place, motion, draw_adjectives(rng, place.noun, 0.2))


def draw_distant_place(rng: Random, motion: bool) -> Pair:
    """Where one lives or drives to."""
    if chance(rng, 0.6):
        return town_phrase(draw_skewed(rng, _TOWNS), motion)
    place = draw(rng, _DISTANT)
    return place_phrase(place, motion, draw_adjectives(rng, place.noun, 0.2))


_DISTANT = [
    place for place in _PLACES if place.noun.singular in {"Stadt", "Dorf", "Hotel", "Strand", "See", "Flughafen"}
]


_TWO_WAY = [
    ("auf", "on", "on"),
    ("unter", "under", "under"),
    ("neben", "next to", "next to"),
    ("hinter", "behind", "behind"),
]
_TWO_WAY_CONTAINER = [
    ("in", "in", "into"),
    ("in", "in", "into"),
    ("neben", "next to", "next to"),
    ("hinter", "behind", "behind"),
]


def two_way(preposition: tuple[str, str, str], phrase: NounPhrase, motion: bool) -> Pair:
    """A two-way preposition with its phrase: accusative where something moves, dative where it rests."""
    german = german_prepositional(preposition[0], phrase, ACCUSATIVE if motion else DATIVE)
    return german, f"{preposition[1 + motion]} {phrase.english[1]}"


def draw_spot(rng: Random, motion: bool, containers: float = 0.4) -> Pair:
    """A spot on, under, next to, behind or in a piece of furniture or a container."""
    container = chance(rng, containers)
    noun = draw_noun(rng, ["container"] if container else ["surface"])
    phrase = nominal(draw(rng, ["the", "the", "the", "this", "my"]), draw_adjectives(rng, noun, 0.25), noun)
    return two_way(draw_skewed(rng, _TWO_WAY_CONTAINER if container else _TWO_WAY), phrase, motion)


# --------------------------------------------------------------------------------------------------------------------
# Clauses, German


@dataclass(slots=True)
class Clause:
    """One clause, independent of word order and language.

    `tense` is the German one: present, preterite, perfect or pluperfect. `aspect` is the English one where a
    construction fixes it, otherwise it follows from tense, verb and time. `negation` is nicht, kein (already in a noun
    phrase) or empty. `complement` belongs to the verb (direction, prepositional object, predicate), `place` is free.
    `then` is what follows the clause in both languages: an extraposed relative clause, an infinitive clause.
    """

    subject: NounPhrase
    verb: Verb
    tense: str = "present"
    modal: str = ""
    liking: bool = False
    negation: str = ""
    passive: bool = False
    aspect: str = ""
    accusative: NounPhrase | None = None
    dative: NounPhrase | None = None
    complement: Pair | None = None
    place: Pair | None = None
    manner: Pair | None = None
    time: Time | None = None
    frequency: Pair | None = None
    then: Pair | None = None


_SEIN = parse_verb(["sein ist war gewesen*", "be was been", "copula", "", "", "stat"])
_HABEN = parse_verb(["haben hat hatte gehabt", "have had had", "t", "person", "", "stat noimp"])
_WERDEN = parse_verb(["werden wird wurde geworden*", "become became become", "copula", "", "", ""])
_REFLEXIVES = {(1, False): "mich", (2, False): "dich", (1, True): "uns", (2, True): "euch"}


def past_participle(verb: Verb) -> str:
    """angerufen, spazieren gegangen."""
    return verb.particle + verb.participle


def full_infinitive(verb: Verb) -> str:
    """anrufen, spazieren gehen."""
    return verb.particle + verb.infinitive


def zu_infinitive(verb: Verb) -> str:
    """zu lesen, anzurufen, spazieren zu gehen."""
    if verb.particle and not verb.particle.endswith(" "):
        return f"{verb.particle}zu{verb.infinitive}"
    return f"{verb.particle}zu {verb.infinitive}"


def modal_finite(modal: str, past: bool, person: int, plural: bool) -> str:
    """A finite modal, also wäre, hätte and würden."""
    if past:
        return past_ending(PRETERITE[modal], person, plural)
    return PRESENT[modal].split()[person - 1 + 3 * plural]


def german_verb(clause: Clause) -> tuple[str, str, str]:
    """The finite verb, the separable particle it left behind, and the non-finite rest of the right bracket."""
    verb, subject = clause.verb, clause.subject
    person, plural = subject.person, subject.plural
    past = clause.tense == "preterite"
    if clause.modal:
        rest = f"{past_participle(verb)} werden" if clause.passive else full_infinitive(verb)
        return modal_finite(clause.modal, past, person, plural), "", rest
    if clause.tense in {"perfect", "pluperfect"}:
        auxiliary = _SEIN if clause.passive or verb.auxiliary == "sein" else _HABEN
        rest = past_participle(verb) + (" worden" if clause.passive else "")
        return german_finite(auxiliary, clause.tense == "pluperfect", person, plural), "", rest
    if clause.passive:
        return german_finite(_WERDEN, past, person, plural), "", past_participle(verb)
    return german_finite(verb, past, person, plural), verb.particle.strip(), ""


def german_fields(clause: Clause) -> list[Pair]:
    """(field, text) of all that stands between the verb brackets, in the order of the German middle field."""
    accusative, dative = clause.accusative, clause.dative
    subject = clause.subject
    fields = [("subject", subject.german[NOMINATIVE])]
    if clause.verb.frame == "refl":
        reflexive = ("reflexive", _REFLEXIVES.get((subject.person, subject.plural), "sich"))
        fields.insert(1 if subject.pronoun else 0, reflexive)
    if accusative and accusative.pronoun:
        fields.append(("accusative", accusative.german[ACCUSATIVE]))
    if dative:
        before_subject = clause.verb.frame == "x" and dative.pronoun and not subject.pronoun
        fields.insert(0 if before_subject else len(fields), ("dative", dative.german[DATIVE]))
    if clause.time:
        fields.append(("time", clause.time.german))
    if clause.frequency:
        fields.append(("frequency", clause.frequency[0]))
    if accusative and not accusative.pronoun and accusative.definite:
        fields.append(("accusative", accusative.german[ACCUSATIVE]))
    if clause.negation == "nicht":
        fields.append(("negation", "nicht"))
    if clause.liking:
        fields.append(("manner", "gern"))
    if clause.manner:
        fields.append(("manner", clause.manner[0]))
    if clause.place:
        fields.append(("place", clause.place[0]))
    if accusative and not accusative.pronoun and not accusative.definite:
        fields.append(("accusative", accusative.german[ACCUSATIVE]))
    if clause.complement:
        fields.append(("complement", clause.complement[0]))
    return fields


def join(*parts: str) -> str:
    """The non-empty parts with single spaces between them."""
    return " ".join(part for part in parts if part)


def german_main(clause: Clause, front: str = "subject", opening: str = "") -> str:
    """Verb-second: the field named `front`, or the text `opening`, then the finite verb, then everything else."""
    finite, particle, rest = german_verb(clause)
    fields = german_fields(clause)
    first = opening or next(text for name, text in fields if name == front)
    middle = [text for name, text in fields if opening or name != front]
    return join(first, finite, *middle, particle, rest, clause.then[0] if clause.then else "")


def german_question(clause: Clause, word: str = "", gap: str = "") -> str:
    """Verb-first, or verb-second after a question word that stands for the field `gap`."""
    finite, particle, rest = german_verb(clause)
    middle = [text for name, text in german_fields(clause) if name != gap]
    return join(word, finite, *middle, particle, rest, clause.then[0] if clause.then else "")


def german_subordinate(clause: Clause, word: str, gap: str = "") -> str:
    """Verb-final after a conjunction, or after a relative or question word that stands for the field `gap`."""
    finite, particle, rest = german_verb(clause)
    if clause.verb.particle.endswith(" ") and particle:
        particle += " "
    middle = [text for name, text in german_fields(clause) if name != gap]
    return join(word, *middle, rest, particle + finite, clause.then[0] if clause.then else "")


def german_infinitive(clause: Clause, word: str = "") -> str:
    """The infinitive clause with zu, without its subject."""
    middle = [text for name, text in german_fields(clause) if name != "subject"]
    return join(word, *middle, zu_infinitive(clause.verb))


# --------------------------------------------------------------------------------------------------------------------
# Clauses, English

_BE = EnglishVerb("be", "was", "been")
_HAVE = EnglishVerb("have", "had", "had")
_DO = EnglishVerb("do", "did", "done")
_WANT, _LIKE = EnglishVerb("want", "wanted", "wanted"), EnglishVerb("like", "liked", "liked")
_AUXILIARY_HAVE = EnglishVerb("have", "had", "had")

# German modal: the English verb or auxiliary before the infinitive, and the words between them.
_MODALS: dict[str, tuple[EnglishVerb | str, str]] = {
    "können": ("can", ""),
    "müssen": ("must", ""),
    "wollen": (_WANT, "to"),
    "dürfen": (_BE, "allowed to"),
    "sollen": ("should", ""),
    "möchten": ("would", "like to"),
    "werden": ("will", ""),
    "würden": ("would", ""),
}
_PERFECTIVE = {"perfect", "preterite", "pluperfect"}


def english_aspect(clause: Clause) -> str:
    """The English tense and aspect: what the construction fixes, else by German tense, kind of verb and time."""
    if clause.aspect:
        return clause.aspect
    if clause.tense == "pluperfect":
        return "pluperfect"
    if clause.tense in _PERFECTIVE:
        return "past"
    kind = clause.time.kind if clause.time else ""
    lasting = "stat" in clause.verb.flags
    if kind in {"future", "day"}:
        return "simple" if clause.liking else "will"
    if kind == "since":
        return "perfect" if lasting else "perfect progressive"
    if lasting or clause.liking or clause.frequency or kind == "habit":
        return "simple"
    return "progressive"


def english_modal(clause: Clause) -> tuple[EnglishVerb | str, str]:
    """The English modal in tense and polarity: must is had to in the past, have to when negated."""
    past = clause.tense == "preterite"
    if clause.modal == "müssen" and (past or clause.negation or clause.subject.negative):
        return _HAVE, "to"
    if clause.modal == "können" and past:
        return "could", ""
    return _MODALS[clause.modal]


class _Chain:
    """An English verb group under construction: words after a first verb whose form is not decided yet."""

    def __init__(self, verb: EnglishVerb) -> None:
        self.first: EnglishVerb | str = verb
        self.rest: list[str] = []

    def wrap(self, auxiliary: EnglishVerb | str, form: str, between: str = "") -> None:
        """Put `auxiliary` first; the verb that stood first takes `form`."""
        verb = self.first
        word = (
            verb if isinstance(verb, str) else {"base": verb.base, "ing": verb.ing, "participle": verb.participle}[form]
        )
        self.rest = [*between.split(), word, *self.rest]
        self.first = auxiliary

    @property
    def auxiliary(self) -> bool:
        """Whether the first verb is one that negation and inversion need no do for."""
        return isinstance(self.first, str) or self.first.base == "be" or self.first is _AUXILIARY_HAVE


def english_verb(clause: Clause, inverted: bool = False) -> tuple[str, list[str], bool]:
    """The finite verb, the words after it, and whether the finite verb is an auxiliary."""
    chain = _Chain(clause.verb.english)
    if clause.passive:
        chain.wrap(_BE, "participle")
    past = clause.tense in _PERFECTIVE
    if clause.liking:
        chain.wrap(_LIKE, "base", "to")
    aspect = "past" if past else "simple"
    if clause.modal:
        modal, between = english_modal(clause)
        chain.wrap(modal, "base", between)
    else:
        aspect = english_aspect(clause)
        past = aspect in {"past", "past progressive", "pluperfect"}
        if aspect.endswith("progressive"):
            chain.wrap(_BE, "ing")
        if aspect in {"perfect", "perfect progressive", "pluperfect"}:
            chain.wrap(_AUXILIARY_HAVE, "participle")
        if aspect in {"will", "would"}:
            chain.wrap(aspect, "base")
    if (inverted or clause.negation) and not chain.auxiliary:
        chain.wrap(_DO, "base")
    first = chain.first
    word = first if isinstance(first, str) else english_finite(first, past, clause.subject.agreement)
    return word, chain.rest, chain.auxiliary or first is _DO


def english_after_verb(clause: Clause) -> list[str]:
    """Objects, complement and adverbials, with the verb's particle or preposition in its place."""
    verb, accusative, dative = clause.verb.english, clause.accusative, clause.dative
    thing = accusative.english[1] if accusative else ""
    person = dative.english[1] if dative else ""
    words: list[str]
    if thing and person:
        if "to" in clause.verb.flags or (accusative and accusative.pronoun):
            words = [thing, "to", person]
        else:
            words = [person, thing]
    elif verb.particle:
        late = (accusative and accusative.pronoun) or (verb.particle == "along" and not clause.then)
        words = [thing, verb.particle] if late else [verb.particle, thing]
    else:
        words = [verb.preposition, thing or person]
    if clause.complement:
        words.append(clause.complement[1])
    words += [adverbial[1] for adverbial in (clause.manner, clause.place) if adverbial]
    return [*words, clause.time.english if clause.time else "", clause.then[1] if clause.then else ""]


def english_statement(clause: Clause, opening: str = "", subject: str | None = None) -> str:
    """Subject, verb, objects, adverbials; a fronted time (`opening` its text) is the caller's to leave out of them."""
    finite, rest, auxiliary = english_verb(clause)
    frequency = clause.frequency[1] if clause.frequency else ""
    negation = "not" if clause.negation else ""
    verbs = [finite, negation, frequency, *rest] if auxiliary else [frequency, finite, *rest]
    if subject is None:
        subject = clause.subject.english[0]
    return join(opening, subject, *verbs, *english_after_verb(clause))


def english_question(clause: Clause, word: str = "") -> str:
    """[Question word] auxiliary subject verb."""
    finite, rest, _ = english_verb(clause, inverted=True)
    frequency = clause.frequency[1] if clause.frequency else ""
    negation = "not" if clause.negation else ""
    return join(word, finite, clause.subject.english[0], negation, frequency, *rest, *english_after_verb(clause))


def english_infinitive(clause: Clause, form: str = "base") -> str:
    """The verb in its base or ing form with what follows it."""
    verb = clause.verb.english
    return join("not" if clause.negation else "", verb.ing if form == "ing" else verb.base, *english_after_verb(clause))


# --------------------------------------------------------------------------------------------------------------------
# Drawing a clause

_FRAMES = word_list("t t t t t t i i i i l l m m m d d dt dt dt p p refl put lie")
_VERBS_OF = {frame: [verb for verb in ALL_VERBS if verb.frame == frame] for frame in {verb.frame for verb in ALL_VERBS}}
_RAIN = _VERBS_OF["w"]
_LASTING = frozenset(
    word_list(
        "lesen suchen kennen haben brauchen schlafen arbeiten lernen warten weinen wohnen sitzen stehen studieren "
        "liegen"
    )
)
_PLACEABLE = frozenset(
    word_list("lesen kaufen sehen essen trinken suchen treffen finden verlieren vergessen singen probieren malen")
)
_NO_FREE_PLACE = frozenset(word_list("einschlafen ausgehen umziehen zurückkommen anfangen aufhören abfahren abfliegen"))
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
    return (
        draw_skewed(rng, _VERBS_OF[draw(rng, _FRAMES)])
        if chance(rng, 0.75)
        else draw(rng, _VERBS_OF[draw(rng, _FRAMES)])
    )


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
            return town_phrase(draw_skewed(rng, _TOWNS), False)
        return draw_distant_place(rng, False) if "far" in verb.flags else draw_place(rng, False)
    if verb.frame == "m":
        if "city" in verb.flags:
            return town_phrase(draw_skewed(rng, _TOWNS), True)
        return draw_distant_place(rng, True) if "far" in verb.flags else draw_place(rng, True, towns=0.0)
    if verb.preposition:
        name = draw_skewed(rng, verb.objects)
        phrase = draw_object_person(rng, subject) if name == "person" else draw_nominal(rng, [name], owner=subject)
        german = german_prepositional(verb.preposition, phrase, CASES[verb.case])
        return german, phrase.english[1]
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
            return german_prepositional("mit", company, DATIVE), f"with {company.english[1]}"
    return None


def draw_tense(rng: Random, clause: Clause, tenses: str) -> None:
    """Set the tense, or a modal, or gern: `tenses` is "any", "present" or "past"."""
    kind = rng.random()
    if tenses == "past" or (tenses == "any" and kind < 0.36):
        preterite = clause.verb.infinitive in _PRETERITE_PREFERRED or chance(rng, 0.45)
        second_person = clause.subject.person == 2 or clause.subject.german[0] == "Sie"
        clause.tense = "preterite" if preterite and not second_person else "perfect"
        if second_person and clause.verb.infinitive in {"haben"}:
            clause.tense = "preterite"
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
    if free_place and full_infinitive(verb) not in _NO_FREE_PLACE and chance(rng, 0.7 * adjuncts):
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
    verb = clause.verb
    if clause.tense in {"perfect", "preterite"}:
        if clause.tense == "perfect" and not clause.negation and chance(rng, 0.2):
            clause.frequency, clause.aspect = ("schon", "already"), "perfect"
            if clause.subject.negative:
                clause.frequency, clause.aspect = None, ""
            return
        clause.time = draw_time(rng, ["past", "past", "past", "day", "today"])
        return
    if clause.modal:
        clause.time = draw_time(rng, ["future", "future", "day", "now", "today"])
        return
    if clause.liking:
        clause.time = draw_time(rng, ["habit"])
        return
    if not (clause.negation or clause.subject.negative or "stat" in verb.flags) and chance(rng, 0.25):
        clause.frequency = draw_skewed(rng, _FREQUENCIES)
        return
    kinds = ["future", "future", "future", "day", "now", "today"]
    if "stat" in verb.flags:
        kinds = ["today", "now"] if verb.infinitive in {"haben", "brauchen"} else ["future", "habit"]
    elif verb.frame != "lie":
        kinds += ["habit", "habit"]
    else:
        kinds = ["now", "today"]
    if verb.infinitive in _LASTING and verb.particle == "" and not clause.negation:
        kinds += ["since", "since"]
    if verb.infinitive in {
        "kennen",
        "mögen",
        "lieben",
        "vertrauen",
        "interessieren",
        "erinnern",
        "verstehen",
        "wohnen",
        "sehen",
    }:
        kinds = ["since"] if verb.infinitive in {"kennen", "wohnen"} and not clause.negation else ["habit"]
        if verb.infinitive not in {"kennen", "wohnen", "sehen"} or kinds == ["habit"]:
            return
    clause.time = draw_time(rng, kinds)


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
        if (marked or marked_subject) and not clause.frequency and not clause.then:
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
    formal = clause.subject.german[NOMINATIVE] == "Sie"
    if (formal and not options) or chance(rng, 0.07):
        german, english = draw(rng, _OPENINGS)
        return german_main(clause, opening=german), english_statement(clause, english)
    if not options or (not formal and chance(rng, 0.45)):
        return german_main(clause), english_statement(clause)
    front = draw(rng, options)
    german = german_main(clause, front)
    if front == "time" and clause.time:
        return german, english_statement(
            replace(clause, time=None, aspect=fixed_aspect(clause)), fronted(clause.time.english)
        )
    if front == "place" and clause.place:
        return german, english_statement(replace(clause, place=None), fronted(clause.place[1]))
    return german, english_statement(clause)


def fixed_aspect(clause: Clause) -> str:
    """The aspect of a clause that is about to lose its time adverbial."""
    return "" if clause.modal else english_aspect(clause)


def fronted(english: str) -> str:
    """An adverbial at the start of the sentence, with a comma after two words or more."""
    return english if " " not in english else f"{english},"


# --------------------------------------------------------------------------------------------------------------------
# Sentences


def simple(rng: Random) -> Sentence:
    """One main clause."""
    return *statement(rng, draw_clause(rng, adjuncts=0.9)), "."


def with_relative(rng: Random) -> Sentence:
    """A main clause whose object or subject has a relative clause; after an object it waits for the verb bracket."""
    if chance(rng, 0.4):
        return relative_after_subject(rng)
    verb = draw(rng, [verb for verb in _VERBS_OF["t"] if "bare" not in verb.flags])
    noun = draw_noun(rng, [draw_skewed(rng, verb.objects)])
    plural = not noun.mass and chance(rng, 0.2)
    determiner = draw(rng, ["the", "the", "this"] if plural or noun.mass else ["the", "the", "this", "a"])
    clause = draw_clause(rng, verb, adjuncts=0.3, negation=0.05)
    clause.accusative = nominal(determiner, draw_adjectives(rng, noun, 0.2), noun, plural)
    clause.time, clause.place, clause.manner = None, None, None
    clause.negation = "nicht" if clause.negation and determiner != "a" else ""
    german, english = relative_clause(rng, clause.accusative)
    clause.then = f", {german}", english
    return *statement(rng, clause), "."


def class_of(phrase: NounPhrase) -> str:
    """The class of the head noun that decides what one does with the thing, or that it is a person."""
    classes = phrase.noun.classes if phrase.noun else frozenset[str]()
    return next((name for name in _DEEDS if name in classes), "thing")


_RELATIVE_PRONOUNS = {
    "m": ("der", "den", "dem", "dessen"),
    "f": ("die", "die", "der", "deren"),
    "n": ("das", "das", "dem", "dessen"),
    "pl": ("die", "die", "denen", "deren"),
}
# What one does with a thing, or with a person, by class; a noun counts for the first class it belongs to.
_DEEDS = {
    "person": ["kennen", "treffen", "besuchen", "einladen", "sehen", "anrufen", "fragen", "abholen"],
    "text": ["lesen", "schreiben", "kaufen", "finden", "übersetzen", "suchen"],
    "drink": ["trinken", "kaufen", "bestellen", "probieren"],
    "food": ["kaufen", "essen", "bestellen", "probieren"],
    "clothing": ["tragen", "kaufen", "waschen", "anziehen"],
    "device": ["reparieren", "einschalten", "kaufen", "ausschalten"],
    "vehicle": ["sehen", "kaufen", "reparieren", "waschen"],
    "room": ["aufräumen", "putzen"],
    "music": ["hören", "singen"],
    "event": ["vorbereiten", "absagen"],
    "portable": ["kaufen", "suchen", "finden", "mitbringen", "verlieren", "brauchen", "vergessen"],
    "building": ["sehen", "bauen", "fotografieren", "verkaufen"],
    "furniture": ["kaufen", "verkaufen", "putzen"],
    "opening": ["öffnen", "schließen", "zumachen", "putzen"],
    "part": ["putzen", "reparieren"],
    "animal": ["füttern", "sehen", "fotografieren"],
    "thing": ["sehen"],
}
_VERB_NAMED = {full_infinitive(verb): verb for verb in reversed(ALL_VERBS) if verb.frame == "t"}


def relative_pronoun(phrase: NounPhrase, person: bool) -> NounPhrase:
    """The relative pronoun of a phrase: gender and number of the phrase, case of its own clause."""
    return NounPhrase(
        german=_RELATIVE_PRONOUNS[phrase.gender],
        english=(("who", "who", "whose") if person else ("that", "that", "whose")),
        plural=phrase.plural,
        gender=phrase.gender,
        agreement=phrase.agreement,
        refers=phrase.refers,
        pronoun=True,
    )


def relative_clause(rng: Random, phrase: NounPhrase) -> Pair:
    """A relative clause about `phrase`, which is its subject, object or owner, or stands after its preposition."""
    kind = class_of(phrase)
    person = kind == "person"
    which = relative_pronoun(phrase, person)
    role = rng.random()
    if person and role < 0.45:
        verb = draw_skewed(rng, _VERBS_OF[draw(rng, ["i", "l", "t", "p", "d"])])
        verb = verb if "person" in verb.subjects else _VERB_NAMED["kennen"]
        clause = draw_clause(rng, verb, which, adjuncts=0.4, negation=0.1)
        return german_subordinate(clause, which.german[NOMINATIVE], "subject"), english_statement(clause)
    if person and role < 0.6:
        return relative_with_preposition(rng, which)
    if role < 0.7 and (person or kind == "building"):
        return relative_of_possession(rng, which, person)
    if role < 0.35:
        return relative_position(rng, which, phrase)
    clause = draw_clause(rng, _VERB_NAMED[draw(rng, _DEEDS[kind])], draw_person(rng), adjuncts=0.35, negation=0.08)
    clause.accusative = which
    clause.negation = "nicht" if clause.negation else ""
    if clause.frequency and clause.aspect == "perfect":
        clause.frequency, clause.aspect = None, ""
    german = german_subordinate(clause, which.german[ACCUSATIVE], "accusative")
    gap = replace(clause, accusative=replace(which, english=("", "", "")))
    return german, f"{which.english[1]} {english_statement(gap)}"


def relative_with_preposition(rng: Random, which: NounPhrase) -> Pair:
    """mit dem ich arbeite, with whom I work."""
    preposition, case, english, name = draw(rng, _COMPANY)
    verb = next(verb for verb in ALL_VERBS if verb.infinitive == name and not verb.particle)
    verb = replace(verb, frame="i", english=replace(verb.english, preposition=""))
    clause = Clause(draw_person(rng), verb)
    draw_tense(rng, clause, "any")
    german = german_subordinate(clause, f"{preposition} {which.german[case]}")
    return german, f"{english} whom {english_statement(clause)}"


_COMPANY = [
    ("mit", DATIVE, "with", "arbeiten"),
    ("mit", DATIVE, "with", "spielen"),
    ("mit", DATIVE, "with", "tanzen"),
    ("mit", DATIVE, "with", "frühstücken"),
    ("mit", DATIVE, "with", "wohnen"),
    ("mit", DATIVE, "to", "sprechen"),
    ("von", DATIVE, "of", "träumen"),
    ("auf", ACCUSATIVE, "for", "warten"),
]


def relative_of_possession(rng: Random, which: NounPhrase, person: bool) -> Pair:
    """dessen Auto kaputt ist, whose car is broken."""
    noun = draw_noun(rng, ["vehicle", "kin", "portable", "pet"] if person else ["part"])
    adjective = draw_skewed(rng, adjectives_for(noun))
    possession = nominal("", [], noun)
    clause = Clause(possession, _SEIN, complement=(adjective.german[0], adjective.english[0]))
    german = german_subordinate(clause, f"{which.german[GENITIVE]} {noun.singular}", "subject")
    return german, english_statement(clause, subject=f"whose {noun.english}")


def relative_position(rng: Random, which: NounPhrase, phrase: NounPhrase) -> Pair:
    """das auf dem Tisch liegt, that is lying on the table; or how it is: das sehr teuer war."""
    noun = phrase.noun or NOUN["Buch"]
    if noun.classes & {"small", "text"} and chance(rng, 0.6):
        clause = Clause(which, _LIEGEN, tense=draw(rng, ["present", "preterite"]), complement=draw_spot(rng, False))
        clause.aspect = "past progressive" if clause.tense == "preterite" else ""
    else:
        clause = Clause(which, _SEIN, tense=draw(rng, ["present", "preterite"]), complement=draw_state(rng, noun))
    return german_subordinate(clause, which.german[NOMINATIVE], "subject"), english_statement(clause)


_LIEGEN = next(verb for verb in ALL_VERBS if verb.infinitive == "liegen")
_DEGREES = [
    ("sehr", "very"),
    ("zu", "too"),
    ("besonders", "particularly"),
    ("ziemlich", "quite"),
    ("", ""),
    ("", ""),
    ("", ""),
]


def negate_state(clause: Clause) -> None:
    """nicht before a predicate, which loses ziemlich and noch: *not quite old* would mean something else."""
    clause.negation = "nicht"
    if clause.complement:
        german, english = clause.complement
        clause.complement = (
            german.removeprefix("ziemlich ").removeprefix("noch "),
            re.sub("^(quite|still) ", "", english),
        )


def draw_state(rng: Random, noun: Noun) -> Pair:
    """An adjective that suits the noun, half of the time with a degree if it has degrees."""
    adjective = draw_skewed(rng, adjectives_for(noun) or ALL_ADJECTIVES[:1])
    degree = draw(rng, _DEGREES) if adjective.comparable else ("", "")
    return join(degree[0], adjective.german[0]), join(degree[1], adjective.english[0])


def relative_after_subject(rng: Random) -> Sentence:
    """A main clause whose subject has a relative clause between commas."""
    phrase = draw_nominal(rng, ["person"], plural=0.2, attributes=False)
    if not phrase.definite:
        phrase = nominal("the", [], draw_noun(rng, ["person"]))
    german, english = relative_clause(rng, phrase)
    subject = replace(
        phrase,
        german=(f"{phrase.german[0]} , {german} ,", *phrase.german[1:]),
        english=(f"{phrase.english[0]} {english}", *phrase.english[1:]),
    )
    if chance(rng, 0.3):
        clause = Clause(subject, _SEIN, tense=draw(rng, ["present", "preterite"]), complement=draw_feeling(rng))
    else:
        clause = draw_clause(rng, draw_personal_verb(rng), phrase, adjuncts=0.3)
        clause.subject = subject
    return german_main(clause), english_statement(clause), "."


# Conjunctions by the tenses of the two clauses (see subordinate).
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
        return Clause(pronoun("es"), draw(rng, _RAIN), tense, aspect=aspect)
    again = same_or_new(rng, subject)
    if kind < 0.35:
        clause = Clause(again or draw_person(rng), _SEIN, tense, complement=draw_feeling(rng))
        if chance(rng, 0.15) and not clause.subject.negative:
            negate_state(clause)
        return clause
    verb = draw_personal_verb(rng) if again else draw_verb(rng)
    return draw_clause(rng, verb, again, tenses, adjuncts=0.4)


def draw_personal_verb(rng: Random) -> Verb:
    """A verb whose subject may be a person."""
    verb = draw_verb(rng)
    while "person" not in verb.subjects:
        verb = draw_verb(rng)
    return verb


def draw_feeling(rng: Random) -> Pair:
    """An adjective for a person, now and then with a degree."""
    adjective = draw_skewed(rng, _FEELINGS)
    degree = ("noch", "still") if adjective.english[0] in _PASSING and chance(rng, 0.2) else draw(rng, _DEGREES)
    return join(degree[0], adjective.german[0]), join(degree[1], adjective.english[0])


_PASSING = frozenset(word_list("tired sick sad hungry empty full dirty clean"))
_FEELINGS = [adjective for adjective in ALL_ADJECTIVES if "person" in adjective.classes]


def combine(rng: Random, main: Clause, german: str, english: str, first: float = 0.35) -> Sentence:
    """A main clause and a subordinate one, in either order; the main verb follows a fronted clause at once."""
    formal = main.subject.german[NOMINATIVE] == "Sie"
    if formal or chance(rng, first):
        return german_main(main, opening=f"{german} ,"), f"{english}, {english_statement(main)}", "."
    return f"{german_main(main)} , {german}", f"{english_statement(main)} {english}", "."


def reason(rng: Random) -> Sentence:
    """weil, obwohl, da."""
    tenses = draw(rng, ["present", "past"])
    main = draw_clause(rng, tenses=tenses, adjuncts=0.4)
    conjunction = draw(rng, _REASONS)
    clause = reason_clause(rng, main.subject, tenses)
    german = german_subordinate(clause, conjunction[0])
    if conjunction[0] == "da":
        return (
            german_main(main, opening=f"{german} ,"),
            f"since {english_statement(clause)}, {english_statement(main)}",
            ".",
        )
    return combine(rng, main, german, f"{conjunction[1]} {english_statement(clause)}")


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


def temporal_present(rng: Random) -> Sentence:
    """wenn, sobald, bevor, bis in the present: English has will in the main clause and the present after them."""
    main = dynamic_clause(rng)
    german, english = draw(
        rng, [("wenn", "if"), ("wenn", "if"), ("wenn", "if"), ("sobald", "as soon as"), ("bevor", "before")]
    )
    if chance(rng, 0.3):
        main.modal = draw(rng, ["können", "müssen", "wollen", "möchten", "dürfen", "werden"])
    else:
        main.aspect = "will"
    if german == "wenn" and chance(rng, 0.3):
        clause = Clause(pronoun("es"), draw(rng, _RAIN), aspect="simple")
    else:
        clause = replace(dynamic_clause(rng, same_or_new(rng, main.subject)), aspect="simple")
    return combine(rng, main, german_subordinate(clause, german), f"{english} {english_statement(clause)}", 0.5)


def whenever(rng: Random) -> Sentence:
    """immer wenn: the simple present on both sides."""
    main = replace(dynamic_clause(rng), aspect="simple")
    clause = replace(dynamic_clause(rng, same_or_new(rng, main.subject)), aspect="simple")
    return combine(rng, main, german_subordinate(clause, "immer wenn"), f"whenever {english_statement(clause)}", 0.6)


def temporal_past(rng: Random) -> Sentence:
    """als, während, bevor in the past."""
    main = dynamic_clause(rng)
    main = in_past(main) if chance(rng, 0.5) else replace(main, tense="perfect")
    conjunction, english = draw(rng, [("als", "when"), ("als", "when"), ("während", "while"), ("bevor", "before")])
    clause = in_past(dynamic_clause(rng, same_or_new(rng, main.subject)))
    if conjunction == "während":
        clause.aspect = "past progressive"
    if conjunction == "als" and chance(rng, 0.25):
        clause = Clause(draw_person(rng), _SEIN, tense="preterite", complement=draw(rng, _STAGES))
    return combine(rng, main, german_subordinate(clause, conjunction), f"{english} {english_statement(clause)}", 0.5)


_STAGES = [("noch jung", "still young"), ("krank", "sick"), ("noch klein", "still small"), ("sehr müde", "very tired")]


def after(rng: Random) -> Sentence:
    """nachdem with the pluperfect."""
    main = in_past(dynamic_clause(rng))
    clause = replace(dynamic_clause(rng, same_or_new(rng, main.subject)), tense="pluperfect")
    return combine(rng, main, german_subordinate(clause, "nachdem"), f"after {english_statement(clause)}", 0.7)


def so_that(rng: Random) -> Sentence:
    """damit with können."""
    main = dynamic_clause(rng, draw_person(rng, formal=False))
    clause = replace(dynamic_clause(rng, draw_person(rng)), modal="können")
    german = f"{german_main(main)} , {german_subordinate(clause, 'damit')}"
    return german, f"{english_statement(main)} so that {english_statement(clause)}", "."


# Verbs that take a clause: present and past of what is said, for dass.
_SAYING = [
    parse_verb(["sagen", "say said said", "c", "person", "", ""]),
    parse_verb(["wissen weiß wusste gewusst", "know knew known", "c", "person", "", "stat"]),
    parse_verb(["glauben", "believe", "c", "person", "", "stat"]),
    parse_verb(["hoffen", "hope", "c", "person", "", "stat"]),
    parse_verb(["denken denkt dachte gedacht", "think thought thought", "c", "person", "", "stat"]),
    parse_verb(["erzählen", "tell told told", "d", "person", "", ""]),
    parse_verb(["merken", "notice", "c", "person", "", "stat"]),
]
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
        clause = reason_clause(rng, pronoun("ich"), tenses)
        return f"{german} , {german_subordinate(clause, 'dass')}", f"{english} that {english_statement(clause)}", "."
    subject, verb = draw_person(rng, formal=False), draw_skewed(rng, _SAYING)
    main = Clause(subject, verb, aspect="simple")
    if verb.frame == "d":
        main.dative = draw_object_person(rng, subject)
    if tenses == "past":
        main = in_past(replace(main, aspect=""))
    clause = reason_clause(rng, subject, tenses)
    german = f"{german_main(main)} , {german_subordinate(clause, 'dass')}"
    return german, f"{english_statement(main)} that {english_statement(clause)}", "."


def indirect_question(rng: Random) -> Sentence:
    """Weißt du, wo ...? Ich weiß nicht, ob ...: verb-final in German, no inversion in English."""
    word, english = draw(rng, _INDIRECT)
    clause = dynamic_clause(rng, draw_person(rng, indefinite=False))
    if word == "wo":
        clause = Clause(clause.subject, draw(rng, _VERBS_OF["l"]))
    elif word == "mit wem":
        names = {"spielen", "tanzen", "arbeiten", "frühstücken"}
        clause = Clause(clause.subject, draw(rng, [verb for verb in _VERBS_OF["i"] if verb.infinitive in names]))
    if word == "wann":
        clause.aspect = "will"
    elif chance(rng, 0.4):
        clause = in_past(clause)
    opening = draw(rng, _ASKING)
    german = f"{opening[0]} , {german_subordinate(clause, word)}"
    return german, f"{opening[1]} {english} {english_statement(clause)}", opening[2]


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

# What an infinitive clause depends on: German verb, English verb, the form of the English verb after it.
_INFINITIVE_VERBS = [
    (parse_verb(["versuchen", "try tried tried", "z", "person", "", ""]), "to"),
    (parse_verb(["vergessen vergisst vergaß vergessen", "forget forgot forgotten", "z", "person", "", "stat"]), "to"),
    (parse_verb(["hoffen", "hope", "z", "person", "", "stat"]), "to"),
    (parse_verb(["planen", "plan planned planned", "z", "person", "", "stat"]), "to"),
    (parse_verb(["beschließen beschließt beschloss beschlossen", "decide", "z", "person", "", "stat"]), "to"),
    (parse_verb(["an·fangen fängt fing gefangen", "begin began begun", "z", "person", "", ""]), "to"),
    (parse_verb(["auf·hören", "stop stopped stopped", "z", "person", "", "stat"]), "ing"),
    (parse_verb(["versprechen verspricht versprach versprochen", "promise", "z", "person", "", "stat"]), "to"),
]
_INFINITIVE_ADJECTIVES = [
    ("wichtig", "important"),
    ("leicht", "easy"),
    ("schwer", "difficult"),
    ("schön", "nice"),
    ("verboten", "forbidden"),
    ("möglich", "possible"),
    ("gefährlich", "dangerous"),
]


_ANYONE = NounPhrase(("man", "", "", ""), ("one", "one", "one's"))


def infinitive_clause(rng: Random) -> Sentence:
    """zu with the infinitive after a verb, an adjective or a noun."""
    kind = rng.random()
    subject = draw_person(rng, formal=False) if kind > 0.2 else _ANYONE
    clause = dynamic_clause(rng, subject)
    if kind <= 0.2:
        german, english = draw(rng, _INFINITIVE_ADJECTIVES)
        return f"es ist {german} , {german_infinitive(clause)}", f"it is {english} to {english_infinitive(clause)}", "."
    if kind < 0.35:
        noun = draw(rng, [("keine Zeit", "no time"), ("genug Zeit", "enough time"), ("genug Geld", "enough money")])
        main = Clause(subject, _HABEN, tense=draw(rng, ["present", "preterite"]), complement=noun)
        german = f"{german_main(main)} , {german_infinitive(clause)}"
        return german, f"{english_statement(main)} to {english_infinitive(clause)}", "."
    verb, form = draw_skewed(rng, _INFINITIVE_VERBS)
    main = Clause(subject, verb)
    if chance(rng, 0.6):
        main = in_past(main) if chance(rng, 0.4) else replace(main, tense="perfect")
    follow = english_infinitive(clause, "ing") if form == "ing" else f"to {english_infinitive(clause)}"
    return f"{german_main(main)} , {german_infinitive(clause)}", f"{english_statement(main)} {follow}", "."


def purpose(rng: Random) -> Sentence:
    """um ... zu (to), ohne ... zu (without doing)."""
    subject = draw_person(rng, formal=False, indefinite=False)
    main = draw_clause(
        rng, draw(rng, _VERBS_OF["m"]), subject, draw(rng, ["present", "past"]), adjuncts=0.2, negation=0.0
    )
    clause = dynamic_clause(rng, pronoun_for(subject) or subject)
    if chance(rng, 0.7):
        german, english = german_infinitive(clause, "um"), f"to {english_infinitive(clause)}"
    else:
        german, english = german_infinitive(clause, "ohne"), f"without {english_infinitive(clause, 'ing')}"
    return f"{german_main(main)} , {german}", f"{english_statement(main)} {english}", "."


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


def question(rng: Random) -> Sentence:
    """Yes/no questions."""
    clause = draw_clause(rng, adjuncts=0.6, negation=0.03)
    return german_question(clause), english_question(clause), "?"


def wh_question(rng: Random) -> Sentence:
    """Questions with warum, wann, wo, wohin, wer, wen, wem, was, welch-, wie viele, wie lange."""
    return draw(rng, _WH_QUESTIONS)(rng)


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
        clause = Clause(
            clause.subject, draw(rng, [verb for verb in _VERBS_OF["i"] if full_infinitive(verb) in _LASTING])
        )
    if aspect == "past":
        clause = in_past(clause) if chance(rng, 0.3) else replace(clause, tense="perfect")
    else:
        clause.aspect = aspect
    return german_question(clause, word), english_question(clause, english), "?"


def draw_asked_person(rng: Random) -> NounPhrase:
    """The subject of a question: neither the speaker nor nobody in particular."""
    person = draw_person(rng, indefinite=False)
    return pronoun("du") if person.german[NOMINATIVE] == "ich" else person


def ask_place(rng: Random) -> Sentence:
    """wo and wohin."""
    motion = chance(rng, 0.5)
    verb = draw(rng, [verb for verb in _VERBS_OF["m" if motion else "l"] if not verb.particle])
    clause = plain(draw_clause(rng, verb, draw_asked_person(rng), adjuncts=0.0, negation=0.0))
    clause.complement = None
    word = ("wohin", "where") if motion else ("wo", "where")
    return german_question(clause, word[0]), english_question(clause, word[1]), "?"


_GAP = NounPhrase(("", "", "", ""), ("", "", ""))


def ask_object(rng: Random) -> Sentence:
    """wen, wem, was, welch-, wie viele."""
    verb = draw_skewed(rng, [verb for verb in _VERBS_OF["t"] if "bare" not in verb.flags])
    clause = plain(draw_clause(rng, verb, draw_asked_person(rng), adjuncts=0.0, negation=0.0))
    kind = draw_skewed(rng, verb.objects)
    clause.accusative, clause.place = _GAP, None
    if kind == "person":
        german, english = "wen", "who"
    elif chance(rng, 0.4):
        german, english = "was", "what"
    else:
        german, english = which_or_how_many(rng, draw_noun(rng, [kind]))
    return german_question(clause, german, "accusative"), english_question(clause, english), "?"


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
    verb = draw(rng, [verb for verb in _VERBS_OF["d"] if not verb.english.preposition])
    clause = plain(draw_clause(rng, verb, draw_asked_person(rng), adjuncts=0.0, negation=0.0))
    clause.dative = _GAP
    return german_question(clause, "wem", "dative"), english_question(clause, "who"), "?"


def ask_subject(rng: Random) -> Sentence:
    """wer: no do in English."""
    who = NounPhrase(("wer", "", "", ""), ("who", "", ""))
    clause = draw_clause(rng, draw_personal_verb(rng), who, adjuncts=0.5, negation=0.05)
    return german_main(clause), english_statement(clause), "?"


_WH_QUESTIONS = [ask_adverbial, ask_adverbial, ask_place, ask_object, ask_object, ask_dative, ask_subject]


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
    middle = [text for name, text in german_fields(clause) if name != "subject"]
    if please and clause.dative and clause.dative.pronoun:
        please = False
    german = join(finite, "bitte" if please else "", *middle, verb.particle.strip())
    lead = "do not" if clause.negation else ""
    body = english_infinitive(replace(clause, negation=""))
    return german, join("please" if please else "", lead, body), "!"


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
            draw_nominal(rng, ["person"], adjective=0.2, plural=0.2) if chance(rng, 0.7) else draw_skewed(rng, _NAMES)
        )
        clause.manner = german_prepositional("von", agent, DATIVE), f"by {agent.english[1]}"
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


# --------------------------------------------------------------------------------------------------------------------
# Sentences around sein, comparison, quantity


def predicate(rng: Random) -> Sentence:
    """Der Tisch ist neu: predicative adjectives, negated or with a degree, of things and persons."""
    if chance(rng, 0.4):
        return profession(rng)
    noun = draw_noun(rng, _DESCRIBED)
    plural = not noun.mass and chance(rng, 0.25)
    subject = nominal(draw(rng, ["the", "the", "this", "my", "your"]), [], noun, plural)
    if chance(rng, 0.25) and not plural and not noun.mass:
        subject = with_attribute(rng, nominal("the", [], noun), [], noun, False)
    clause = Clause(subject, _SEIN, tense=draw(rng, ["present", "present", "preterite"]))
    clause.complement = draw_state(rng, noun)
    if chance(rng, 0.25):
        negate_state(clause)
    if clause.complement[1] in _PASSING and clause.tense == "present" and not clause.negation and chance(rng, 0.4):
        clause.frequency = draw(rng, [("immer", "always"), ("oft", "often"), ("schon", "already")])
    if chance(rng, 0.2):
        return german_question(clause), english_question(clause), "?"
    return german_main(clause), english_statement(clause), "."


_DESCRIBED = word_list("furniture portable clothing vehicle building text device room show food drink person animal")


def profession(rng: Random) -> Sentence:
    """Sie ist Ärztin: no article in German; Er ist ein guter Arzt."""
    female = chance(rng, 0.5)
    refers = "she" if female else "he"
    noun = draw_skewed(rng, [noun for noun in NOUNS_OF["job"] if noun.refers == refers])
    if chance(rng, 0.5):
        subject = draw(rng, [name for name in _NAMES if name.refers == refers])
    else:
        kin = draw(rng, [noun for noun in NOUNS_OF["kin"] if noun.refers == refers])
        subject = nominal(draw(rng, ["my", "our", "his", "her", "their", "your"]), [], kin)
    adjectives = [(draw(rng, _PROFESSIONAL), 0)] if chance(rng, 0.4) else []
    phrase = nominal("a" if adjectives else "", adjectives, noun)
    english = english_nominal("a", adjectives, noun, False)
    clause = Clause(subject, _SEIN, complement=(phrase.german[NOMINATIVE], english))
    clause.tense = draw(rng, ["present", "present", "preterite"])
    if chance(rng, 0.2) and not adjectives:
        clause.complement, clause.negation = (nominal("no", [], noun).german[NOMINATIVE], english), "kein"
    elif chance(rng, 0.3):
        clause = Clause(subject, _WERDEN, modal=draw(rng, ["wollen", "möchten"]), complement=clause.complement)
    elif chance(rng, 0.3) and clause.tense == "present":
        n = rng.randint(2, 40)
        clause.time = Time(f"seit {german_number(n)} Jahren", f"for {english_number(n)} years", "since")
        clause.aspect = "perfect"
    return german_main(clause), english_statement(clause), "."


_PROFESSIONAL = [
    adjective for adjective in ALL_ADJECTIVES if adjective.english[0] in {"good", "honest", "kind", "rich"}
]


def comparison(rng: Random) -> Sentence:
    """älter als, so alt wie, der älteste."""
    adjective = draw(rng, [adjective for adjective in ALL_ADJECTIVES if adjective.comparable])
    classes = [name for name in _DESCRIBED if name in adjective.classes and name not in {"food", "drink"}]
    if not classes:
        return comparison(rng)
    name = draw(rng, classes)
    first, second = draw_noun(rng, [name]), draw_noun(rng, [name])
    if first.english == second.english:
        return comparison(rng)
    left = nominal(draw(rng, ["the", "this", "my", "your"]), [], first)
    if chance(rng, 0.22):
        return superlative(rng, adjective, first)
    right = nominal(draw(rng, ["the", "my", "your", "this"]), [], second)
    tense = draw(rng, ["present", "present", "preterite"])
    if chance(rng, 0.6):
        degree = draw(rng, [("", ""), ("", ""), ("viel", "much"), ("noch", "even")])
        text = (
            join(degree[0], adjective.german[1], "als", right.german[NOMINATIVE]),
            join(degree[1], adjective.english[1], "than", right.english[0]),
        )
        clause = Clause(left, _SEIN, tense=tense, complement=text)
    else:
        text = f"so {adjective.german[0]} wie {right.german[0]}", f"as {adjective.english[0]} as {right.english[0]}"
        clause = Clause(left, _SEIN, tense=tense, complement=text, negation="nicht" if chance(rng, 0.5) else "")
    return german_main(clause), english_statement(clause), "."


def superlative(rng: Random, adjective: Adjective, noun: Noun) -> Sentence:
    """Das ist der älteste Turm in der Stadt."""
    phrase = nominal("the", [(adjective, 2)], noun)
    if "person" in noun.classes or chance(rng, 0.4):
        where = draw(rng, [("in der Stadt", "in the town"), ("im Dorf", "in the village"), ("von allen", "of all")])
        german, english = f"das ist {phrase.german[0]} {where[0]}", f"this is {phrase.english[0]} {where[1]}"
        return german, english, "."
    which = relative_pronoun(phrase, False)
    clause = Clause(draw_person(rng, indefinite=False), _VERB_NAMED["sehen"], "perfect", aspect="perfect")
    clause.accusative, clause.frequency = _GAP, ("jemals", "ever")
    german = german_subordinate(clause, which.german[ACCUSATIVE], "accusative")
    return (
        f"das ist {phrase.german[NOMINATIVE]} , {german}",
        f"this is {phrase.english[0]} that {english_statement(clause)}",
        ".",
    )


def price(rng: Random, expensive: bool) -> Pair:
    """12 Euro, zwölf Euro, 3,50 Euro; 1.200 Euro if expensive: decimal comma and thousands point change over."""
    kind = 1.0 if expensive else rng.random()
    if kind < 0.3:
        n = rng.randint(2, 120)
        return f"{german_number(n)} Euro", f"{english_number(n)} euros"
    if kind < 0.55:
        n = rng.randint(2, 999)
        return f"{n} Euro", f"{n} euros"
    if not expensive:
        whole, cents = rng.randint(2, 99), rng.choice([5, 20, 25, 40, 50, 75, 80, 90, 95, 99])
        return f"{whole},{cents:02d} Euro", f"{whole}.{cents:02d} euros"
    thousands, rest = rng.randint(1, 98), rng.randint(0, 19) * 50
    return f"{thousands}.{rest:03d} Euro", f"{thousands},{rest:03d} euros"


_KOSTEN = parse_verb(["kosten", "cost cost cost", "n", "thing", "", "stat"])
_DAUERN = parse_verb(["dauern", "last", "n", "event", "", "stat"])


def priced(rng: Random) -> Sentence:
    """Prices, asked and told."""
    noun = draw_noun(rng, ["clothing", "furniture", "vehicle", "portable", "device", "text"])
    plural = chance(rng, 0.2)
    adjectives = draw_adjectives(rng, noun, 0.4)
    subject = nominal(draw(rng, ["the", "the", "this"]), adjectives, noun, plural)
    german, english = price(rng, "vehicle" in noun.classes)
    kind = rng.random()
    if kind < 0.15:
        verb = Clause(subject, _KOSTEN)
        return german_question(verb, "wie viel"), english_question(verb, "how much"), "?"
    if kind < 0.4:
        payer = draw_person(rng, formal=False, indefinite=False)
        thing = german_prepositional("für", subject, ACCUSATIVE)
        paying = parse_verb(["bezahlen", "pay paid paid", "n", "person", "", ""])
        clause = Clause(payer, paying, tense="perfect", complement=(german, f"{english} for {subject.english[1]}"))
        if chance(rng, 0.5):
            return german_main(clause, opening=thing), english_statement(clause), "."
        clause.place = (thing, "")
        return german_main(clause), english_statement(clause), "."
    tense = draw(rng, ["present", "present", "preterite"])
    about = draw(rng, [("", ""), ("", ""), ("nur", "only"), ("mehr als", "more than"), ("fast", "almost")])
    clause = Clause(subject, _KOSTEN, tense=tense, complement=(join(about[0], german), join(about[1], english)))
    if chance(rng, 0.15):
        clause.negation = "nicht"
        clause.complement = f"mehr als {german}", f"more than {english}"
    return german_main(clause), english_statement(clause), "."


def age_or_year(rng: Random) -> Sentence:
    """Ages and years of birth."""
    subject = draw_person(rng, formal=False, indefinite=False)
    if chance(rng, 0.6):
        n = rng.randint(2, 99)
        german, english = (str(n), str(n)) if chance(rng, 0.4) else (german_number(n), english_number(n))
        clause = Clause(subject, _SEIN, complement=(f"{german} Jahre alt", f"{english} years old"))
        clause.tense = draw(rng, ["present", "present", "preterite"])
        if chance(rng, 0.2):
            clause.frequency = ("schon", "already")
        return german_main(clause), english_statement(clause), "."
    year = rng.randint(1920, 2015)
    town = town_phrase(draw_skewed(rng, _TOWNS), False)
    be = german_finite(_WERDEN, True, subject.person, subject.plural)
    was = english_finite(_BE, True, subject.agreement)
    month = draw(rng, _MONTHS)
    when = draw(rng, [(str(year), f"in {year}"), (f"im {month[0]} {year}", f"in {month[1]} {year}")])
    if chance(rng, 0.5):
        return (
            f"{subject.german[0]} {be} {when[0]} {town[0]} geboren",
            f"{subject.english[0]} {was} born {town[1]} {when[1]}",
            ".",
        )
    opening = fronted(when[1])
    return (
        f"{when[0]} {be} {subject.german[0]} {town[0]} geboren",
        f"{opening} {subject.english[0]} {was} born {town[1]}",
        ".",
    )


def timetable(rng: Random) -> Sentence:
    """Der Zug nach Berlin fährt um halb acht ab; Das Konzert dauert zwei Stunden."""
    if chance(rng, 0.35):
        noun = draw_noun(rng, ["event", "show"])
        n = rng.randint(2, 12)
        unit = draw(rng, [("Stunden", "hours"), ("Tage", "days"), ("Minuten", "minutes")])
        clause = Clause(nominal(draw(rng, ["the", "this"]), draw_adjectives(rng, noun, 0.3), noun), _DAUERN)
        clause.complement = f"{german_number(n)} {unit[0]}", f"{english_number(n)} {unit[1]}"
        clause.tense = draw(rng, ["present", "preterite", "perfect"])
        return german_main(clause), english_statement(clause), "."
    name = draw(rng, ["abfahren", "ankommen", "anfangen", "stattfinden"])
    verb = next(verb for verb in _VERBS_OF["i"] if full_infinitive(verb) == name)
    noun = draw_noun(rng, ["public"] if "public" in verb.subjects else ["event"])
    subject = nominal("the", [], noun)
    town = draw_skewed(rng, _TOWNS)
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


def existence(rng: Random) -> Sentence:
    """Es gibt with the accusative: there is, there are."""
    place = draw_skewed(rng, _PLACES)
    where = place_phrase(place, False, draw_adjectives(rng, place.noun, 0.2))
    outdoor = place.noun.singular in {"Park", "Stadt", "Markt", "Wald", "Strand", "See", "Dorf", "Garten"}
    noun = draw_noun(
        rng, ["building", "animal", "person", "vehicle"] if outdoor else ["furniture", "text", "device", "person"]
    )
    plural = not noun.mass and chance(rng, 0.55)
    negative = chance(rng, 0.25)
    adjectives = draw_adjectives(rng, noun, 0.35)
    if negative:
        phrase = nominal("no", adjectives, noun, plural)
    elif plural and chance(rng, 0.6):
        phrase = nominal("", adjectives, noun, True, number=draw_count(rng))
    else:
        phrase = nominal(draw(rng, ["many", "some"]) if plural else "a", adjectives, noun, plural)
    past = chance(rng, 0.3)
    gives = "gab" if past else "gibt"
    be = english_finite(_BE, past, phrase.agreement)
    if chance(rng, 0.2) and not negative:
        return f"{gives} es {where[0]} {phrase.german[1]}", f"{be} there {phrase.english[0]} {where[1]}", "?"
    if chance(rng, 0.5):
        return f"{where[0]} {gives} es {phrase.german[1]}", f"there {be} {phrase.english[0]} {where[1]}", "."
    return f"es {gives} {where[0]} {phrase.german[1]}", f"there {be} {phrase.english[0]} {where[1]}", "."


# German verbs whose dative is the English subject.
_EXPERIENCE = [
    (
        parse_verb(["gefallen gefällt gefiel gefallen", "like", "x", "", "clothing text building show music room", ""]),
        "like",
    ),
    (parse_verb(["schmecken", "like", "x", "", "food baked dish fruit drink", ""]), "like"),
    (parse_verb(["fehlen", "miss", "x", "", "person kin pet", ""]), "miss"),
    (parse_verb(["gehören", "own", "x", "", "vehicle building clothing portable pet", ""]), "belong to"),
]


def experience(rng: Random) -> Sentence:
    """Das Kleid gefällt meiner Schwester: My sister likes the dress."""
    verb, english = draw_skewed(rng, _EXPERIENCE)
    noun = draw_noun(rng, verb.objects)
    plural = not noun.mass and chance(rng, 0.25)
    thing = nominal(draw(rng, ["the", "the", "this", "my", "your"]), draw_adjectives(rng, noun, 0.3), noun, plural)
    person = draw_object_person(rng, thing)
    if not person.definite or ("person" in noun.classes and not person.pronoun):
        person = pronoun(draw(rng, ["ich", "er", "sie", "wir", "sie (plural)"]))
    tense = draw(rng, ["present", "present", "present", "preterite", "perfect"])
    negation = "nicht" if chance(rng, 0.25) else ""
    german = Clause(thing, verb, tense, negation=negation, dative=person)
    if english == "belong to":
        owning = replace(
            verb, english=EnglishVerb("belong", "belonged", "belonged", preposition="to"), flags=frozenset({"stat"})
        )
        translated = replace(german, verb=owning)
    else:
        liking = replace(verb, flags=frozenset({"stat"}))
        translated = Clause(person, liking, tense, negation=negation, accusative=thing)
    if chance(rng, 0.15):
        return german_question(german), english_question(translated), "?"
    front = "dative" if chance(rng, 0.35) else "subject"
    return german_main(german, front), english_statement(translated), "."


def feeling(rng: Random) -> Sentence:
    """Mir ist kalt: I am cold."""
    person = draw_object_person(rng, pronoun("es"))
    if not person.definite:
        person = pronoun("ich")
    german, english = draw(
        rng,
        [("kalt", "cold"), ("warm", "warm"), ("schlecht", "unwell"), ("langweilig", "bored"), ("zu heiß", "too hot")],
    )
    past = chance(rng, 0.3)
    state = Clause(person, _SEIN, tense="preterite" if past else "present", complement=("", english))
    time = (
        draw(rng, [("", ""), ("heute", "today"), ("jetzt", "now")])
        if not past
        else draw(rng, [("", ""), ("gestern", "yesterday")])
    )
    text = join(person.german[DATIVE], "war" if past else "ist", time[0], german)
    return text, join(english_statement(state), time[1]), "."


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


# --------------------------------------------------------------------------------------------------------------------
# Coordination and reference


def reference(rng: Random) -> Sentence:
    """Der Koffer ist schwer, aber Peter trägt ihn: a pronoun for a thing, by the gender of its noun."""
    kind = draw(rng, [kind for kind in _DEEDS if kind not in {"person", "thing"}])
    noun = draw_noun(rng, [kind])
    phrase = nominal(draw(rng, ["the", "this", "my", "your"]), [], noun, not noun.mass and chance(rng, 0.2))
    again = pronoun_for(phrase)
    verb = _VERB_NAMED[draw(rng, _DEEDS[class_of(phrase)])]
    if again is None:
        return reference(rng)
    tenses = draw(rng, ["present", "past"])
    as_object = chance(rng, 0.6)
    person = draw_person(rng, formal=as_object)
    clause = plain(draw_clause(rng, verb, person, tenses, adjuncts=0.0, negation=0.15 if as_object else 0.4))
    clause = replace(clause, accusative=phrase, place=None, negation="nicht" if clause.negation else "")
    state = Clause(phrase, _SEIN, "present" if tenses == "present" else "preterite", complement=draw_state(rng, noun))
    if as_object:
        clause.accusative = again
        german, english = draw(rng, [("aber", "but"), ("und", "and"), ("aber", "but")])
        return (
            f"{german_main(state)} , {german} {german_main(clause)}",
            f"{english_statement(state)}, {english} {english_statement(clause)}",
            ".",
        )
    state.subject = again
    german, english = draw(rng, [("weil", "because"), ("obwohl", "although")])
    return (
        f"{german_main(clause)} , {german_subordinate(state, german)}",
        f"{english_statement(clause)} {english} {english_statement(state)}",
        ".",
    )


def coordination(rng: Random) -> Sentence:
    """Two main clauses with und, aber or denn; or one subject with two verbs."""
    tenses = draw(rng, ["present", "past"])
    subject = draw_person(rng, formal=False, indefinite=False)
    main = draw_clause(rng, draw_personal_verb(rng), subject, tenses, adjuncts=0.4, negation=0.1)
    if chance(rng, 0.45):
        return shared_subject(rng, main, tenses)
    again = same_or_new(rng, subject) or draw_person(rng)
    second = draw_clause(rng, draw_personal_verb(rng), again, tenses, adjuncts=0.3, negation=0.2)
    german, english = draw(rng, [(" und", " and"), (" , aber", ", but"), (" , denn", " because")])
    return (
        f"{german_main(main)}{german} {german_main(second)}",
        f"{english_statement(main)}{english} {english_statement(second)}",
        ".",
    )


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
    verb = draw(rng, [_VERB_NAMED[name] for name in ("kaufen", "haben", "brauchen", "essen", "trinken", "bestellen")])
    name = draw(rng, verb.objects)
    first, second = draw_noun(rng, [name]), draw_noun(rng, [name])
    subject = draw_person(rng, formal=False, indefinite=False)
    if first.english == second.english:
        return correction(rng)
    clause = plain(draw_clause(rng, verb, subject, draw(rng, ["present", "past"]), adjuncts=0.0, negation=0.0))
    clause.place = None
    one, two = (nominal("" if noun.mass else "a", [], noun) for noun in (first, second))
    if chance(rng, 0.6):
        clause.accusative, clause.negation = replace(nominal("no", [], first), english=one.english), "kein"
        clause.then = f", sondern {two.german[ACCUSATIVE]}", f"but {two.english[1]}"
        return german_main(clause), english_statement(clause), "."
    if chance(rng, 0.5):
        german = f"weder {one.german[ACCUSATIVE]} noch {two.german[ACCUSATIVE]}"
        english = f"neither {one.english[1]} nor {two.english[1]}"
    else:
        german = f"sowohl {one.german[ACCUSATIVE]} als auch {two.german[ACCUSATIVE]}"
        english = f"both {one.english[1]} and {two.english[1]}"
    clause.accusative = NounPhrase((german,) * 4, (english, english, ""), definite=False)
    return german_main(clause), english_statement(clause), "."


# Each kind of sentence and how often it is drawn.
_KINDS: list[tuple[Callable[[Random], Sentence], int]] = [
    (simple, 26),
    (with_relative, 9),
    (reason, 8),
    (temporal_present, 5),
    (whenever, 1),
    (temporal_past, 5),
    (after, 2),
    (so_that, 2),
    (that_clause, 6),
    (indirect_question, 4),
    (infinitive_clause, 5),
    (purpose, 4),
    (conditional, 2),
    (question, 5),
    (wh_question, 7),
    (imperative, 7),
    (passive, 6),
    (predicate, 6),
    (comparison, 5),
    (priced, 3),
    (age_or_year, 3),
    (timetable, 3),
    (existence, 3),
    (experience, 4),
    (feeling, 1),
    (genitive_preposition, 3),
    (reference, 7),
    (coordination, 5),
    (correction, 2),
]
_DRAWN_KINDS = [kind for kind, weight in _KINDS for _ in range(weight)]
_BEFORE_MARK = re.compile(r"\s+([,.?!])")
_REPEATED_COMMA = re.compile(r"(,\s*)+,")
_COMMA_BEFORE_END = re.compile(r",+([.?!])$")


def punctuated(text: str, mark: str) -> str:
    """The sentence with a capital, its final mark, and commas that touch the word before and stand once."""
    text = _BEFORE_MARK.sub(r"\1", f"{text}{mark}")
    text = _COMMA_BEFORE_END.sub(r"\1", _REPEATED_COMMA.sub(",", text))
    return text[0].upper() + text[1:]


def draw_pair(rng: Random) -> Pair:
    """One sentence pair of a random kind, each side 4 to 25 words long."""
    while True:
        german, english, mark = draw(rng, _DRAWN_KINDS)(rng)
        pair = punctuated(german, mark), punctuated(english.replace("can not ", "cannot "), mark)
        if all(4 <= side.count(" ") + 1 <= 25 for side in pair):
            return pair


MOST_PAIRS = 100_000


def demo_corpus(
    seed: int = 1, train: int = 8000, valid: int = 400, test: int = 500
) -> dict[str, list[tuple[str, str]]]:
    """German-English sentence pairs under "train", "valid" and "test", the same for the same arguments.

    All pairs are distinct; moreover no German and no English sentence occurs twice, letter case aside, so that nothing
    of valid or test stands in train. Raises `UserError` for negative sizes, and for more pairs than the grammar writes.
    """
    sizes = {"train": train, "valid": valid, "test": test}
    for name, size in sizes.items():
        if size < 0:
            raise UserError(f"demo corpus: {name} is {size}; give a number of pairs that is not negative")
    rng = Random(seed)
    pairs: list[Pair] = []
    seen_german: set[str] = set()
    seen_english: set[str] = set()
    wanted = train + valid + test
    if wanted > MOST_PAIRS:
        raise UserError(f"demo corpus: {wanted} pairs asked for; the grammar is good for {MOST_PAIRS}, ask for fewer")
    while len(pairs) < wanted:
        pair = draw_pair(rng)
        german, english = pair[0].casefold(), pair[1].casefold()
        if german not in seen_german and english not in seen_english:
            seen_german.add(german)
            seen_english.add(english)
            pairs.append(pair)
    return {"train": pairs[:train], "valid": pairs[train : train + valid], "test": pairs[train + valid :]}
