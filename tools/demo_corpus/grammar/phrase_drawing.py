"""Noun phrases at random: things with fitting adjectives, determiners and attributes; persons of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.grammar.names import NAMES, TOWNS
from tools.demo_corpus.grammar.noun_phrases import (
    GENITIVE,
    SPOUSES,
    Graded,
    NounPhrase,
    coordinated,
    followed_by,
    named_owner,
    nominal,
    owned,
)
from tools.demo_corpus.grammar.pronouns import INDEFINITE_PERSONS, possessive_of, pronoun
from tools.demo_corpus.words.adjectives import ALL_ADJECTIVES, Adjective
from tools.demo_corpus.words.compounds import COMPOUNDS_OF
from tools.demo_corpus.words.nouns import NOUNS_OF, Noun
from tools.demo_corpus.words.numbers import number_words
from tools.demo_corpus.words.text import Pair


def draw_noun(rng: Random, classes: Sequence[str]) -> Noun:
    """A noun of one of the classes; one draw in four is a compound where the class has any, rarely so for persons."""
    name = draw_skewed(rng, classes)
    compounds = COMPOUNDS_OF.get(name)
    if compounds and chance(rng, 0.03 if name == "person" else 0.25):
        return draw_skewed(rng, compounds)
    return draw_skewed(rng, NOUNS_OF[name])


def adjectives_for(noun: Noun) -> list[Adjective]:
    """The adjectives that suit a noun, in table order."""
    return _adjectives_of(noun.classes)


@cache
def _adjectives_of(classes: frozenset[str]) -> list[Adjective]:
    return [adjective for adjective in ALL_ADJECTIVES if adjective.classes & classes]


def draw_plural(rng: Random, noun: Noun, probability: float) -> bool:
    """Whether a phrase is plural, which that of a mass noun never is."""
    return not noun.mass and chance(rng, probability)


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
        return bool(classes & {"kin", "own"}) or (noun.singular in SPOUSES and not plural)
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
        return "the" if several_owners and noun.singular in SPOUSES else own
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
    is_plural = "single" not in noun.classes and draw_plural(rng, noun, plural)
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
        return number_words(rng.randint(2, 12))
    return words_or_digits(rng, rng.randint(13, 99))


def words_or_digits(rng: Random, n: int) -> Pair:
    """The number in words, or in digits two times in five."""
    return (str(n), str(n)) if chance(rng, 0.4) else number_words(n)


def with_attribute(
    rng: Random, phrase: NounPhrase, adjectives: Sequence[Graded], noun: Noun, plural: bool
) -> NounPhrase:
    """The phrase with an owner (genitive, a name before it, von) or, for a person, where the person is from."""
    if "person" in noun.classes:
        if "kin" in noun.classes:
            return owned(draw_nominal(rng, ["person"], attributes=False, plural=0.1), phrase, adjectives, noun, plural)
        town = draw(rng, [pair for pair in TOWNS if not pair[0].startswith("die ")])
        return followed_by(phrase, (f"aus {town[0]}", f"from {town[1]}"))
    if "part" in noun.classes and len(noun.singular) < 8:
        whole = draw_nominal(rng, ["building"], adjective=0.3, plural=0.0, attributes=False)
        if not whole.definite:
            return phrase
        return followed_by(phrase, (whole.german[GENITIVE], f"of {whole.english[1]}"))
    if noun.classes & {"portable", "clothing", "vehicle", "text", "furniture", "pet", "room"}:
        if chance(rng, 0.4):
            name = draw_skewed(rng, NAMES)
            return named_owner(name, adjectives, noun, plural)
        return owned(draw_nominal(rng, ["person"], attributes=False, plural=0.15), phrase, adjectives, noun, plural)
    return phrase


_SUBJECT_PRONOUNS = ["er", "sie", "wir", "sie (plural)", "du", "ihr", "ich", "ich", "Sie"]


def draw_person(rng: Random, formal: bool = True, indefinite: bool = True) -> NounPhrase:
    """A person as subject: pronoun, name, noun phrase, or two of them.

    Without `formal` no Sie, for where it would start the sentence; without `indefinite` no one, someone or everyone.
    """
    kind = rng.random()
    if kind < 0.38:
        return pronoun(draw(rng, _SUBJECT_PRONOUNS if formal else _SUBJECT_PRONOUNS[:-1]))
    if kind < 0.6:
        return draw_skewed(rng, NAMES)
    if kind < 0.64 and indefinite:
        if chance(rng, 0.7):
            return draw(rng, INDEFINITE_PERSONS)
        return nominal(draw(rng, ["no", "every"]), [], draw_noun(rng, ["person"]))
    if kind < 0.69:
        left, right = draw_skewed(rng, NAMES), draw_skewed(rng, NAMES)
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
        elif subject.person == 2 or subject.formal:
            options = ["ich", "er", "sie", "wir", "sie (plural)"]
        return pronoun(draw(rng, options))
    if kind < 0.42:
        name = draw_skewed(rng, NAMES)
        if name.german[0] not in subject.german[0]:
            return name
    return draw_nominal(rng, ["person"], owner=subject, adjective=0.2)
