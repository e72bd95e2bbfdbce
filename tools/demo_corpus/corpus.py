"""The demo corpus: German-English sentence pairs written by a small synchronous grammar.

What it is. A clause is drawn once, as a verb with its subject, objects and adverbials, and then spelled out twice, by
the word order and inflection of each language. The German side has verb-second, verb-first and verb-final clauses,
separable verbs, four cases, three adjective declensions, two-way prepositions, compounds, relative clauses that wait
for the verb bracket, modals, passives, and numbers in words and digits. English tense follows from the German context
(*morgen* asks for "will", *jeden Tag* for the simple present, no adverbial for the progressive, *seit* for the
perfect), pronouns follow their antecedent (*der Tisch ... er* is "it"), and some verbs exchange subject and object
(*gefallen*, "like"). A table of words does not translate it, and a small Transformer learns it only by generalising.

Source and licence. Both the words and the rules were written for this project, under its licence; no text was copied.

Limits. About 500 German lemmas and 150 compounds, everyday topics, British spelling, "do not" never contracted. One
fixed translation for each sentence, where a translator would have choices; formal, informal and plural "you" become one
word. Sentences are grammatical but were not checked for good sense, and do not follow from one another: BLEU on this
text says that the pipeline works, not that a system translates German.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from tools.demo_corpus.grammar.drawing import draw
from tools.demo_corpus.sentences.coordination import coordination, correction, reference
from tools.demo_corpus.sentences.imperatives import imperative
from tools.demo_corpus.sentences.impersonal import existence, experience, feeling
from tools.demo_corpus.sentences.infinitives import infinitive_clause, purpose
from tools.demo_corpus.sentences.passives import passive
from tools.demo_corpus.sentences.predicates import comparison, predicate
from tools.demo_corpus.sentences.quantities import age_or_year, priced, timetable
from tools.demo_corpus.sentences.questions import indirect_question, question, wh_question
from tools.demo_corpus.sentences.relatives import with_relative
from tools.demo_corpus.sentences.statements import genitive_preposition, simple
from tools.demo_corpus.sentences.subordination import (
    after,
    conditional,
    reason,
    so_that,
    temporal_past,
    temporal_present,
    that_clause,
    whenever,
)
from tools.demo_corpus.words.text import Pair, Sentence

# Each kind of sentence and how often it is drawn.
_KINDS: list[tuple[Callable[[Random], Sentence], int]] = [
    (simple, 26),
    (with_relative, 9),
    (reason, 8),
    (temporal_present, 5),
    (whenever, 1),
    (temporal_past, 5),
    (after, 2),
    (so_that, 2),
    (that_clause, 6),
    (indirect_question, 4),
    (infinitive_clause, 5),
    (purpose, 4),
    (conditional, 2),
    (question, 5),
    (wh_question, 7),
    (imperative, 7),
    (passive, 6),
    (predicate, 6),
    (comparison, 5),
    (priced, 3),
    (age_or_year, 3),
    (timetable, 3),
    (existence, 3),
    (experience, 4),
    (feeling, 1),
    (genitive_preposition, 3),
    (reference, 7),
    (coordination, 5),
    (correction, 2),
]
_DRAWN_KINDS = [kind for kind, weight in _KINDS for _ in range(weight)]
_BEFORE_MARK = re.compile(r"\s+([,.?!])")
_REPEATED_COMMA = re.compile(r"(,\s*)+,")
_COMMA_BEFORE_END = re.compile(r",+([.?!])$")


def punctuated(text: str, mark: str) -> str:
    """The sentence with a capital, its final mark, and commas that touch the word before and stand once."""
    text = _BEFORE_MARK.sub(r"\1", f"{text}{mark}")
    text = _COMMA_BEFORE_END.sub(r"\1", _REPEATED_COMMA.sub(",", text))
    return text[0].upper() + text[1:]


def draw_pair(rng: Random) -> Pair:
    """One sentence pair of a random kind, each side 4 to 25 words long."""
    while True:
        german, english, mark = draw(rng, _DRAWN_KINDS)(rng)
        pair = punctuated(german, mark), punctuated(english.replace("can not ", "cannot "), mark)
        if all(4 <= side.count(" ") + 1 <= 25 for side in pair):
            return pair


MOST_PAIRS = 100_000


def demo_corpus(seed: int = 1, train: int = 4000, valid: int = 1000, test: int = 3000) -> dict[str, list[Pair]]:
    """German-English sentence pairs under "train", "valid" and "test", the same for the same arguments.

    All pairs are distinct; moreover no German and no English sentence occurs twice, letter case aside, so that nothing
    of valid or test stands in train. Raises ValueError for negative sizes, and for more pairs than the grammar writes.
    """
    for name, size in {"train": train, "valid": valid, "test": test}.items():
        if size < 0:
            raise ValueError(f"demo corpus: {name} is {size}; give a number of pairs that is not negative")
    wanted = train + valid + test
    if wanted > MOST_PAIRS:
        raise ValueError(f"demo corpus: {wanted} pairs asked for; the grammar is good for {MOST_PAIRS}, ask for fewer")
    rng = Random(seed)
    pairs: list[Pair] = []
    seen_german: set[str] = set()
    seen_english: set[str] = set()
    while len(pairs) < wanted:
        pair = draw_pair(rng)
        german, english = pair[0].casefold(), pair[1].casefold()
        if german not in seen_german and english not in seen_english:
            seen_german.add(german)
            seen_english.add(english)
            pairs.append(pair)
    return {"train": pairs[:train], "valid": pairs[train : train + valid], "test": pairs[train + valid :]}
