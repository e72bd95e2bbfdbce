"""The value of a number in words, read independently of how it was written."""

from __future__ import annotations

import re

from tools.demo_corpus.words.text import word_list


def german_value(word: str) -> int:
    """The value of a German number word, read independently of how it was written."""
    if "hundert" in word:
        hundreds, _, rest = word.partition("hundert")
        return 100 * (german_value(hundreds) if hundreds else 1) + (german_value(rest) if rest else 0)
    ones = {name: n for n, name in enumerate(word_list("ein zwei drei vier fünf sechs sieben acht neun"), 1)}
    tens = word_list("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
    irregular = {"null": 0, "eins": 1, "zehn": 10, "elf": 11, "zwölf": 12, "sechzehn": 16, "siebzehn": 17}
    table = {**ones, **irregular, **{name: 10 * n for n, name in enumerate(tens, 2)}}
    if word in table:
        return table[word]
    if word.endswith("zehn"):
        return 10 + ones[word.removesuffix("zehn")]
    unit, _, ten = word.partition("und")
    return ones[unit] + table[ten]


def english_value(words: str) -> int:
    """The value of an English number in words."""
    small = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    tens = "twenty thirty forty fifty sixty seventy eighty ninety"
    values = {name: n for n, name in enumerate(word_list(f"{small} seventeen eighteen nineteen"))}
    values |= {name: 10 * n for n, name in enumerate(word_list(tens), 2)}
    total = 0
    for word in re.split("[ -]", words):
        total = total * 100 if word == "hundred" else total + values.get(word, 0)
    return total
