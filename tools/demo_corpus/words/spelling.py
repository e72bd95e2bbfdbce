"""English endings that follow from spelling or sound: plurals, past tenses, comparison, a and an, possessives."""

from __future__ import annotations

from tools.demo_corpus.words.text import Pair, syllables, word_list

_DOUBLING = frozenset(word_list("get put stop swim run sit forget plan begin big hot sad cancel travel"))


def english_s(word: str) -> str:
    """The regular -s of plurals and of the third person: box, boxes; city, cities; boy, boys."""
    if word.endswith(("s", "x", "z", "ch", "sh", "o")) and word not in {"radio", "piano"}:
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def doubled(word: str) -> str:
    """The word with its last consonant doubled where a suffix asks for it (stop, stopping)."""
    return word + word[-1] if word in _DOUBLING else word


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


def regular_comparison(adjective: str) -> Pair:
    """English comparative and superlative: -er, -est on short adjectives, more and most before long ones."""
    if syllables(adjective.removesuffix("e")) > 1 and not adjective.endswith("y"):
        return f"more {adjective}", f"most {adjective}"
    stem = adjective[:-1] + "i" if adjective.endswith("y") else doubled(adjective).removesuffix("e")
    return stem + "er", stem + "est"


def english_possessive(phrase: str, plural: bool) -> str:
    """the teacher's, the teachers', the children's."""
    return phrase + ("'" if plural and phrase.endswith("s") else "'s")
