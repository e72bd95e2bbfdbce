"""Tables written as text, and what is read from them: one entry a line, fields between `|`, pairs around `=`."""

from __future__ import annotations

import re

Pair = tuple[str, str]  # (German, English)
Sentence = tuple[str, str, str]  # (German, English, final mark), both sides without capital and mark


def word_list(text: str) -> list[str]:
    """The words of a list written as running text."""
    return text.split()


def entries(table: str) -> list[list[str]]:
    """The non-empty lines of a table, each split at `|` and stripped."""
    return [[field.strip() for field in line.split("|")] for line in table.splitlines() if line.strip()]


def parse_pairs(table: str) -> list[Pair]:
    """Lines of the form `German = English`."""
    return [
        (left.strip(), right.strip()) for left, _, right in (line.partition("=") for line in table.split("\n")) if right
    ]


def join(*parts: str) -> str:
    """The non-empty parts with single spaces between them."""
    return " ".join(part for part in parts if part)


def syllables(word: str) -> int:
    """The number of groups of vowels in a word of either language."""
    return len(re.findall("[aeiouyäöü]+", word.lower()))
