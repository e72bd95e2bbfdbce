"""Noun phrases, pronouns and phrases after a preposition, checked by hand."""

from __future__ import annotations

import pytest

from tools.demo_corpus.grammar.names import town_phrase
from tools.demo_corpus.grammar.noun_phrases import ACCUSATIVE, DATIVE, NounPhrase, nominal
from tools.demo_corpus.grammar.places import PLACES, place_phrase
from tools.demo_corpus.grammar.prepositions import two_way
from tools.demo_corpus.grammar.pronouns import pronoun_for, relative_pronoun
from tools.demo_corpus.words.adjectives import ALL_ADJECTIVES, Adjective
from tools.demo_corpus.words.nouns import NOUN


def adjective(name: str) -> Adjective:
    return next(a for a in ALL_ADJECTIVES if a.german[0] == name)


@pytest.mark.parametrize(
    ("determiner", "noun", "plural", "forms"),
    [
        ("the", "Tisch", False, "der alte Tisch/den alten Tisch/dem alten Tisch/des alten Tisches"),
        ("a", "Tisch", False, "ein alter Tisch/einen alten Tisch/einem alten Tisch/eines alten Tisches"),
        ("the", "Lampe", False, "die alte Lampe/die alte Lampe/der alten Lampe/der alten Lampe"),
        ("no", "Lampe", False, "keine alte Lampe/keine alte Lampe/keiner alten Lampe/keiner alten Lampe"),
        ("the", "Haus", False, "das alte Haus/das alte Haus/dem alten Haus/des alten Hauses"),
        ("my", "Haus", False, "mein altes Haus/mein altes Haus/meinem alten Haus/meines alten Hauses"),
        ("this", "Haus", False, "dieses alte Haus/dieses alte Haus/diesem alten Haus/dieses alten Hauses"),
        ("", "Wein", False, "alter Wein/alten Wein/altem Wein/alten Weines"),
        ("", "Milch", False, "alte Milch/alte Milch/alter Milch/alter Milch"),
        ("", "Brot", False, "altes Brot/altes Brot/altem Brot/alten Brotes"),
        ("the", "Kind", True, "die alten Kinder/die alten Kinder/den alten Kindern/der alten Kinder"),
        ("many", "Kind", True, "viele alte Kinder/viele alte Kinder/vielen alten Kindern/vieler alter Kinder"),
        ("", "Auto", True, "alte Autos/alte Autos/alten Autos/alter Autos"),
        ("the", "Student", False, "der alte Student/den alten Studenten/dem alten Studenten/des alten Studenten"),
        ("your (plural)", "Frau", False, "eure alte Frau/eure alte Frau/eurer alten Frau/eurer alten Frau"),
        ("our", "Vater", False, "unser alter Vater/unseren alten Vater/unserem alten Vater/unseres alten Vaters"),
    ],
)
def test_declension(determiner: str, noun: str, plural: bool, forms: str) -> None:
    assert nominal(determiner, [(adjective("alt"), 0)], NOUN[noun], plural).german == tuple(forms.split("/"))


def test_adjective_stems_and_degrees() -> None:
    the = [nominal("the", [(adjective(name), degree)], NOUN["Tisch"]) for name, degree in DEGREES]
    assert [phrase.german[0] for phrase in the] == [
        "der teure Tisch",
        "der müde Tisch",
        "der dunkle Tisch",
        "der ältere Tisch",
        "der größte Tisch",
        "der bessere Tisch",
        "der interessanteste Tisch",
    ]
    assert [phrase.english[0] for phrase in the][3:] == [
        "the older table",
        "the tallest table",
        "the better table",
        "the most interesting table",
    ]


DEGREES = [("teuer", 0), ("müde", 0), ("dunkel", 0), ("alt", 1), ("groß", 2), ("gut", 1), ("interessant", 2)]


@pytest.mark.parametrize(
    ("determiner", "adjectives", "noun", "english"),
    [
        ("a", [], "Apfel", "an apple"),
        ("a", ["alt"], "Tisch", "an old table"),
        ("a", ["ehrlich"], "Mann", "an honest man"),
        ("a", ["gut"], "Apfel", "a good apple"),
        ("a", [], "Wasser", "water"),
        ("my", [], "Mann", "my husband"),
        ("the", [], "Frau", "the woman"),
    ],
)
def test_english_noun_phrases(determiner: str, adjectives: list[str], noun: str, english: str) -> None:
    assert nominal(determiner, [(adjective(name), 0) for name in adjectives], NOUN[noun]).english[0] == english


