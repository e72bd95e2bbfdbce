"""Words, compounds, conjugation and numbers, checked by hand."""

from __future__ import annotations

import pytest

from tests.tools.demo_corpus.number_values import english_value, german_value
from tools.demo_corpus.words.compounds import compound
from tools.demo_corpus.words.conjugation import german_finite, german_imperative
from tools.demo_corpus.words.nouns import NOUN, NOUNS_OF
from tools.demo_corpus.words.numbers import english_number, english_ordinal, german_number, german_ordinal
from tools.demo_corpus.words.verbs import ALL_VERBS, verb_named


@pytest.mark.parametrize(
    ("modifier", "head", "german", "plural", "english"),
    [
        ("Haus", "Tür", "Haustür", "Haustüren", "front door"),
        ("Küche", "Tür", "Küchentür", "Küchentüren", "kitchen door"),
        ("Kind", "Buch", "Kinderbuch", "Kinderbücher", "children's book"),
        ("Geburtstag", "Geschenk", "Geburtstagsgeschenk", "Geburtstagsgeschenke", "birthday present"),
        ("Schule", "Tasche", "Schultasche", "Schultaschen", "school bag"),
        ("Brot", "Messer", "Brotmesser", "Brotmesser", "bread knife"),
    ],
)
def test_compounds(modifier: str, head: str, german: str, plural: str, english: str) -> None:
    noun = compound(modifier, NOUN[head])
    assert (noun.singular, noun.plural, noun.english, noun.gender) == (german, plural, english, NOUN[head].gender)


def test_compounds_inherit_an_irregular_english_plural() -> None:
    assert compound("Brot", NOUN["Messer"]).english_plural == "bread knives"


@pytest.mark.parametrize(
    ("infinitive", "present", "preterite"),
    [
        ("lesen", "lese liest liest lesen lest lesen", "las lasen"),
        ("arbeiten", "arbeite arbeitest arbeitet arbeiten arbeitet arbeiten", "arbeitete arbeiteten"),
        ("öffnen", "öffne öffnest öffnet öffnen öffnet öffnen", "öffnete öffneten"),
        ("einladen", "lade lädst lädt laden ladet laden", "lud luden"),
        ("kennen", "kenne kennst kennt kennen kennt kennen", "kannte kannten"),
        ("füttern", "füttere fütterst füttert füttern füttert füttern", "fütterte fütterten"),
        ("tanzen", "tanze tanzt tanzt tanzen tanzt tanzen", "tanzte tanzten"),
        ("mögen", "mag magst mag mögen mögt mögen", "mochte mochten"),
    ],
)
def test_conjugation(infinitive: str, present: str, preterite: str) -> None:
    cells = [(person, plural) for plural in (False, True) for person in (1, 2, 3)]
    assert [german_finite(verb_named(infinitive), False, *cell) for cell in cells] == present.split()
    assert [german_finite(verb_named(infinitive), True, 3, plural) for plural in (False, True)] == preterite.split()


@pytest.mark.parametrize(
    ("infinitive", "singular", "plural"),
    [("lesen", "lies", "lest"), ("fahren", "fahr", "fahrt"), ("warten", "warte", "wartet"), ("geben", "gib", "gebt")],
)
def test_imperatives(infinitive: str, singular: str, plural: str) -> None:
    assert german_imperative(verb_named(infinitive), False) == singular
    assert german_imperative(verb_named(infinitive), True) == plural


def test_participles() -> None:
    participles = [
        verb_named(name).past_participle for name in ("kaufen", "verkaufen", "reparieren", "anrufen", "vorbereiten")
    ]
    assert participles == ["gekauft", "verkauft", "repariert", "angerufen", "vorbereitet"]
    assert verb_named("anrufen").zu_infinitive == "anzurufen"
    assert verb_named("besuchen").zu_infinitive == "zu besuchen"
    assert verb_named("spazieren gehen").zu_infinitive == "spazieren zu gehen"


def test_numbers_from_0_to_999() -> None:
    assert [german_value(german_number(n)) for n in range(1000)] == list(range(1000))
    assert [english_value(english_number(n)) for n in range(1000)] == list(range(1000))


@pytest.mark.parametrize(
    ("n", "german", "english"),
    [
        (0, "null", "zero"),
        (1, "eins", "one"),
        (16, "sechzehn", "sixteen"),
        (17, "siebzehn", "seventeen"),
        (21, "einundzwanzig", "twenty-one"),
        (30, "dreißig", "thirty"),
        (66, "sechsundsechzig", "sixty-six"),
        (100, "hundert", "one hundred"),
        (101, "hunderteins", "one hundred and one"),
        (999, "neunhundertneunundneunzig", "nine hundred and ninety-nine"),
    ],
)
def test_number_words(n: int, german: str, english: str) -> None:
    assert (german_number(n), english_number(n)) == (german, english)


def test_ordinals() -> None:
    assert [german_ordinal(n) for n in (1, 2, 3, 7, 8, 19, 20, 31)] == [
        "erst", "zweit", "dritt", "siebt", "acht", "neunzehnt", "zwanzigst", "einunddreißigst"
    ]  # fmt: skip
    assert [english_ordinal(n) for n in (1, 2, 3, 5, 9, 12, 20, 23)] == [
        "first", "second", "third", "fifth", "ninth", "twelfth", "twentieth", "twenty-third"
    ]  # fmt: skip


def test_lexicon_is_consistent() -> None:
    classes = set(NOUNS_OF)
    for entry in ALL_VERBS:
        assert set(entry.objects) <= classes, entry.infinitive
        assert set(entry.subjects) <= classes, entry.infinitive
    for noun in NOUN.values():
        assert noun.gender in {"m", "f", "n"}
        assert noun.singular[0].isupper()
