"""Moses' text form: its escapes, and its tokenizer and detokenizer as sacremoses ports them, with Perl's classes.

Checked against the original scripts (mosesdecoder's `tokenizer.perl` without options, `detokenizer.perl`) on the 99,294
lines of Multi30k and of detokenised IWSLT14, German and English: both give the same on every line. The lines of IWSLT14
as the original recipe left them come back from `tokenise(detokenise(line))` in 37,252 of 37,266 cases when the case
after full stops is restored (`tests/corpus/test_moses.py`); what a detokenizer cannot know (`. .` against `..`) is the
rest.

Not supported: `-a` (aggressive hyphen splitting) on the way in, protected patterns, Penn tokens, and the rules of the
newer scripts for Catalan, Finnish, Irish, Somali, Swedish and Tetum.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:  # compiles hundreds of expressions as it is imported
    from sacremoses import MosesDetokenizer, MosesTokenizer

# The characters that Moses' tokenizer escapes, since its phrase tables give them a meaning.
_ESCAPES = {
    "&": "&amp;",
    "|": "&#124;",
    "<": "&lt;",
    ">": "&gt;",
    "'": "&apos;",
    '"': "&quot;",
    "[": "&#91;",
    "]": "&#93;",
}
_CHARACTERS = {entity: character for character, entity in _ESCAPES.items()}
_ESCAPE_TABLE = str.maketrans(_ESCAPES)
_SPLIT_HYPHEN = "@-@"
_ESCAPED = re.compile("|".join([*map(re.escape, _CHARACTERS), rf"(?<!\S){_SPLIT_HYPHEN}(?!\S)"]))

# Perl's \s does not match them, so Moses deletes them; Python's matches the last four, so sacremoses makes them spaces.
_ASCII_CONTROL = re.compile("[\x00-\x08\x0e-\x1f]")
_NOT_ALNUM, _ALPHA, _LOWER = map(regex.compile, (r"([^\p{Alnum}\s.'`,\-])", r"\p{Alpha}", r"\p{Lower}*"))
_FINAL_STOP = re.compile(r"(?<=[^\s.])\.$")


def unescape_moses(text: str) -> str:
    """Moses-tokenised text without Moses' escapes: eight entities become characters, a stand-alone `@-@` becomes `-`.

    Entities are undone wherever they stand, once: `&amp;lt;` becomes `&lt;`. The text stays tokenised: `well @-@ known`
    becomes `well - known`. Not supported: joining punctuation and hyphens back to their words (`detokenise` does the
    former; which hyphens were split is no longer seen).
    """
    return _ESCAPED.sub(lambda match: _CHARACTERS.get(match.group(), "-"), text)


def escape_moses(text: str) -> str:
    """The inverse of `unescape_moses` on text that Moses' tokenizer wrote, except for `@-@`, which stays `-`."""
    return text.translate(_ESCAPE_TABLE)


def tokenise(text: str, lang: str) -> str:
    """A line of text as Moses' tokenizer writes it, escapes included; `lang` (ISO 639-1) chooses abbreviations.

    Three things are corrected in sacremoses. The full stop of a line's last word is a token of its own, as in the
    scripts that wrote IWSLT14 (`in the U.S .`, `die Nummer 28 .`), where sacremoses leaves it at abbreviations and
    numbers; ASCII control characters are deleted; and letters are what Unicode calls so, in every script.
    """
    tokens: str = _tokenizer(lang).tokenize(_ASCII_CONTROL.sub("", text), return_str=True)
    return _FINAL_STOP.sub(" .", tokens.strip())


def detokenise(text: str, lang: str) -> str:
    """Raw text from Moses tokens without escapes (`unescape_moses`): punctuation joins its words, `a @-@ b` is `a-b`.

    `lang` (ISO 639-1) decides on apostrophes and quotes. What tokenising lost cannot come back: whether white space
    stood around symbols and dashes (`and/or` was `and / or`, and stays so).
    """
    raw: str = _detokenizer(lang).detokenize(text.split(), unescape=False)
    return raw


def to_raw(texts: Iterable[str], text: str, lang: str) -> list[str]:
    """Sentences of a corpus as people write them, to be scored and read.

    text: the corpus's form (`corpus.text`): `moses` and `paper` are detokenised, `raw` is what it was. lang: of the
    sentences.
    """
    return list(texts) if text == "raw" else [detokenise(line, lang) for line in texts]


def from_raw(texts: Iterable[str], text: str, lang: str) -> list[str]:
    """Sentences that people wrote as a corpus of this form has them, for its student to read; `to_raw`'s inverse."""
    if text == "raw":
        return list(texts)
    return from_tokens((tokenise(line, lang) for line in texts), text)


def from_tokens(texts: Iterable[str], text: str) -> list[str]:
    """Moses-tokenised sentences, escapes included, as a corpus of the form `moses` or `paper` has them."""
    lines = [unescape_moses(line) for line in texts]
    return [lower(line) for line in lines] if text == "paper" else lines


def lower(text: str) -> str:
    """Lower-cased text as Perl's `lc`, which knows no final sigma, leaves it."""
    return text.replace("Σ", "σ").lower()


@lru_cache
def _detokenizer(lang: str) -> MosesDetokenizer:
    from sacremoses import MosesDetokenizer

    return MosesDetokenizer(lang)


@lru_cache
def _tokenizer(lang: str) -> MosesTokenizer:
    """Moses' tokenizer with Unicode's letters, as Perl knows them; sacremoses has lists that lack whole scripts."""
    from sacremoses import MosesTokenizer

    tokenizer = MosesTokenizer(lang)
    tokenizer.PAD_NOT_ISALNUM = _NOT_ALNUM, r" \1 "
    tokenizer.isanyalpha, tokenizer.islower = _ALPHA.search, _LOWER.fullmatch
    return tokenizer
