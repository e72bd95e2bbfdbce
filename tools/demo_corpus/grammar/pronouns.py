"""Pronouns: personal, relative, possessive and indefinite, and which one takes a phrase up again."""

from __future__ import annotations

from tools.demo_corpus.grammar.noun_phrases import NounPhrase, four, three

_PRONOUN_FORMS = {
    "ich": ("ich mich mir mein", "I me my", 1, False, "I"),
    "du": ("du dich dir dein", "you you your", 2, False, "they"),
    "er": ("er ihn ihm sein", "he him his", 3, False, "he"),
    "sie": ("sie sie ihr ihr", "she her her", 3, False, "he"),
    "es": ("es es ihm sein", "it it its", 3, False, "he"),
    "wir": ("wir uns uns unser", "we us our", 1, True, "they"),
    "ihr": ("ihr euch euch euer", "you you your", 2, True, "they"),
    "sie (plural)": ("sie sie ihnen ihr", "they them their", 3, True, "they"),
    "Sie": ("Sie Sie Ihnen Ihr", "you you your", 3, True, "they"),
}
_ENGLISH_PRONOUNS = {"he": "he him his", "she": "she her her", "it": "it it its", "they": "they them their"}


def pronoun(key: str, english: str = "") -> NounPhrase:
    """A personal pronoun; `english` names another English pronoun than the usual one (er for a table is "it")."""
    german, usual, person, plural, agreement = _PRONOUN_FORMS[key]
    return NounPhrase(
        german=four(german.split()),
        english=three(_ENGLISH_PRONOUNS.get(english, usual).split()),
        person=person,
        plural=plural,
        gender="pl" if plural else {"er": "m", "es": "n"}.get(key, "f"),
        agreement=agreement,
        refers={"er": "he", "sie": "she", "sie (plural)": "they"}.get(key, ""),
        pronoun=True,
    )


def pronoun_for(antecedent: NounPhrase) -> NounPhrase | None:
    """The pronoun that takes a phrase up again: German by grammatical gender, English by what it refers to."""
    if antecedent.person != 3 or antecedent.formal:
        return antecedent if antecedent.pronoun else None
    if not antecedent.refers:
        return None
    key = {"m": "er", "f": "sie", "n": "es", "pl": "sie (plural)"}[antecedent.gender]
    return pronoun(key, antecedent.refers)


def possessive_of(owner: NounPhrase) -> str:
    """The determiner key of what belongs to `owner` (subject of the same clause), empty where none would be clear."""
    by_pronoun = {"ich": "my", "du": "your", "wir": "our", "ihr": "your (plural)", "Sie": "your (formal)"}
    if owner.pronoun and owner.german[0] in by_pronoun:
        return by_pronoun[owner.german[0]]
    if owner.gender == "n":
        return ""
    return {"he": "his", "she": "her", "they": "their"}.get(owner.refers, "")


INDEFINITE_PERSONS = [
    NounPhrase(("jemand", "jemanden", "jemandem", ""), ("someone", "someone", "")),
    NounPhrase(("niemand", "niemanden", "niemandem", ""), ("no one", "no one", ""), negative=True),
    NounPhrase(("alle", "alle", "allen", ""), ("everyone", "everyone", ""), plural=True, gender="pl"),
]
ANYONE = NounPhrase(("man", "", "", ""), ("one", "one", "one's"))
GAP = NounPhrase(("", "", "", ""), ("", "", ""))
_RELATIVE_PRONOUNS = {
    "m": ("der", "den", "dem", "dessen"),
    "f": ("die", "die", "der", "deren"),
    "n": ("das", "das", "dem", "dessen"),
    "pl": ("die", "die", "denen", "deren"),
}


def relative_pronoun(phrase: NounPhrase, person: bool) -> NounPhrase:
    """The relative pronoun of a phrase: gender and number of the phrase, case of its own clause."""
    return NounPhrase(
        german=_RELATIVE_PRONOUNS[phrase.gender],
        english=(("who", "who", "whose") if person else ("that", "that", "whose")),
        plural=phrase.plural,
        gender=phrase.gender,
        agreement=phrase.agreement,
        refers=phrase.refers,
        pronoun=True,
    )
