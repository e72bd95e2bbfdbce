"""German word order: verb-second, verb-first and verb-final clauses, and infinitives with zu."""

from __future__ import annotations

from tools.demo_corpus.grammar.clauses import HABEN, SEIN, WERDEN, Clause
from tools.demo_corpus.grammar.noun_phrases import ACCUSATIVE, DATIVE, NOMINATIVE
from tools.demo_corpus.words.conjugation import german_finite, modal_finite
from tools.demo_corpus.words.text import Pair, join

_REFLEXIVES = {(1, False): "mich", (2, False): "dich", (1, True): "uns", (2, True): "euch"}


def german_verb(clause: Clause) -> tuple[str, str, str]:
    """The finite verb, the separable particle it left behind, and the non-finite rest of the right bracket."""
    verb, subject = clause.verb, clause.subject
    person, plural = subject.person, subject.plural
    past = clause.tense == "preterite"
    if clause.modal:
        rest = f"{verb.past_participle} werden" if clause.passive else verb.full_infinitive
        return modal_finite(clause.modal, past, person, plural), "", rest
    if clause.tense in {"perfect", "pluperfect"}:
        auxiliary = SEIN if clause.passive or verb.auxiliary == "sein" else HABEN
        rest = verb.past_participle + (" worden" if clause.passive else "")
        return german_finite(auxiliary, clause.tense == "pluperfect", person, plural), "", rest
    if clause.passive:
        return german_finite(WERDEN, past, person, plural), "", verb.past_participle
    return german_finite(verb, past, person, plural), verb.particle.strip(), ""


def german_fields(clause: Clause) -> list[Pair]:
    """(field, text) of all that stands between the verb brackets, in the order of the German middle field."""
    subject, accusative, dative = clause.subject, clause.accusative, clause.dative
    text = accusative.german[ACCUSATIVE] if accusative else ""
    # A pronoun comes early, a definite phrase before the negation, an indefinite one close to the verb.
    slot = ""
    if accusative and (accusative.pronoun or accusative.definite):
        slot = "pronoun" if accusative.pronoun else "definite"
    fields = [("subject", subject.german[NOMINATIVE])]
    if clause.verb.frame == "refl":
        reflexive = ("reflexive", _REFLEXIVES.get((subject.person, subject.plural), "sich"))
        fields.insert(1 if subject.pronoun else 0, reflexive)
    if slot == "pronoun":
        fields.append(("accusative", text))
    if dative:
        before_subject = clause.verb.frame == "x" and dative.pronoun and not subject.pronoun
        fields.insert(0 if before_subject else len(fields), ("dative", dative.german[DATIVE]))
    fields += [
        ("time", clause.time.german if clause.time else ""),
        ("frequency", clause.frequency[0] if clause.frequency else ""),
        ("accusative", text if slot == "definite" else ""),
        ("negation", "nicht" if clause.negation == "nicht" else ""),
        ("liking", "gern" if clause.liking else ""),
        ("manner", clause.manner[0] if clause.manner else ""),
        ("place", clause.place[0] if clause.place else ""),
        ("accusative", "" if slot else text),
        ("complement", clause.complement[0] if clause.complement else ""),
    ]
    return [field for field in fields if field[1]]


def german_main(clause: Clause, front: str = "subject", opening: str = "") -> str:
    """Verb-second: the field named `front`, or the text `opening`, then the finite verb, then everything else."""
    finite, particle, rest = german_verb(clause)
    fields = german_fields(clause)
    first = opening or next(text for name, text in fields if name == front)
    middle = [text for name, text in fields if opening or name != front]
    return join(first, finite, *middle, particle, rest, clause.then[0])


def german_question(clause: Clause, word: str = "", gap: str = "") -> str:
    """Verb-first, or verb-second after a question word that stands for the field `gap`."""
    finite, particle, rest = german_verb(clause)
    middle = [text for name, text in german_fields(clause) if name != gap]
    return join(word, finite, *middle, particle, rest, clause.then[0])


def german_subordinate(clause: Clause, word: str, gap: str = "") -> str:
    """Verb-final after a conjunction, or after a relative or question word that stands for the field `gap`."""
    finite, particle, rest = german_verb(clause)
    if clause.verb.particle.endswith(" ") and particle:
        particle += " "
    middle = [text for name, text in german_fields(clause) if name != gap]
    return join(word, *middle, rest, particle + finite, clause.then[0])


def german_infinitive(clause: Clause, word: str = "") -> str:
    """The infinitive clause with zu, without its subject."""
    middle = [text for name, text in german_fields(clause) if name != "subject"]
    return join(word, *middle, clause.verb.zu_infinitive)
