"""The adjectives: a table of lemmas with translation and the classes of noun they suit, and their degrees."""

from __future__ import annotations

from dataclasses import dataclass

from tools.demo_corpus.words.spelling import regular_comparison
from tools.demo_corpus.words.text import entries

# German [comparative superlative] | English [comparative superlative] | classes; abs: has no comparative.
_ADJECTIVE_TABLE = """
neu | new | furniture portable clothing vehicle public building text device room instrument place show part
alt älter ältest | old | furniture portable clothing vehicle building text device room instrument person animal public
groß größer größt | tall | person
groß größer größt | big | furniture portable building room place animal part event vehicle
klein | small | furniture portable building room place animal part device vehicle
klein | small | kid
schön | beautiful | furniture clothing building room place animal music event gift portable instrument
jung jünger jüngst | young | person animal
gut besser best | good better best | text show music food drink dish device instrument person event
rot röter rötest | red abs | furniture portable clothing vehicle
blau | blue abs | furniture portable clothing vehicle
schwarz schwärzer schwärzest | black abs | furniture portable clothing vehicle animal
interessant | interesting | text show
freundlich | friendly | person
frisch | fresh | food drink
teuer | expensive | furniture portable clothing vehicle device instrument
müde | tired | person animal
krank kränker kränkst | sick | person animal
kaputt | broken abs | repairable
glücklich | happy | person
langweilig | boring | text show event
schwer | heavy | portable furniture
schwer | difficult | exam
leer | empty abs | container room dishes
voll | full abs | container
kalt kälter kältest | cold | drink dish
warm wärmer wärmst | warm | dish clothing
heiß | hot | drink dish
süß | sweet | fruit baked
grün | green abs | furniture portable clothing vehicle
weiß | white abs | furniture portable clothing vehicle animal
billig | cheap | furniture clothing device vehicle portable
lang länger längst | long | text show event
kurz kürzer kürzest | short | text show event
klug klüger klügst | clever | person animal
fleißig | hard-working | person
schnell | fast | vehicle public
langsam | slow | vehicle public
modern | modern | furniture building room device vehicle public
spannend | exciting | text show
lustig | funny | text show music
traurig | sad | person text show music
ruhig | quiet | place room
ruhig | calm | person
sauber | clean | clothing room dishes vehicle part
schmutzig | dirty | clothing room dishes vehicle part
wichtig | important | text event
nett | kind | person
stark stärker stärkst | strong | person drink
faul | lazy | person animal
berühmt | famous | building music
ehrlich | honest | person
hungrig | hungry | person animal
reich | rich | person
arm ärmer ärmst | poor | person
hell | bright | room
dunkel | dark | room
gelb | yellow abs | furniture portable clothing vehicle
braun | brown abs | furniture portable clothing animal
bequem | comfortable | seat clothing
ungewöhnlich | unusual | text music building
"""


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective: German and English positive, comparative and superlative stems (English may be "more ...")."""

    german: tuple[str, str, str]
    english: tuple[str, str, str]
    classes: frozenset[str]
    comparable: bool


def parse_adjective(line: list[str]) -> Adjective:
    """One line of `_ADJECTIVE_TABLE`."""
    german, english, classes = line[0].split(), line[1].split(), frozenset(line[2].split())
    comparable = "abs" not in english
    english = [word for word in english if word != "abs"]
    if len(german) == 1:
        stem = german[0]
        superlative = stem + ("est" if stem.endswith(("t", "d", "s", "ß", "z", "sch")) else "st")
        german = [stem, attributive_stem(stem) + "er", superlative]
    if len(english) == 1:
        english = [english[0], *regular_comparison(english[0])]
    return Adjective((german[0], german[1], german[2]), (english[0], english[1], english[2]), classes, comparable)


def attributive_stem(positive: str) -> str:
    """The stem that endings are added to: teuer, teur-; dunkel, dunkl-; müde, müd-."""
    if positive.endswith(("auer", "euer")):
        return positive[:-2] + "r"
    if positive.endswith("el"):
        return positive[:-2] + "l"
    return positive.removesuffix("e")


ALL_ADJECTIVES = [parse_adjective(line) for line in entries(_ADJECTIVE_TABLE)]
