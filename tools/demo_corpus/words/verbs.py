"""The verbs: a table of lemmas with principal parts, translation, and what they combine with.

Regular forms are derived by rule, so that an entry states only what the rules cannot know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from tools.demo_corpus.words.spelling import doubled, english_ed, english_s
from tools.demo_corpus.words.text import entries

# German infinitive [particle·] [third person, preterite, participle (* with sein)] | English base [past participle]
# [+particle or ~preposition] | frame | subject classes | object classes | flags.
# Frames: i intransitive, l needs a place, m needs a direction, t accusative, d dative, dt both, put accusative and
# direction, lie position of a thing, w weather, p:preposition:case prepositional object, refl[:preposition:case]
# reflexive.
# Flags: pass has a passive, stat has no progressive form, noimp has no imperative, to has "to" before the English
# recipient, bare drops the German article, ride goes with a vehicle, city leads to a town, far to a distant place, wall
# to a wall; quick, care, quiet, well, hard and friendly are the manners that suit the verb.
_VERB_TABLE = """
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

_NEEDS_E = re.compile("([td]|[^aeiouäöülrhnm][nm])$")


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
        if base.endswith("ie"):
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
        return verb_stem(self.infinitive)

    @property
    def full_infinitive(self) -> str:
        """anrufen, spazieren gehen."""
        return self.particle + self.infinitive

    @property
    def zu_infinitive(self) -> str:
        """zu lesen, anzurufen, spazieren zu gehen."""
        joined = self.particle and not self.particle.endswith(" ")
        return f"{self.particle}zu{'' if joined else ' '}{self.infinitive}"

    @property
    def past_participle(self) -> str:
        """angerufen, spazieren gegangen."""
        return self.particle + self.participle


def verb_stem(infinitive: str) -> str:
    """The infinitive without -en or -n."""
    return infinitive[:-2] if infinitive.endswith("en") else infinitive[:-1]


def with_e(stem: str) -> str:
    """The stem as it stands before -t and -st: arbeit-e-t, öffn-e-t."""
    return stem + "e" if _NEEDS_E.search(stem) else stem


def parse_verbs(table: str) -> list[Verb]:
    """The verbs of a table: German | English | frame | subject classes | object classes | flags.

    The notation is that of `_VERB_TABLE`.
    """
    return [_parse_verb(line) for line in entries(table)]


def _parse_verb(line: list[str]) -> Verb:
    german, english, frame, subjects, objects, flags = line
    forms = german.replace("_", "·").split()
    particle, _, infinitive = forms[0].rpartition("·")
    spaced = "_" in german.split()[0]
    if len(forms) == 1:
        forms += regular_forms(infinitive)
    kind, _, governed = frame.partition(":")
    preposition, _, case = governed.partition(":")
    return Verb(
        infinitive=infinitive,
        particle=particle + " " if spaced else particle,
        third=forms[1],
        preterite=forms[2],
        participle=forms[3].removesuffix("*"),
        auxiliary="sein" if forms[3].endswith("*") else "haben",
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
    stem = verb_stem(infinitive)
    present = with_e(stem) + "t"
    prefixed = stem.startswith(("be", "er", "ver", "ge", "zer", "emp", "ent", "über", "wider"))
    return [present, present + "e", present if prefixed or stem.endswith("ier") else "ge" + present]


def parse_english_verb(field: str) -> EnglishVerb:
    """The English column of `_VERB_TABLE`."""
    words = field.split()
    marked = {word[0]: word[1:].replace("_", " ") for word in words}
    forms = [word for word in words if word[0] not in "+~"]
    base = forms[0]
    past = forms[1] if len(forms) > 1 else english_ed(base)
    participle = forms[2] if len(forms) > 2 else past
    return EnglishVerb(base, past, participle, marked.get("+", ""), marked.get("~", ""))


ALL_VERBS = parse_verbs(_VERB_TABLE)
VERBS_OF = {frame: [verb for verb in ALL_VERBS if verb.frame == frame] for frame in {verb.frame for verb in ALL_VERBS}}


@cache
def verb_named(infinitive: str, frame: str = "") -> Verb:
    """The first verb with this full infinitive, of the frame if one is given."""
    return next(verb for verb in ALL_VERBS if verb.full_infinitive == infinitive and frame in {"", verb.frame})
