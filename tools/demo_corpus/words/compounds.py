"""Compound nouns: German first parts with their linking elements, the heads they go with, and the English for both."""

from __future__ import annotations

from dataclasses import replace

from tools.demo_corpus.words.nouns import NOUN, Noun, by_class
from tools.demo_corpus.words.spelling import english_s
from tools.demo_corpus.words.text import entries

# The first part of a compound: lemma | the form with its linking element | English attribute.
_MODIFIER_TABLE = """
Haus | Haus | house
Küche | Küchen | kitchen
Garten | Garten | garden
Keller | Keller | cellar
Schule | Schul | school
Kirche | Kirchen | church
Hotel | Hotel | hotel
Büro | Büro | office
Kind | Kinder | children's
Arbeit | Arbeits | work
Geburtstag | Geburtstags | birthday
Hochzeit | Hochzeits | wedding
Weihnachten | Weihnachts | Christmas
Reise | Reise | travel
Stadt | Stadt | city
Liebe | Liebes | love
Geschichte | Geschichts | history
Musik | Musik | music
Sprache | Sprach | language
Mathematik | Mathematik | maths
Apfel | Apfel | apple
Kirsche | Kirsch | cherry
Schokolade | Schokoladen | chocolate
Käse | Käse | cheese
Tomate | Tomaten | tomato
Kartoffel | Kartoffel | potato
Gemüse | Gemüse | vegetable
Zwiebel | Zwiebel | onion
Gurke | Gurken | cucumber
Orange | Orangen | orange
Holz | Holz | wooden
Leder | Leder | leather
Winter | Winter | winter
Sommer | Sommer | summer
Sonne | Sonnen | sun
Regen | Regen | rain
Tee | Tee | tea
Kaffee | Kaffee | coffee
Wein | Wein | wine
Bier | Bier | beer
Wasser | Wasser | water
Brot | Brot | bread
Auto | Auto | car
Abend | Abend | evening
Tag | Tages | daily
Wohnung | Wohnungs | flat
Schlaf | Schlaf | bed
Bad | Bade | bath
"""
# The head of a compound: the lemmas that may stand before it.
_COMPOUND_TABLE = """
Tür | Haus Küche Garten Keller Auto Schule Büro Kirche Hotel Wohnung
Fenster | Küche Keller Kirche Schule Büro Hotel Auto
Tisch | Küche Garten Holz Schule Tee
Stuhl | Küche Garten Holz Büro Kind
Schrank | Küche Büro Schule Holz Wein
Lampe | Küche Garten Büro
Uhr | Küche Kirche Schule
Bett | Kind Hotel Holz
Zimmer | Kind Hotel Schlaf Arbeit Bad
Schlüssel | Haus Auto Keller Büro Wohnung
Tasche | Schule Reise Leder
Flasche | Wein Bier Wasser
Glas | Wein Bier Wasser Tee
Tasse | Tee Kaffee
Messer | Käse Brot Küche
Korb | Brot
Kiste | Holz Wein Bier
Buch | Kind Schule Geschichte Mathematik
Brief | Liebe
Geschichte | Kind Liebe
Zeitung | Schule Abend Tag
Lied | Kind Liebe Weihnachten
Karte | Geburtstag Weihnachten Hochzeit
Geschenk | Geburtstag Weihnachten Hochzeit
Kuchen | Apfel Schokolade Käse Kirsche Geburtstag
Suppe | Tomate Kartoffel Gemüse Zwiebel Käse
Salat | Tomate Kartoffel Gurke Käse
Saft | Apfel Tomate Orange Kirsche
Mantel | Winter Regen Leder Bad
Jacke | Winter Leder Regen Sommer
Kleid | Sommer Hochzeit Abend
Schuh | Winter Leder Kind Sommer
Hut | Sommer Sonne
Hemd | Winter Sommer Arbeit
Lehrer | Musik Sprache Mathematik Geschichte
Lehrerin | Musik Sprache Mathematik Geschichte
Garten | Stadt
Park | Stadt
Haus | Garten Holz
Fest | Sommer Schule Stadt Garten
Reise | Hochzeit Winter Schule
Prüfung | Geschichte Mathematik Musik
"""
# Compounds whose English is not attribute + head.
_COMPOUND_ENGLISH = {
    "Haustür": "front door",
    "Teetasse": "teacup",
    "Kellerfenster": "basement window",
    "Kellertür": "basement door",
    "Kellerschlüssel": "basement key",
    "Abendzeitung": "evening paper",
    "Sonnenhut": "sun hat",
    "Regenmantel": "raincoat",
    "Bademantel": "bathrobe",
    "Badezimmer": "bathroom",
    "Schlafzimmer": "bedroom",
    "Arbeitszimmer": "study",
    "Kinderzimmer": "children's room",
    "Kinderbett": "cot",
    "Hochzeitsreise": "honeymoon",
    "Weihnachtslied": "Christmas carol",
    "Gartenhaus": "summer house",
    "Schulreise": "school trip",
    "Gartenfest": "garden party",
    "Kirchenuhr": "church clock",
    "Weinschrank": "wine cabinet",
    "Käsekuchen": "cheesecake",
}
_MODIFIERS = {lemma: (linked, attribute) for lemma, linked, attribute in entries(_MODIFIER_TABLE)}


def compound(modifier: str, head: Noun) -> Noun:
    """The compound of a lemma of `_MODIFIER_TABLE` and a head: gender, plural and classes are the head's."""
    linked, attribute = _MODIFIERS[modifier]
    singular = linked + head.singular.lower()
    english = _COMPOUND_ENGLISH.get(singular, f"{attribute} {head.english}")
    irregular_plural = head.english_plural != english_s(head.english) and english.endswith(head.english)
    plural = english.removesuffix(head.english) + head.english_plural if irregular_plural else english_s(english)
    return replace(
        head,
        singular=singular,
        plural=head.plural and linked + head.plural.lower(),
        genitive=linked + head.genitive.lower(),
        english=english,
        english_plural=plural,
        classes=head.classes - {"place", "part"},
    )


COMPOUNDS_OF = by_class(
    [compound(modifier, NOUN[head]) for head, modifiers in entries(_COMPOUND_TABLE) for modifier in modifiers.split()]
)
