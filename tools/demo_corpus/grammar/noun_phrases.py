"""Noun phrases: determiners, adjectives and nouns in the four German cases, with their English.

A phrase is spelled out once, in every form a clause may ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tools.demo_corpus.words.adjectives import Adjective, attributive_stem
from tools.demo_corpus.words.nouns import Noun
from tools.demo_corpus.words.spelling import a_or_an, english_possessive
from tools.demo_corpus.words.text import Pair

NOMINATIVE, ACCUSATIVE, DATIVE, GENITIVE = range(4)
CASES = {"acc": ACCUSATIVE, "dat": DATIVE}

German = tuple[str, str, str, str]  # the four cases in the order above
English = tuple[str, str, str]  # as subject, as object, possessive
Graded = tuple[Adjective, int]  # an adjective and its degree: 0 positive, 1 comparative, 2 superlative


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """A noun phrase spelled out: four German cases; English as subject, object and possessive.

    `person`, `plural` and `gender` are the German ones (`gender` is "pl" in the plural); `agreement` is "I", "he" or
    "they", the form of the English verb; `refers` is the English pronoun that takes the phrase up again, empty if none
    would be natural; `noun` is the head, where it is a common noun.
    """

    german: German
    english: English
    person: int = 3
    plural: bool = False
    gender: str = "m"
    agreement: str = "he"
    refers: str = ""
    pronoun: bool = False
    definite: bool = True
    negative: bool = False
    noun: Noun | None = None

    @property
    def formal(self) -> bool:
        """Whether this is the formal Sie, which the text tells from sie by its capital alone."""
        return self.german[NOMINATIVE] == "Sie"


def four(forms: Iterable[str]) -> German:
    """Four forms as the cases of a phrase."""
    nominative, accusative, dative, genitive = forms
    return nominative, accusative, dative, genitive


def three(forms: Iterable[str]) -> English:
    """Three forms as the English of a phrase."""
    as_subject, as_object, possessive = forms
    return as_subject, as_object, possessive


def _endings(rows: str) -> dict[str, list[str]]:
    """`m er en em es; f ...` as a table; `-` is no ending."""
    table = {}
    for row in rows.split(";"):
        gender, *endings = row.split()
        table[gender] = [ending.replace("-", "") for ending in endings]
    return table


_ARTICLE = _endings("m der den dem des; f die die der der; n das das dem des; pl die die den der")
_DIES = _endings("m er en em es; f e e er er; n es es em es; pl e e en er")
_EIN = _endings("m - en em es; f e e er er; n - - em es; pl e e en er")
_WEAK = _endings("m e en en en; f e e en en; n e e en en; pl en en en en")
_MIXED = _endings("m er en en en; f e e en en; n es es en en; pl en en en en")
_STRONG = _endings("m er en em en; f e e er er; n es es em en; pl e e en er")
# Determiner: German stem, its endings, the endings of a following adjective, English singular and plural.
_DETERMINERS: dict[str, tuple[str, dict[str, list[str]] | None, dict[str, list[str]], str, str]] = {
    "the": ("", _ARTICLE, _WEAK, "the", "the"),
    "a": ("ein", _EIN, _MIXED, "a", ""),
    "no": ("kein", _EIN, _MIXED, "no", "no"),
    "this": ("dies", _DIES, _WEAK, "this", "these"),
    "every": ("jed", _DIES, _WEAK, "every", "every"),
    "which": ("welch", _DIES, _WEAK, "which", "which"),
    "many": ("viel", _DIES, _STRONG, "", "many"),
    "some": ("einig", _DIES, _STRONG, "", "some"),
    "all": ("all", _DIES, _WEAK, "", "all the"),
    "": ("", None, _STRONG, "", ""),
    "my": ("mein", _EIN, _MIXED, "my", "my"),
    "your": ("dein", _EIN, _MIXED, "your", "your"),
    "his": ("sein", _EIN, _MIXED, "his", "his"),
    "her": ("ihr", _EIN, _MIXED, "her", "her"),
    "our": ("unser", _EIN, _MIXED, "our", "our"),
    "your (plural)": ("euer", _EIN, _MIXED, "your", "your"),
    "their": ("ihr", _EIN, _MIXED, "their", "their"),
    "your (formal)": ("Ihr", _EIN, _MIXED, "your", "your"),
}
SPOUSES = {"Mann": ("husband", "husbands"), "Frau": ("wife", "wives")}


def decline(determiner: str, adjectives: Sequence[Graded], noun: Noun, plural: bool, prefix: str = "") -> German:
    """Determiner, adjectives and noun in the four cases.

    `prefix` is an uninflected word in the place of the determiner (a number, *Annas*); the adjectives are then strong.
    """
    stem, own_endings, adjective_endings, _, _ = _DETERMINERS[determiner]
    gender = "pl" if plural else noun.gender
    forms = []
    for case in range(4):
        words = [prefix] if prefix else []
        if own_endings is not None:
            ending = own_endings[gender][case]
            words.append((stem if not ending or stem != "euer" else "eur") + ending)
        for adjective, degree in adjectives:
            words.append(attributive_stem(adjective.german[degree]) + adjective_endings[gender][case])
        words.append(noun_form(noun, case, plural))
        forms.append(" ".join(words))
    return four(forms)


def noun_form(noun: Noun, case: int, plural: bool) -> str:
    """The noun alone: genitive -s, dative plural -n, and the n-declension (den Studenten)."""
    if plural:
        dative_n = case == DATIVE and not noun.plural.endswith(("n", "s"))
        return noun.plural + ("n" if dative_n else "")
    if case == GENITIVE:
        return noun.genitive
    return noun.plural if noun.weak and case != NOMINATIVE else noun.singular


def english_nominal(determiner: str, adjectives: Sequence[Graded], noun: Noun, plural: bool) -> str:
    """Determiner, adjectives and noun in English; "a" becomes "an" before a vowel and nothing before mass nouns."""
    words = [adjective.english[degree] for adjective, degree in adjectives]
    words.append(noun.english_plural if plural else noun.english)
    _, _, _, singular_article, plural_article = _DETERMINERS[determiner]
    article = plural_article if plural else singular_article
    if article == "a":
        article = "" if noun.mass else a_or_an(words[0])
    return " ".join([article, *words] if article else words)


def nominal(
    determiner: str, adjectives: Sequence[Graded], noun: Noun, plural: bool = False, number: Pair | None = None
) -> NounPhrase:
    """A noun phrase with a noun as its head; `number` is a numeral written before the adjectives.

    Someone's Mann or Frau is a husband or wife.
    """
    if noun.singular in SPOUSES and _DETERMINERS[determiner][1] is _EIN and determiner not in {"a", "no"}:
        english, english_plural = SPOUSES[noun.singular]
        noun = replace(noun, english=english, english_plural=english_plural)
    german = decline(determiner, adjectives, noun, plural, number[0] if number else "")
    english = english_nominal(determiner, adjectives, noun, plural)
    as_object = english
    if number:
        english = as_object = f"{number[1]} {english}"
    elif determiner == "no":
        as_object = english_nominal("a", adjectives, noun, plural)
        if plural or noun.mass:
            as_object = f"any {as_object}"
    return NounPhrase(
        german=german,
        english=(english, as_object, english_possessive(english, plural)),
        plural=plural,
        gender="pl" if plural else noun.gender,
        agreement="they" if plural else "he",
        refers="they" if plural else noun.refers,
        definite=determiner not in {"a", "no", "", "many", "some"},
        negative=determiner == "no",
        noun=noun,
    )


def followed_by(phrase: NounPhrase, attribute: Pair) -> NounPhrase:
    """The phrase with an attribute after it, the same in every case."""
    return _extended(phrase, attribute[0], f"{phrase.english[0]} {attribute[1]}", False)


def owned(owner: NounPhrase, phrase: NounPhrase, adjectives: Sequence[Graded], noun: Noun, plural: bool) -> NounPhrase:
    """das Auto des Lehrers: the teacher's car. A bare plural owner, which has no genitive, leaves the phrase alone."""
    if not owner.definite:
        return phrase
    english = f"{owner.english[2]} {english_nominal('', adjectives, noun, plural)}"
    return _extended(phrase, owner.german[GENITIVE], english, plural)


def _extended(phrase: NounPhrase, german: str, english: str, plural: bool) -> NounPhrase:
    """The phrase with `german` after every case, and `english` in all."""
    return replace(
        phrase,
        german=four(f"{form} {german}" for form in phrase.german),
        english=(english, english, english_possessive(english, plural)),
    )


def named_owner(name: NounPhrase, adjectives: Sequence[Graded], noun: Noun, plural: bool) -> NounPhrase:
    """Annas neues Auto: strong adjective after the name."""
    phrase = nominal("", adjectives, noun, plural, number=(name.german[GENITIVE], name.english[2]))
    return replace(phrase, definite=True)


def coordinated(left: NounPhrase, right: NounPhrase) -> NounPhrase:
    """left und right: plural; first person where one of them is."""
    return NounPhrase(
        german=four(f"{first} und {second}" for first, second in zip(left.german, right.german, strict=True)),
        english=three(f"{first} and {second}" for first, second in zip(left.english, right.english, strict=True)),
        person=min(left.person, right.person),
        plural=True,
        gender="pl",
        agreement="they",
        refers="they" if left.person == right.person == 3 else "",
    )