def test_negated_objects_in_english() -> None:
    assert nominal("no", [], NOUN["Apfel"]).english[1] == "an apple"
    assert nominal("no", [], NOUN["Apfel"], True).english[1] == "any apples"
    assert nominal("no", [], NOUN["Wasser"]).english[:2] == ("no water", "any water")


def test_english_possessives() -> None:
    assert nominal("the", [], NOUN["Lehrer"]).english[2] == "the teacher's"
    assert nominal("the", [], NOUN["Lehrer"], True).english[2] == "the teachers'"
    assert nominal("the", [], NOUN["Kind"], True).english[2] == "the children's"


@pytest.mark.parametrize(
    ("noun", "german", "english"),
    [
        ("Tisch", "er", "it"),
        ("Lampe", "sie", "it"),
        ("Buch", "es", "it"),
        ("Lehrerin", "sie", "she"),
        ("Mädchen", "es", "she"),
    ],
)
def test_pronoun_takes_the_gender_of_the_noun(noun: str, german: str, english: str) -> None:
    again = pronoun_for(nominal("the", [], NOUN[noun]))
    assert again is not None
    assert (again.german[0], again.english[0]) == (german, english)


def test_an_unreadable_phrase_has_no_pronoun() -> None:
    assert pronoun_for(nominal("the", [], NOUN["Kind"])) is None
    assert pronoun_for(NounPhrase(("jemand", "", "", ""), ("someone", "", ""))) is None


def test_relative_pronoun_agrees() -> None:
    forms = [relative_pronoun(nominal("the", [], NOUN[noun], plural), False).german for noun, plural in RELATIVE]
    assert [form[ACCUSATIVE] for form in forms] == ["den", "die", "das", "die"]
    assert [form[DATIVE] for form in forms] == ["dem", "der", "dem", "denen"]


RELATIVE = [("Tisch", False), ("Lampe", False), ("Haus", False), ("Haus", True)]


@pytest.mark.parametrize(
    ("preposition", "noun", "rest", "motion"),
    [
        (("auf", "on", "on"), "Tisch", "auf dem Tisch = on the table", "auf den Tisch = on the table"),
        (("in", "in", "into"), "Tasche", "in der Tasche = in the bag", "in die Tasche = into the bag"),
        (("in", "in", "into"), "Schrank", "im Schrank = in the cupboard", "in den Schrank = into the cupboard"),
        (
            ("neben", "next to", "next to"),
            "Bett",
            "neben dem Bett = next to the bed",
            "neben das Bett = next to the bed",
        ),
        (("an", "on", "on"), "Wand", "an der Wand = on the wall", "an die Wand = on the wall"),
    ],
)
def test_two_way_prepositions(preposition: tuple[str, str, str], noun: str, rest: str, motion: str) -> None:
    phrase = nominal("the", [], NOUN[noun])
    assert " = ".join(two_way(preposition, phrase, False)) == rest
    assert " = ".join(two_way(preposition, phrase, True)) == motion


def test_places_at_rest_and_in_motion() -> None:
    park, station, school = (
        next(place for place in PLACES if place.noun.singular == name) for name in ("Park", "Bahnhof", "Schule")
    )
    assert place_phrase(park, False) == ("im Park", "in the park")
    assert place_phrase(park, True) == ("in den Park", "to the park")
    assert place_phrase(park, True, [(adjective("klein"), 0)]) == ("in den kleinen Park", "to the small park")
    assert place_phrase(station, True) == ("zum Bahnhof", "to the station")
    assert place_phrase(school, True) == ("in die Schule", "to school")
    assert town_phrase(("Berlin", "Berlin"), True) == ("nach Berlin", "to Berlin")
    assert town_phrase(("die Schweiz", "Switzerland"), False) == ("in der Schweiz", "in Switzerland")
    assert town_phrase(("die Schweiz", "Switzerland"), True) == ("in die Schweiz", "to Switzerland")
