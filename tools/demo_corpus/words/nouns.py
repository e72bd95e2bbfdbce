"""The nouns: a table of lemmas with gender, plural, translation and classes, and the forms that follow by rule.

The classes say which verbs, adjectives and determiners go with a noun. Early lines of the table are drawn more often,
which leaves the words at the end of a class rare, as words are in real text.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tools.demo_corpus.words.spelling import english_s
from tools.demo_corpus.words.text import entries, syllables

# German [gender plural (- for mass nouns) genitive] | English[/plural] | classes and flags.
# Flags: weak (n-declension), single (no plural), he/she (how English refers to a person; without: no pronoun does).
_NOUN_TABLE = """
Mann m Männer | man/men | person he
Frau f Frauen | woman/women | person she
Kind n Kinder | child/children | person kid own
Lehrer m Lehrer | teacher | person job own he
Lehrerin f Lehrerinnen | teacher | person job own she
Freund m Freunde | friend | person own he
Freundin f Freundinnen | friend | person own she
Junge m Jungen | boy | person kid weak he
Mädchen n Mädchen | girl | person kid she
Bruder m Brüder | brother | person kin he
Schwester f Schwestern | sister | person kin she
Nachbar m Nachbarn | neighbour | person own weak he
Nachbarin f Nachbarinnen | neighbour | person own she
Mutter f Mütter | mother | person kin single she
Vater m Väter | father | person kin single he
Arzt m Ärzte | doctor | person job own he
Ärztin f Ärztinnen | doctor | person job own she
Student m Studenten | student | person job weak he
Studentin f Studentinnen | student | person job she
Großmutter f Großmütter | grandmother | person kin single she
Großvater m Großväter | grandfather | person kin single he
Sohn m Söhne | son | person kin he
Tochter f Töchter | daughter | person kin she
Kollege m Kollegen | colleague | person own weak he
Kollegin f Kolleginnen | colleague | person own she
Onkel m Onkel | uncle | person kin he
Tante f Tanten | aunt | person kin she
Gast m Gäste | guest | person own he
Verkäufer m Verkäufer | shop assistant | person job he
Verkäuferin f Verkäuferinnen | shop assistant | person job she
Koch m Köche | cook | person job own he
Köchin f Köchinnen | cook | person job own she
Schüler m Schüler | pupil | person own he
Schülerin f Schülerinnen | pupil | person own she
Künstler m Künstler | artist | person job he
Künstlerin f Künstlerinnen | artist | person job she
Kunde m Kunden | customer | person own weak he
Kundin f Kundinnen | customer | person own she
Polizist m Polizisten | policeman/policemen | person job weak he
Polizistin f Polizistinnen | policewoman/policewomen | person job she
Bauer m Bauern | farmer | person job weak he
Bäuerin f Bäuerinnen | farmer | person job she
Chef m Chefs Chefs | boss | person own he
Chefin f Chefinnen | boss | person own she
Bäcker m Bäcker | baker | person job he
Gärtner m Gärtner | gardener | person job own he
Gärtnerin f Gärtnerinnen | gardener | person job own she
Sänger m Sänger | singer | person job he
Sängerin f Sängerinnen | singer | person job she
Mechaniker m Mechaniker | mechanic | person job own he
Tourist m Touristen | tourist | person weak he
Touristin f Touristinnen | tourist | person she
Ingenieur m Ingenieure | engineer | person job he
Ingenieurin f Ingenieurinnen | engineer | person job she
Hund m Hunde | dog | animal pet
Katze f Katzen | cat | animal pet
Pferd n Pferde | horse | animal
Vogel m Vögel | bird | animal pet
Kuh f Kühe | cow | animal
Maus f Mäuse | mouse/mice | animal
Schaf n Schafe | sheep/sheep | animal
Ente f Enten | duck | animal
Buch n Bücher | book | text portable
Brief m Briefe | letter | text portable
Zeitung f Zeitungen | newspaper | text portable
Roman m Romane | novel | text
Geschichte f Geschichten | story | text
Bericht m Berichte | report | text
Artikel m Artikel | article | text
Gedicht n Gedichte | poem | text
Nachricht f Nachrichten | message | text
Apfel m Äpfel | apple | food fruit
Kuchen m Kuchen | cake | food baked
Suppe f Suppen | soup | food dish
Brot n - | bread | food baked
Ei n Eier | egg | food dish
Kartoffel f Kartoffeln | potato | food dish
Käse m - Käses | cheese | food
Salat m Salate | salad | food
Tomate f Tomaten | tomato | food fruit
Orange f Orangen | orange | food fruit
Fleisch n - Fleisches | meat | food dish
Reis m - | rice | food dish
Banane f Bananen | banana | food fruit
Obst n - Obstes | fruit | food
Wasser n - Wassers | water | drink
Kaffee m - | coffee | drink
Tee m - | tea | drink
Milch f - | milk | drink
Saft m - | juice | drink
Wein m - | wine | drink
Bier n - | beer | drink
Mantel m Mäntel | coat | clothing
Jacke f Jacken | jacket | clothing
Kleid n Kleider | dress | clothing
Hemd n Hemden Hemdes | shirt | clothing
Schuh m Schuhe | shoe | clothing
Hut m Hüte | hat | clothing
Rock m Röcke | skirt | clothing
Pullover m Pullover | jumper | clothing
Tisch m Tische | table | furniture surface
Stuhl m Stühle | chair | furniture surface seat
Bett n Betten Bettes | bed | furniture surface
Schrank m Schränke | cupboard | furniture container opening
Lampe f Lampen | lamp | furniture device upright
Sofa n Sofas | sofa | furniture surface seat
Bild n Bilder | picture | hung portable
Uhr f Uhren | clock | hung repairable portable
Spiegel m Spiegel | mirror | hung furniture
Teppich m Teppiche | carpet | furniture
Schlüssel m Schlüssel | key | portable small
Tasche f Taschen | bag | portable container
Koffer m Koffer | suitcase | portable container opening
Flasche f Flaschen | bottle | portable upright opening
Teller m Teller | plate | portable fragile dishes
Tasse f Tassen | cup | portable fragile dishes upright
Glas n Gläser | glass | portable fragile dishes upright
Ball m Bälle | ball | portable small
Geschenk n Geschenke | present | portable gift wrapped
Blume f Blumen | flower | gift portable small
Messer n Messer | knife/knives | portable small dishes
Stift m Stifte | pen | portable small
Regenschirm m Regenschirme | umbrella | portable
Karte f Karten | card | portable small text
Paket n Pakete | parcel | portable gift wrapped
Korb m Körbe | basket | portable container
Kiste f Kisten | box | portable container opening
Kamera f Kameras | camera | portable device repairable
Vase f Vasen | vase | portable fragile upright
Computer m Computer | computer | device repairable
Radio n Radios | radio | device repairable
Fernseher m Fernseher | television | device repairable
Licht n Lichter | light | switch
Auto n Autos | car | vehicle repairable
Fahrrad n Fahrräder Fahrrads | bicycle | vehicle repairable
Bus m Busse Busses | bus | public
Zug m Züge | train | public
Straßenbahn f Straßenbahnen | tram | public
Schiff n Schiffe | ship | public
Flugzeug n Flugzeuge Flugzeugs | plane | aircraft
Tür f Türen | door | opening part repairable
Fenster n Fenster | window | opening part repairable
Dach n Dächer | roof | part repairable
Haus n Häuser | house | building home
Brücke f Brücken | bridge | building
Turm m Türme | tower | building
Kirche f Kirchen | church | building
Schloss n Schlösser | castle | building
Hotel n Hotels | hotel | building
Fabrik f Fabriken | factory | building
Garage f Garagen | garage | building home
Zimmer n Zimmer | room | room
Wohnung f Wohnungen | flat | room
Lied n Lieder Liedes | song | music
Klavier n Klaviere | piano | instrument furniture
Gitarre f Gitarren | guitar | instrument portable
Geige f Geigen | violin | instrument portable
Film m Filme Films | film | show
Konzert n Konzerte Konzerts | concert | event show
Fest n Feste | party | event
Hochzeit f Hochzeiten | wedding | event
Reise f Reisen | trip | event
Prüfung f Prüfungen | exam | event exam
Besprechung f Besprechungen | meeting | event
Ausflug m Ausflüge Ausflugs | excursion | event
Wetter n - | weather | cause
Regen m - | rain | cause
Schnee m - | snow | cause
Kälte f - | cold | cause
Hitze f - | heat | cause
Lärm m - | noise | cause
Wand f Wände | wall | wall
Park m Parks Parks | park | place
Garten m Gärten | garden | place
Küche f Küchen | kitchen | place
Bahnhof m Bahnhöfe Bahnhofs | station | place
Stadt f Städte | town | place
Markt m Märkte | market | place
Supermarkt m Supermärkte Supermarkts | supermarket | place
Bibliothek f Bibliotheken | library | place
Museum n Museen | museum | place
Büro n Büros | office | place
Schule f Schulen | school | place
Kino n Kinos | cinema | place
Wald m Wälder | forest | place
Strand m Strände | beach | place
See m Seen Sees | lake | place
Dorf n Dörfer | village | place
Restaurant n Restaurants | restaurant | place
Krankenhaus n Krankenhäuser | hospital | place
Bäckerei f Bäckereien | bakery | place
Flughafen m Flughäfen Flughafens | airport | place
"""


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun: the genitive is that of the singular; `plural` is empty for mass nouns; `refers` is he, she or it."""

    singular: str
    plural: str
    genitive: str
    gender: str
    weak: bool
    english: str
    english_plural: str
    classes: frozenset[str]
    refers: str

    @property
    def mass(self) -> bool:
        return not self.plural


