"""Finite verbs of both languages, and the German imperative."""

from __future__ import annotations

from tools.demo_corpus.words.verbs import EnglishVerb, Verb, with_e

# Present tense of the verbs that follow no rule: ich du er wir ihr sie.
_PRESENT = {
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
_PRETERITE = {"können": "konnte", "müssen": "musste", "wollen": "wollte", "dürfen": "durfte"}


def german_finite(verb: Verb, past: bool, person: int, plural: bool) -> str:
    """The finite form of the verb without its separable particle, present or preterite."""
    if past:
        return past_ending(verb.preterite, person, plural)
    if verb.infinitive in _PRESENT:
        return modal_finite(verb.infinitive, False, person, plural)
    if plural:
        return with_e(verb.stem) + "t" if person == 2 else verb.infinitive
    if person == 1:
        return verb.stem + "e"
    if person == 2 and not verb.third[:-1].endswith(("s", "ß", "x", "z")):
        return verb.third[:-1] + "st"
    return verb.third


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
    return verb.stem + "e" if verb.stem.endswith(("er", "z")) else with_e(verb.stem)


def modal_finite(modal: str, past: bool, person: int, plural: bool) -> str:
    """A finite modal, in the present also wäre, hätte and würden."""
    if past:
        return past_ending(_PRETERITE[modal], person, plural)
    return _PRESENT[modal].split()[person - 1 + 3 * plural]


def english_finite(verb: EnglishVerb, past: bool, agreement: str) -> str:
    """The finite form for agreement "I", "he" or "they"."""
    if verb.base == "be":
        forms = {"I": ("am", "was"), "he": ("is", "was"), "they": ("are", "were")}
        return forms[agreement][past]
    if past:
        return verb.past
    return verb.third if agreement == "he" else verb.base
