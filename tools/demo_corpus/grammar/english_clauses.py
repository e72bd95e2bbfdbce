"""English verb groups and word order: tense and aspect, do-support, objects and particles."""

from __future__ import annotations

from tools.demo_corpus.grammar.clauses import Clause
from tools.demo_corpus.words.conjugation import english_finite
from tools.demo_corpus.words.text import join
from tools.demo_corpus.words.verbs import EnglishVerb

BE = EnglishVerb("be", "was", "been")
_HAVE = EnglishVerb("have", "had", "had")
_DO = EnglishVerb("do", "did", "done")
_WANT = EnglishVerb("want", "wanted", "wanted")
_LIKE = EnglishVerb("like", "liked", "liked")
_AUXILIARY_HAVE = EnglishVerb("have", "had", "had")  # told from the full verb by identity: it needs no do
# German modal: the English verb or auxiliary before the infinitive, and the words between them.
_MODALS: dict[str, tuple[EnglishVerb | str, str]] = {
    "können": ("can", ""),
    "müssen": ("must", ""),
    "wollen": (_WANT, "to"),
    "dürfen": (BE, "allowed to"),
    "sollen": ("should", ""),
    "möchten": ("would", "like to"),
    "werden": ("will", ""),
    "würden": ("would", ""),
}
_PERFECTIVE = {"perfect", "preterite", "pluperfect"}


def english_aspect(clause: Clause) -> str:
    """The English tense and aspect: what the construction fixes, else by German tense, kind of verb and time."""
    if clause.aspect:
        return clause.aspect
    if clause.tense == "pluperfect":
        return "pluperfect"
    if clause.tense in _PERFECTIVE:
        return "past"
    kind = clause.time.kind if clause.time else ""
    lasting = "stat" in clause.verb.flags
    if kind in {"future", "day"}:
        return "simple" if clause.liking else "will"
    if kind == "since":
        return "perfect" if lasting else "perfect progressive"
    if lasting or clause.liking or clause.frequency or kind == "habit":
        return "simple"
    return "progressive"


def english_modal(clause: Clause) -> tuple[EnglishVerb | str, str]:
    """The English modal in tense and polarity: must is had to in the past, have to when negated."""
    past = clause.tense == "preterite"
    if clause.modal == "müssen" and (past or clause.negation or clause.subject.negative):
        return _HAVE, "to"
    if clause.modal == "können" and past:
        return "could", ""
    return _MODALS[clause.modal]


class VerbGroup:
    """An English verb group under construction: words after a first verb whose form is not decided yet."""

    def __init__(self, verb: EnglishVerb) -> None:
        self.first: EnglishVerb | str = verb
        self.rest: list[str] = []

    def wrap(self, auxiliary: EnglishVerb | str, form: str, between: str = "") -> None:
        """Put `auxiliary` first; the verb that stood first takes `form`: base, ing or participle."""
        verb = self.first
        word: str = verb if isinstance(verb, str) else getattr(verb, form)
        self.rest = [*between.split(), word, *self.rest]
        self.first = auxiliary

    @property
    def auxiliary(self) -> bool:
        """Whether the first verb is one that negation and inversion need no do for."""
        return isinstance(self.first, str) or self.first.base == "be" or self.first is _AUXILIARY_HAVE


def english_verb(clause: Clause, inverted: bool = False) -> tuple[str, list[str], bool]:
    """The finite verb, the words after it, and whether the finite verb is an auxiliary."""
    group = VerbGroup(clause.verb.english)
    if clause.passive:
        group.wrap(BE, "participle")
    if clause.liking:
        group.wrap(_LIKE, "base", "to")
    if clause.modal:
        past = clause.tense in _PERFECTIVE
        modal, between = english_modal(clause)
        group.wrap(modal, "base", between)
    else:
        aspect = english_aspect(clause)
        past = aspect in {"past", "past progressive", "pluperfect"}
        if aspect.endswith("progressive"):
            group.wrap(BE, "ing")
        if aspect in {"perfect", "perfect progressive", "pluperfect"}:
            group.wrap(_AUXILIARY_HAVE, "participle")
        if aspect in {"will", "would"}:
            group.wrap(aspect, "base")
    if (inverted or clause.negation) and not group.auxiliary:
        group.wrap(_DO, "base")
    first = group.first
    word = first if isinstance(first, str) else english_finite(first, past, clause.subject.agreement)
    return word, group.rest, group.auxiliary or first is _DO


def english_after_verb(clause: Clause) -> list[str]:
    """Objects, complement and adverbials, with the verb's particle or preposition in its place."""
    verb, accusative, dative = clause.verb.english, clause.accusative, clause.dative
    thing = accusative.english[1] if accusative else ""
    person = dative.english[1] if dative else ""
    words: list[str]
    if thing and person:
        if "to" in clause.verb.flags or (accusative and accusative.pronoun):
            words = [thing, "to", person]
        else:
            words = [person, thing]
    elif verb.particle:
        late = (accusative and accusative.pronoun) or (verb.particle == "along" and not clause.then[1])
        words = [thing, verb.particle] if late else [verb.particle, thing]
    else:
        words = [verb.preposition, thing or person]
    if clause.complement:
        words.append(clause.complement[1])
    words += [adverbial[1] for adverbial in (clause.manner, clause.place) if adverbial]
    return [*words, clause.time.english if clause.time else "", clause.then[1]]


def english_statement(clause: Clause, opening: str = "", subject: str | None = None) -> str:
    """Subject, verb, objects, adverbials; a fronted time (`opening` its text) is the caller's to leave out of them."""
    finite, rest, auxiliary = english_verb(clause)
    frequency = clause.frequency[1] if clause.frequency else ""
    negation = "not" if clause.negation else ""
    verbs = [finite, negation, frequency, *rest] if auxiliary else [frequency, finite, *rest]
    if subject is None:
        subject = clause.subject.english[0]
    return join(opening, subject, *verbs, *english_after_verb(clause))


def english_question(clause: Clause, word: str = "") -> str:
    """[Question word] auxiliary subject verb."""
    finite, rest, _ = english_verb(clause, inverted=True)
    frequency = clause.frequency[1] if clause.frequency else ""
    negation = "not" if clause.negation else ""
    return join(word, finite, clause.subject.english[0], negation, frequency, *rest, *english_after_verb(clause))


def english_infinitive(clause: Clause, form: str = "base") -> str:
    """The verb in its base or ing form with what follows it."""
    verb = clause.verb.english
    return join("not" if clause.negation else "", verb.ing if form == "ing" else verb.base, *english_after_verb(clause))
