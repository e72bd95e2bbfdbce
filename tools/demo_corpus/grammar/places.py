"""Places at rest and in motion: buildings and landscape, fixed adverbs, spots on and in furniture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tools.demo_corpus.grammar.drawing import chance, draw, draw_skewed
from tools.demo_corpus.grammar.names import TOWNS, town_phrase
from tools.demo_corpus.grammar.noun_phrases import ACCUSATIVE, DATIVE, Graded, nominal
from tools.demo_corpus.grammar.phrase_drawing import draw_adjectives, draw_noun
from tools.demo_corpus.grammar.prepositions import german_prepositional, two_way
from tools.demo_corpus.words.nouns import NOUN, Noun
from tools.demo_corpus.words.text import Pair, entries, join, parse_pairs

# Where a place is met: German noun | preposition = English at rest | preposition = English in motion.
_PLACE_TABLE = """
Garten | in = in the garden | in = into the garden
Park | in = in the park | in = to the park
Stadt | in = in town | in = to town
Küche | in = in the kitchen | in = into the kitchen
Schule | in = at school | in = to school
Büro | in = at the office | in = to the office
Bahnhof | an = at the station | zu = to the station
Markt | auf = at the market | auf = to the market
Supermarkt | in = at the supermarket | in = to the supermarket
Bibliothek | in = in the library | in = to the library
Museum | in = in the museum | in = to the museum
Kino | in = at the cinema | in = to the cinema
Wald | in = in the forest | in = into the forest
Strand | an = on the beach | an = to the beach
See | an = by the lake | an = to the lake
Dorf | in = in the village | in = to the village
Hotel | in = at the hotel | in = to the hotel
Restaurant | in = at the restaurant | in = to the restaurant
Krankenhaus | in = in hospital | in = to hospital
Kirche | in = at church | in = to church
Bäckerei | in = at the bakery | zu = to the bakery
Flughafen | an = at the airport | zu = to the airport
"""
# Fixed places: at rest | in motion.
_FIXED_PLACE_TABLE = """
zu Hause = at home | nach Hause = home
hier = here | hierher = here
draußen = outside | nach draußen = outside
oben = upstairs | nach oben = upstairs
dort = there | dorthin = there
beim Arzt = at the doctor's | zum Arzt = to the doctor's
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A place: the noun with its prepositions and English phrases at rest and in motion."""

    noun: Noun
    at: str
    english_at: str
    to: str
    english_to: str


PLACES = [Place(NOUN[name], *parse_pairs(at)[0], *parse_pairs(to)[0]) for name, at, to in entries(_PLACE_TABLE)]
_FIXED_PLACES = [tuple(parse_pairs(field)[0] for field in line) for line in entries(_FIXED_PLACE_TABLE)]


def place_phrase(place: Place, motion: bool, adjectives: Sequence[Graded] = ()) -> Pair:
    """im Garten, in the garden; with motion in den Garten, into the garden. Adjectives go where English has "the"."""
    preposition, english = (place.to, place.english_to) if motion else (place.at, place.english_at)
    case = ACCUSATIVE if motion and preposition != "zu" else DATIVE
    if " the " not in english:
        adjectives = ()
    phrase = nominal("the", adjectives, place.noun)
    words = join("the", *(adjective.english[degree] for adjective, degree in adjectives))
    return german_prepositional(preposition, phrase, case), english.replace(" the ", f" {words} ")


def draw_place(rng: Random, motion: bool, towns: float = 0.2) -> Pair:
    """Where or whereto: a town or country with the given probability, else a place or a fixed phrase."""
    kind = rng.random()
    if kind < towns:
        return town_phrase(draw_skewed(rng, TOWNS), motion)
    if kind > 0.84:
        return draw(rng, _FIXED_PLACES)[motion]
    return described_place(rng, draw_skewed(rng, PLACES), motion)


def draw_distant_place(rng: Random, motion: bool) -> Pair:
    """Where one lives or drives to."""
    if chance(rng, 0.6):
        return town_phrase(draw_skewed(rng, TOWNS), motion)
    return described_place(rng, draw(rng, _DISTANT), motion)


def described_place(rng: Random, place: Place, motion: bool) -> Pair:
    """The place, now and then with an adjective."""
    return place_phrase(place, motion, draw_adjectives(rng, place.noun, 0.2))


_DISTANT = [
    place for place in PLACES if place.noun.singular in {"Stadt", "Dorf", "Hotel", "Strand", "See", "Flughafen"}
]
# German preposition, English at rest and in motion.
_BESIDE = [("neben", "next to", "next to"), ("hinter", "behind", "behind")]
_TWO_WAY = [("auf", "on", "on"), ("unter", "under", "under"), *_BESIDE]
_TWO_WAY_CONTAINER = [("in", "in", "into"), ("in", "in", "into"), *_BESIDE]


def draw_spot(rng: Random, motion: bool, containers: float = 0.4) -> Pair:
    """A spot on, under, next to, behind or in a piece of furniture or a container."""
    container = chance(rng, containers)
    noun = draw_noun(rng, ["container"] if container else ["surface"])
    phrase = nominal(draw(rng, ["the", "the", "the", "this", "my"]), draw_adjectives(rng, noun, 0.25), noun)
    return two_way(draw_skewed(rng, _TWO_WAY_CONTAINER if container else _TWO_WAY), phrase, motion)
