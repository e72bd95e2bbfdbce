"""The words of the demo corpus (see `bertkd_ray.corpus.demo`): tables of lemmas, and the inflection of one word alone.

Each table holds one entry a line, German | English | what it combines with. Regular forms are derived by rule, so that
an entry states only what the rules cannot know. Order matters in one respect: the grammar draws early lines more often,
which leaves the words at the end of a class rare, as words are in real text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace

# German [gender plural (- for mass nouns) genitive] | English[/plural] | classes and flags.
# Flags: weak (n-declension), single (no plural), he/she (how English refers to a person; without: no pronoun does).
NOUNS = """
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

# The first part of a compound: lemma | the form with its linking element | English attribute.
MODIFIERS = """
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
COMPOUNDS = """
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
COMPOUND_ENGLISH = {
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

# German [comparative superlative] | English [comparative superlative] | classes; abs: has no comparative.
ADJECTIVES = """
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

# German infinitive [particle·] [third person, preterite, participle (* with sein)] | English base [past participle]
# [+particle or ~preposition] | frame | subject classes | object classes | flags.
# Frames: i intransitive, l needs a place, m needs a direction, t accusative, d dative, dt both, put accusative and
# direction, lie position of a thing, w weather, p:preposition:case prepositional object, refl[:preposition:case]
# reflexive.
# Flags: pass has a passive, stat has no progressive form, noimp has no imperative, to has "to" before the English
# recipient, bare drops the German article, ride goes with a vehicle, city leads to a town, far to a distant place, wall
# to a wall; quick, care, quiet, well, hard and friendly are the manners that suit the verb.
VERBS = """
lesen liest las gelesen | read read read | t | person | text | quick well pass
kaufen | buy bought bought | t | person | furniture clothing food vehicle instrument portable fruit | pass
sehen sieht sah gesehen | see saw seen | t | person | person animal building vehicle public aircraft | stat noimp
essen isst aß gegessen | eat ate eaten | t | person | food fruit baked dish | quick
trinken trinkt trank getrunken | drink drank drunk | t | person | drink | quick
suchen | look ~for | t | person | portable person pet small |
an·rufen ruft rief gerufen | call | t | person | person |
schreiben schreibt schrieb geschrieben | write wrote written | t | person | text | quick pass
öffnen | open | t | person | opening wrapped | care pass
finden findet fand gefunden | find found found | t | person | portable small pet | stat noimp pass
mit·bringen bringt brachte gebracht | bring brought brought | t | person | gift food drink portable |
reparieren | repair | t | person | repairable | quick care pass
besuchen | visit | t | person | person |
ab·holen | pick +up | t | person | person gift | pass
ein·laden lädt lud geladen | invite | t | person | person | pass
verkaufen | sell sold sold | t | person | furniture clothing vehicle animal building instrument | pass
treffen trifft traf getroffen | meet met met | t | person | person |
brauchen | need | t | person | portable clothing vehicle drink | stat noimp
haben hat hatte gehabt | have had had | t | person | portable vehicle pet furniture instrument clothing | stat noimp
kennen kennt kannte gekannt | know knew known | t | person | person show | stat noimp
mögen mag mochte gemocht | like | t | person | person food drink music show | stat noimp
tragen trägt trug getragen | wear wore worn | t | person | clothing |
tragen trägt trug getragen | carry | t | person | portable container furniture | care
kochen | cook | t | person | dish | well
backen backt backte gebacken | bake | t | person | baked |
verlieren verliert verlor verloren | lose lost lost | t | person | small portable | stat noimp
vergessen vergisst vergaß vergessen | forget forgot forgotten | t | person | portable small gift | stat pass
zu·machen | close | t | person | opening | care quiet
auf·machen | open | t | person | opening | care quiet
schließen schließt schloss geschlossen | close | t | person | opening | quiet pass
an·ziehen zieht zog gezogen | put put put +on | t | person | clothing |
aus·ziehen zieht zog gezogen | take took taken +off | t | person | clothing |
ein·schalten | turn +on | t | person | device switch | pass
aus·schalten | turn +off | t | person | device switch | pass
auf·räumen | tidy | t | person | room | pass
putzen | clean | t | person | part room dishes furniture | quick care pass
waschen wäscht wusch gewaschen | wash | t | person | clothing vehicle | care pass
verstehen versteht verstand verstanden | understand understood understood | t | person | text person | stat
hören | listen ~to | t | person | music |
singen singt sang gesungen | sing sang sung | t | person | music | well quiet
spielen | play | t | person | instrument | bare noimp
fotografieren | photograph | t | person | building animal person | pass
malen | paint | t | person | building animal | well pass
bauen | build built built | t | person | building | pass
bestellen | order | t | person | food drink | pass
probieren | try | t | person | food drink dish |
füttern | feed fed fed | t | person | animal pet |
mit·nehmen nimmt nahm genommen | take took taken +along | t | person | portable small pet |
weg·werfen wirft warf geworfen | throw threw thrown +away | t | person | small text clothing | pass
vor·bereiten | prepare | t | person | event | pass
ab·sagen | cancel | t | person | event | pass
begrüßen | greet | t | person | person | friendly pass
wecken | wake woke woken +up | t | person | person |
fragen | ask | t | person | person |
verstecken | hide hid hidden | t | person | portable small gift | pass
benutzen | use | t | person | device vehicle dishes | noimp
lieben | love | t | person | person pet | stat noimp
verpassen | miss | t | person | public | stat
an·sehen sieht sah gesehen | look ~at | t | person | text hung animal |
bezahlen | pay paid paid ~for | t | person | drink food clothing | pass
zerbrechen zerbricht zerbrach zerbrochen | break broke broken | t | person | fragile | stat noimp pass
übersetzen | translate | t | person | text | quick well pass
vor·lesen liest las gelesen | read read read +out | t | person | text | quiet pass
helfen hilft half geholfen | help | d | person | person |
danken | thank | d | person | person |
antworten | answer | d | person | person |
folgen folgt folgte gefolgt* | follow | d | person animal | person |
zu·hören | listen ~to | d | person | person |
gratulieren | congratulate | d | person | person |
vertrauen | trust | d | person | person | stat
widersprechen widerspricht widersprach widersprochen | contradict | d | person | person |
geben gibt gab gegeben | give gave given | dt | person | portable gift drink small | pass
zeigen | show showed shown | dt | person | text hung small |
schenken | give gave given | dt | person | gift clothing | pass
bringen bringt brachte gebracht | bring brought brought | dt | person | drink food dishes portable |
schicken | send sent sent | dt | person | text gift | pass
erklären | explain | dt | person | text | to
leihen leiht lieh geliehen | lend lent lent | dt | person | vehicle portable clothing |
verkaufen | sell sold sold | dt | person | vehicle furniture |
empfehlen empfiehlt empfahl empfohlen | recommend | dt | person | text show | to
zurück·geben gibt gab gegeben | return | dt | person | small portable | to
schlafen schläft schlief geschlafen | sleep slept slept | i | person animal | | well
arbeiten | work | i | person | | quick hard
spielen | play | i | person animal | |
auf·stehen steht stand gestanden* | get got got +up | i | person | |
ein·kaufen | go went gone +shopping | i | person | |
tanzen | dance | i | person | | well
schwimmen schwimmt schwamm geschwommen* | swim swam swum | i | person animal | |
warten | wait | i | person | |
frühstücken | have had had +breakfast | i | person | |
lernen | study | i | person | | hard
lachen | laugh | i | person | | quiet
weinen | cry | i | person | | quiet
fern·sehen sieht sah gesehen | watch +television | i | person | |
spazieren_gehen geht ging gegangen* | go went gone +for_a_walk | i | person | |
ein·schlafen schläft schlief geschlafen* | fall fell fallen +asleep | i | person animal | | stat noimp
auf·wachen wacht wachte gewacht* | wake woke woken +up | i | person animal | | stat noimp
an·kommen kommt kam gekommen* | arrive | i | public aircraft person | | noimp
ab·fahren fährt fuhr gefahren* | leave left left | i | public | | noimp
ab·fliegen fliegt flog geflogen* | take took taken +off | i | aircraft | | noimp
statt·finden findet fand gefunden | take took taken +place | i | event | | noimp
an·fangen fängt fing gefangen | begin began begun | i | event show | | noimp
auf·hören | stop | i | music | | noimp
zurück·kommen kommt kam gekommen* | come came come +back | i | person | |
aus·gehen geht ging gegangen* | go went gone +out | i | person | |
um·ziehen zieht zog gezogen* | move +house | i | person | | noimp
wohnen | live | l | person | | stat noimp far
übernachten | stay +overnight | l | person | | noimp far
bleiben bleibt blieb geblieben* | stay | l | person | |
sitzen sitzt saß gesessen | sit sat sat | l | person animal | | noimp
stehen steht stand gestanden | stand stood stood | l | person animal | | noimp
studieren | study | l | person | | noimp
gehen geht ging gegangen* | go went gone | m | person | |
fahren fährt fuhr gefahren* | go went gone | m | person | | ride far
laufen läuft lief gelaufen* | run ran run | m | person animal | |
fliegen fliegt flog geflogen* | fly flew flown | m | person | | city
reisen reist reiste gereist* | travel | m | person | | city ride
um·ziehen zieht zog gezogen* | move | m | person | | city noimp
mit·kommen kommt kam gekommen* | come came come +along | m | person | |
zurück·fahren fährt fuhr gefahren* | go went gone +back | m | person | | city ride
legen | put put put | put | person | portable small text |
stellen | put put put | put | person | upright |
hängen | hang hung hung | put | person | hung | wall
liegen liegt lag gelegen | lie lay lain | lie | small text portable | | noimp
stehen steht stand gestanden | stand stood stood | lie | upright | | noimp
hängen hängt hing gehangen | hang hung hung | lie | hung | | noimp wall
warten | wait ~for | p:auf:acc | person | person public |
denken denkt dachte gedacht | think thought thought ~of | p:an:acc | person | person event |
sprechen spricht sprach gesprochen | speak spoke spoken ~to | p:mit:dat | person | person | quiet
reden | talk ~about | p:über:acc | person | person event show |
träumen | dream ~of | p:von:dat | person | event person | noimp
lachen | laugh ~at | p:über:acc | person | person show |
teil·nehmen nimmt nahm genommen | take took taken ~part_in | p:an:dat | person | event |
telefonieren | talk ~on_the_phone_to | p:mit:dat | person | person |
freuen | look ~forward_to | refl:auf:acc | person | event show |
erinnern | remember | refl:an:acc | person | person event | stat
interessieren | be was been ~interested_in | refl:für:acc | person | show music text | stat noimp
kümmern | look ~after | refl:um:acc | person | person pet |
treffen trifft traf getroffen | meet met met ~up_with | refl:mit:dat | person | person |
beeilen | hurry | refl | person | |
aus·ruhen | rest | refl | person | |
verstecken | hide hid hidden | refl | person animal | |
verlaufen verläuft verlief verlaufen | get got got +lost | refl | person | | noimp stat
regnen | rain | w | | | noimp
schneien | snow | w | | | noimp
"""

# Where a place is met: German noun | preposition = English at rest | preposition = English in motion.
PLACES = """
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
FIXED_PLACES = """
zu Hause = at home | nach Hause = home
hier = here | hierher = here
draußen = outside | nach draußen = outside
oben = upstairs | nach oben = upstairs
dort = there | dorthin = there
beim Arzt = at the doctor's | zum Arzt = to the doctor's
"""

# Towns and countries: German = English; "in" and "nach" unless an article stands before the name.
TOWNS = """
Berlin = Berlin
Hamburg = Hamburg
München = Munich
Köln = Cologne
Wien = Vienna
Paris = Paris
Zürich = Zurich
Deutschland = Germany
Italien = Italy
Leipzig = Leipzig
die Schweiz = Switzerland
Frankreich = France
Spanien = Spain
London = London
Österreich = Austria
die Türkei = Turkey
Rom = Rome
Polen = Poland
"""

# Adverbials of time by class: now (progressive), today (present and past), day (future and past), past, future, habit.
TIMES = """
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
WEEKDAYS = """
Montag = Monday
Dienstag = Tuesday
Mittwoch = Wednesday
Donnerstag = Thursday
Freitag = Friday
Samstag = Saturday
Sonntag = Sunday
"""
MONTHS = """
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
"""
FREQUENCIES = """
oft = often
immer = always
manchmal = sometimes
selten = rarely
nie = never
normalerweise = usually
"""
MANNERS = """
schnell = quickly | quick
langsam = slowly | quick
vorsichtig = carefully | care
leise = quietly | quiet
laut = loudly | quiet
gut = well | well
hart = hard | hard
freundlich = in a friendly way | friendly
"""
NAMES = """
Anna she
Peter he
Maria she
Paul he
Lena she
Felix he
Julia she
Martin he
Sophie she
Daniel he
Emma she
Lukas he
Clara she
Georg he
Herr_Müller=Mr_Müller he
Frau_Schmidt=Ms_Schmidt she
Herr_Weber=Mr_Weber he
Frau_Fischer=Ms_Fischer she
"""

Pair = tuple[str, str]  # (German, English)

_VOWEL_GROUP = re.compile("[aeiouyäöü]+")
_NEEDS_E = re.compile("([td]|[^aeiouäöülrhnm][nm])$")  # stems that take -e- before -t and -st: arbeit-e-t, öffn-e-t


def word_list(text: str) -> list[str]:
    """The words of a list written as running text."""
    return text.split()


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


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective: German and English positive, comparative and superlative stems (English may be "more ...")."""

    german: tuple[str, str, str]
    english: tuple[str, str, str]
    classes: frozenset[str]
    comparable: bool


@dataclass(frozen=True, slots=True)
class EnglishVerb:
    """The forms of an English verb, with the particle ("up") or preposition ("for") that belongs to it."""

    base: str
    past: str
    participle: str
    particle: str = ""
    preposition: str = ""

    @property
    def third(self) -> str:
        """Third person singular, present."""
        irregular = {"have": "has", "be": "is", "do": "does"}
        return irregular.get(self.base) or english_s(self.base)

    @property
    def ing(self) -> str:
        """Present participle."""
        base = self.base
        if base in {"lie"}:
            return base[:-2] + "ying"
        if base.endswith("e") and not base.endswith("ee") and base != "be":
            return base[:-1] + "ing"
        return doubled(base) + "ing"


@dataclass(frozen=True, slots=True)
class Verb:
    """A German verb with its English counterpart and the classes of subject and object that suit it."""

    infinitive: str
    particle: str
    third: str
    preterite: str
    participle: str
    auxiliary: str
    english: EnglishVerb
    frame: str
    preposition: str
    case: str
    subjects: tuple[str, ...]
    objects: tuple[str, ...]
    flags: frozenset[str]

    @property
    def stem(self) -> str:
        return self.infinitive[:-2] if self.infinitive.endswith("en") else self.infinitive[:-1]


def english_s(word: str) -> str:
    """The regular -s of plurals and of the third person: box, boxes; city, cities; boy, boys."""
    if word.endswith(("s", "x", "z", "ch", "sh", "o")) and word not in {"photo", "radio", "piano", "video"}:
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def doubled(word: str) -> str:
    """The word with its last consonant doubled where a suffix asks for it (stop, stopping)."""
    doubling = {
        "get",
        "put",
        "stop",
        "swim",
        "run",
        "cut",
        "sit",
        "forget",
        "plan",
        "begin",
        "win",
        "big",
        "hot",
        "sad",
        "cancel",
        "travel",
    }
    return word + word[-1] if word in doubling else word


def english_ed(base: str) -> str:
    """The regular past tense."""
    if base.endswith("e"):
        return base + "d"
    if base.endswith("y") and base[-2] not in "aeiou":
        return base[:-1] + "ied"
    return doubled(base) + "ed"


def a_or_an(word: str) -> str:
    """The indefinite article that the sound at the start of `word` asks for."""
    silent_h = word.startswith(("honest", "hour"))
    consonant_sound = word.startswith(("use", "uni", "euro", "one"))
    return "an" if silent_h or (word[0].lower() in "aeiou" and not consonant_sound) else "a"


def entries(table: str) -> list[list[str]]:
    """The non-empty lines of a table, each split at `|` and stripped."""
    return [[field.strip() for field in line.split("|")] for line in table.splitlines() if line.strip()]


def parse_pairs(table: str) -> list[Pair]:
    """Lines of the form `German = English`."""
    return [
        (left.strip(), right.strip()) for left, _, right in (line.partition("=") for line in table.split("\n")) if right
    ]


def parse_noun(line: list[str]) -> Noun:
    """One line of `NOUNS`."""
    german, english, tags = line[0].split(), line[1], set(line[2].split())
    singular, gender, plural = german[0], german[1], german[2].replace("-", "")
    one, _, many = english.partition("/")
    weak = "weak" in tags
    if gender == "f":
        genitive = singular
    elif weak:
        genitive = plural
    else:
        genitive = german[3] if len(german) > 3 else regular_genitive(singular)
    refers = next((pronoun for pronoun in ("he", "she") if pronoun in tags), "" if "person" in tags else "it")
    classes = frozenset(tags - {"weak", "he", "she"})
    return Noun(singular, plural, genitive, gender, weak, one, many or english_s(one), classes, refers)


def regular_genitive(singular: str) -> str:
    """-es after a sibilant and on words of one syllable that end in a consonant, else -s."""
    one_syllable = len(_VOWEL_GROUP.findall(singular.lower())) == 1 and singular[-1] not in "aeiouäöüywr"
    return singular + ("es" if singular.endswith(("s", "ß", "x", "z")) or one_syllable else "s")


def compound(modifier: str, head: Noun) -> Noun:
    """The compound of a lemma of `MODIFIERS` and a head: gender, plural and classes are the head's."""
    linked, attribute = _MODIFIERS[modifier]
    singular = linked + head.singular.lower()
    english = COMPOUND_ENGLISH.get(singular, f"{attribute} {head.english}")
    irregular_plural = head.english_plural != english_s(head.english) and english.endswith(head.english)
    plural = english.removesuffix(head.english) + head.english_plural if irregular_plural else english_s(english)
    return replace(
        head,
        singular=singular,
        plural=head.plural and linked + head.plural.lower(),
        genitive=linked + head.genitive.lower(),
        english=english,
        english_plural=plural,
        classes=head.classes - {"place", "part", "compoundable"},
    )


def parse_adjective(line: list[str]) -> Adjective:
    """One line of `ADJECTIVES`."""
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


def regular_comparison(adjective: str) -> Pair:
    """English comparative and superlative: -er, -est on short adjectives, more and most before long ones."""
    syllables = len(_VOWEL_GROUP.findall(adjective.removesuffix("e")))
    if syllables > 1 and not adjective.endswith("y"):
        return f"more {adjective}", f"most {adjective}"
    stem = adjective[:-1] + "i" if adjective.endswith("y") else doubled(adjective).removesuffix("e")
    return stem + "er", stem + "est"


def attributive_stem(positive: str) -> str:
    """The stem that endings are added to: teuer, teur-; dunkel, dunkl-; müde, müd-."""
    if positive.endswith(("auer", "euer")):
        return positive[:-2] + "r"
    if positive.endswith("el"):
        return positive[:-2] + "l"
    return positive.removesuffix("e")


def parse_verb(line: list[str]) -> Verb:
    """One line of `VERBS`."""
    german, english, frame, subjects, objects, flags = line
    forms = german.replace("_", "·").split()
    particle, _, infinitive = forms[0].rpartition("·")
    spaced = "_" in german.split()[0]
    auxiliary = "haben"
    if len(forms) == 1:
        forms += regular_forms(infinitive)
    if forms[3].endswith("*"):
        auxiliary = "sein"
    kind, _, governed = frame.partition(":")
    preposition, _, case = governed.partition(":")
    return Verb(
        infinitive=infinitive,
        particle=particle + " " if spaced else particle,
        third=forms[1],
        preterite=forms[2],
        participle=forms[3].removesuffix("*"),
        auxiliary=auxiliary,
        english=parse_english_verb(english),
        frame=kind,
        preposition=preposition,
        case=case,
        subjects=tuple(subjects.split()),
        objects=tuple(objects.split()),
        flags=frozenset(flags.split()),
    )


def regular_forms(infinitive: str) -> list[str]:
    """Third person, preterite and participle of a weak verb; inseparable prefixes and -ieren take no ge-."""
    stem = infinitive[:-2] if infinitive.endswith("en") else infinitive[:-1]
    dental = stem + "e" if _NEEDS_E.search(stem) else stem
    inseparable = stem.startswith(("be", "er", "ver", "ge", "zer", "emp", "ent", "über", "wider")) or stem.endswith(
        "ier"
    )
    return [dental + "t", dental + "te", ("" if inseparable else "ge") + dental + "t"]


def parse_english_verb(field: str) -> EnglishVerb:
    """The English column of `VERBS`."""
    words = field.split()
    particle = next((word[1:].replace("_", " ") for word in words if word.startswith("+")), "")
    preposition = next((word[1:].replace("_", " ") for word in words if word.startswith("~")), "")
    forms = [word for word in words if word[0] not in "+~"]
    base = forms[0]
    past = forms[1] if len(forms) > 1 else english_ed(base)
    participle = forms[2] if len(forms) > 2 else past
    return EnglishVerb(base, past, participle, particle, preposition)


def by_class(words: list[Noun]) -> dict[str, list[Noun]]:
    """Nouns under each class they belong to, in table order."""
    index: dict[str, list[Noun]] = defaultdict(list)
    for word in words:
        for name in sorted(word.classes):
            index[name].append(word)
    return dict(index)


_MODIFIERS = {lemma: (linked, attribute) for lemma, linked, attribute in entries(MODIFIERS)}
SIMPLE_NOUNS = [parse_noun(line) for line in entries(NOUNS)]
NOUN = {noun.singular: noun for noun in SIMPLE_NOUNS}
COMPOUND_NOUNS = [
    compound(modifier, NOUN[head]) for head, modifiers in entries(COMPOUNDS) for modifier in modifiers.split()
]
NOUNS_OF = by_class(SIMPLE_NOUNS)
COMPOUNDS_OF = by_class(COMPOUND_NOUNS)
ALL_ADJECTIVES = [parse_adjective(line) for line in entries(ADJECTIVES)]
ALL_VERBS = [parse_verb(line) for line in entries(VERBS)]

# Present tense of the verbs that follow no rule: ich du er wir ihr sie.
PRESENT = {
    "sein": "bin bist ist sind seid sind",
    "haben": "habe hast hat haben habt haben",
    "werden": "werde wirst wird werden werdet werden",
    "wissen": "weiß weißt weiß wissen wisst wissen",
    "mögen": "mag magst mag mögen mögt mögen",
    "können": "kann kannst kann können könnt können",
    "müssen": "muss musst muss müssen müsst müssen",
    "wollen": "will willst will wollen wollt wollen",
    "dürfen": "darf darfst darf dürfen dürft dürfen",
    "sollen": "soll sollst soll sollen sollt sollen",
    "möchten": "möchte möchtest möchte möchten möchtet möchten",
    "würden": "würde würdest würde würden würdet würden",
    "wäre": "wäre wärst wäre wären wärt wären",
    "hätte": "hätte hättest hätte hätten hättet hätten",
}
PRETERITE = {
    "sein": "war",
    "haben": "hatte",
    "werden": "wurde",
    "können": "konnte",
    "müssen": "musste",
    "wollen": "wollte",
    "dürfen": "durfte",
}

_UNITS = word_list("null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf")
_UNITS += word_list("dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn")
_TENS = word_list("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
_ENGLISH_UNITS = word_list("zero one two three four five six seven eight nine ten eleven twelve")
_ENGLISH_UNITS += word_list("thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
_ENGLISH_TENS = word_list("twenty thirty forty fifty sixty seventy eighty ninety")


def german_number(n: int) -> str:
    """The cardinal in one German word, 0 to 999: 21 is einundzwanzig, 101 hunderteins."""
    if n >= 100:
        hundreds = ("" if n < 200 else _UNITS[n // 100]) + "hundert"
        return hundreds + (german_number(n % 100) if n % 100 else "")
    if n < 20:
        return _UNITS[n]
    unit = "ein" if n % 10 == 1 else _UNITS[n % 10]
    return (f"{unit}und" if n % 10 else "") + _TENS[n // 10 - 2]


def english_number(n: int) -> str:
    """The cardinal in English words, 0 to 999: 21 is twenty-one, 101 one hundred and one."""
    if n >= 100:
        rest = f" and {english_number(n % 100)}" if n % 100 else ""
        return f"{_ENGLISH_UNITS[n // 100]} hundred{rest}"
    if n < 20:
        return _ENGLISH_UNITS[n]
    return _ENGLISH_TENS[n // 10 - 2] + (f"-{_ENGLISH_UNITS[n % 10]}" if n % 10 else "")


def german_ordinal(n: int) -> str:
    """The ordinal without its ending, 1 to 31: erst, dritt, zwanzigst."""
    return {1: "erst", 3: "dritt", 7: "siebt", 8: "acht"}.get(n) or german_number(n) + ("t" if n < 20 else "st")


def english_ordinal(n: int) -> str:
    """The ordinal, 1 to 31: first, twelfth, twenty-third."""
    irregular = {1: "first", 2: "second", 3: "third", 5: "fifth", 8: "eighth", 9: "ninth", 12: "twelfth"}
    if n in irregular:
        return irregular[n]
    if n > 20 and n % 10:
        return f"{english_number(n - n % 10)}-{english_ordinal(n % 10)}"
    word = english_number(n)
    return word[:-1] + "ieth" if word.endswith("y") else word + "th"


def german_finite(verb: Verb, past: bool, person: int, plural: bool) -> str:
    """The finite form of the verb without its separable particle, present or preterite."""
    form = preterite(verb) if past else ""
    if not past and verb.infinitive in PRESENT:
        return PRESENT[verb.infinitive].split()[person - 1 + 3 * plural]
    dental = verb.stem + "e" if _NEEDS_E.search(verb.stem) else verb.stem
    if past:
        return past_ending(form, person, plural)
    if plural:
        return dental + "t" if person == 2 else verb.infinitive
    if person == 1:
        return verb.stem + "e"
    if person == 2 and not verb.third[:-1].endswith(("s", "ß", "x", "z")):
        return verb.third[:-1] + "st"
    return verb.third


def preterite(verb: Verb) -> str:
    """First and third person singular of the preterite."""
    return PRETERITE.get(verb.infinitive, verb.preterite)


def past_ending(form: str, person: int, plural: bool) -> str:
    """The preterite `form` with the ending of a person."""
    if plural and person != 2:
        return form + ("n" if form.endswith("e") else "en")
    if person == 2:
        return form + ("t" if plural else "st")
    return form


def german_imperative(verb: Verb, plural: bool) -> str:
    """The imperative for du or ihr: only e to i changes the stem (nimm, but fahr)."""
    if plural:
        return german_finite(verb, False, 2, True)
    if "e" in verb.stem and "i" in verb.third and not verb.third.startswith(verb.stem):
        return verb.third[:-1]
    return verb.stem + "e" if _NEEDS_E.search(verb.stem) or verb.stem.endswith(("er", "z")) else verb.stem


def english_finite(verb: EnglishVerb, past: bool, agreement: str) -> str:
    """The finite form for agreement "I", "he" or "they"."""
    if verb.base == "be":
        forms = {"I": ("am", "was"), "he": ("is", "was"), "they": ("are", "were")}
        return forms[agreement][past]
    if past:
        return verb.past
    return verb.third if agreement == "he" else verb.base
