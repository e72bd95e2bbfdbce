"""Numbers in words: German and English cardinals and ordinals."""

from __future__ import annotations

from tools.demo_corpus.words.text import Pair, word_list

_UNITS = word_list("null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf")
_UNITS += word_list("dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn")
_TENS = word_list("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
_ENGLISH_UNITS = word_list("zero one two three four five six seven eight nine ten eleven twelve")
_ENGLISH_UNITS += word_list("thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
_ENGLISH_TENS = word_list("twenty thirty forty fifty sixty seventy eighty ninety")


def number_words(n: int) -> Pair:
    """The cardinal in words in both languages."""
    return german_number(n), english_number(n)


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