def parse_noun(line: list[str]) -> Noun:
    """One line of `_NOUN_TABLE`."""
    german, english, tags = line[0].split(), line[1], set(line[2].split())
    singular, gender, plural = german[0], german[1], german[2].replace("-", "")
    single, _, many = english.partition("/")
    weak = "weak" in tags
    if gender == "f":
        genitive = singular
    elif weak:
        genitive = plural
    else:
        genitive = german[3] if len(german) > 3 else regular_genitive(singular)
    refers = next((pronoun for pronoun in ("he", "she") if pronoun in tags), "" if "person" in tags else "it")
    classes = frozenset(tags - {"weak", "he", "she"})
    return Noun(singular, plural, genitive, gender, weak, single, many or english_s(single), classes, refers)


def regular_genitive(singular: str) -> str:
    """-es after a sibilant and on words of one syllable that end in a consonant, else -s."""
    one_syllable = syllables(singular) == 1 and singular[-1] not in "aeiouäöüywr"
    return singular + ("es" if singular.endswith(("s", "ß", "x", "z")) or one_syllable else "s")


def by_class(words: list[Noun]) -> dict[str, list[Noun]]:
    """Nouns under each class they belong to, in table order."""
    index: dict[str, list[Noun]] = defaultdict(list)
    for word in words:
        for name in sorted(word.classes):
            index[name].append(word)
    return dict(index)


_SIMPLE_NOUNS = [parse_noun(line) for line in entries(_NOUN_TABLE)]
NOUN = {noun.singular: noun for noun in _SIMPLE_NOUNS}
NOUNS_OF = by_class(_SIMPLE_NOUNS)
