"""Undoing Moses' escapes, and which sentence pairs are admitted to training."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The characters that Moses' tokenizer escapes, since its phrase tables give them a meaning.
_MOSES_ENTITIES = {
    "&amp;": "&",
    "&#124;": "|",
    "&lt;": "<",
    "&gt;": ">",
    "&apos;": "'",
    "&quot;": '"',
    "&#91;": "[",
    "&#93;": "]",
}
_SPLIT_HYPHEN = "@-@"
_MOSES = re.compile("|".join([*map(re.escape, _MOSES_ENTITIES), rf"(?<!\S){_SPLIT_HYPHEN}(?!\S)"]))

REASONS = ("empty", "side_too_long", "pair_too_long")
ADMITTED = 0


def unescape_moses(text: str) -> str:
    """Moses-tokenised text without Moses' escapes: eight entities become characters, a stand-alone `@-@` becomes `-`.

    Entities are undone wherever they stand, once: `&amp;lt;` becomes `&lt;`. The text stays tokenised: `well @-@ known`
    becomes `well - known`. Not supported: joining punctuation and hyphens back to their words.
    """
    return _MOSES.sub(lambda match: _MOSES_ENTITIES.get(match.group(), "-"), text)


def admit(src_lengths: ArrayLike, tgt_lengths: ArrayLike, max_side: int = 150, max_pair: int = 509) -> NDArray[np.int8]:
    """Why each pair is left out: int8[n], 0 (`ADMITTED`) or 1 + the index in `REASONS` of the first that applies.

    Lengths are in tokens of the student, without BOS and EOS. `empty`: a side has none; `side_too_long`: a side has
    more than `max_side`; `pair_too_long`: both have more than `max_pair` together (BERT's 512 positions less `[CLS]`
    and two `[SEP]`).
    """
    src, tgt = np.asarray(src_lengths, np.int64), np.asarray(tgt_lengths, np.int64)
    applies = [
        np.minimum(src, tgt) == 0,
        np.maximum(src, tgt) > max_side,
        src + tgt > max_pair,
    ]
    numbers = [np.int8(number) for number in range(1, len(REASONS) + 1)]
    return np.select(applies, numbers, default=np.int8(ADMITTED))


def count_reasons(reasons: NDArray[np.int8]) -> dict[str, int]:
    """How many pairs were left out for every reason, in the order of `REASONS`, from the result of `admit`."""
    counts = np.bincount(reasons, minlength=len(REASONS) + 1)
    return {name: int(count) for name, count in zip(REASONS, counts[1:], strict=True)}
