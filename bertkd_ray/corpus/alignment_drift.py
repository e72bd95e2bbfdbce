"""The line after which two files that should be line-aligned drift apart: where the surplus of one likeliest stands.

Sentences that translate each other have similar lengths and share numbers, names and punctuation. Of all places where
the surplus could stand, in one piece, the one is taken that makes the most lines similar. Not supported: a
surplus in several places, unless one of them explains most of it.
"""

import re
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_TOKEN = re.compile(r"\d+|\w+|[^\w\s]")
_BITS = 64
_MAX_LINES = 1_000_000
"""Lines above which no place is given."""
_CERTAIN = 3.0
"""Standard errors by which both sides of the place must fit better as told than the other way."""


def drift_line(src: Iterable[str], tgt: Iterable[str]) -> int | None:
    """The last line (from 1) before the surplus, 0 if it stands at the start; None where that cannot be told."""
    long, short = _features(src), _features(tgt)
    if long is None or short is None:
        return None
    if len(long[0]) < len(short[0]):
        long, short = short, long
    count, surplus = len(short[0]), len(long[0]) - len(short[0])
    if surplus == 0 or count == 0:
        return None
    before = _similarity((long[0][:count], long[1][:count]), short)
    after = _similarity((long[0][surplus:], long[1][surplus:]), short)
    gain = before - after
    line = int(np.argmax(np.concatenate([[0.0], np.cumsum(gain)])))
    # At either end there is nothing on one side that could speak.
    is_uncertain = any(len(side) and _certainty(side) < _CERTAIN for side in (gain[:line], -gain[line:]))
    return None if is_uncertain else line


_Features = tuple[NDArray[np.float64], NDArray[np.uint64]]


def _features(lines: Iterable[str]) -> _Features | None:
    """The logarithm of every line's length, and a hash of its tokens as a set of bits."""
    lengths: list[int] = []
    masks: list[int] = []
    for line in lines:
        if len(lengths) == _MAX_LINES:
            return None
        mask = 0
        for token in _TOKEN.findall(line[:1000]):
            mask |= 1 << zlib.crc32(token.lower().encode("utf-8", "replace")) % _BITS
        lengths.append(len(line) + 1)
        masks.append(mask)
    return np.log(np.asarray(lengths, np.float64)), np.asarray(masks, np.uint64)


def _similarity(ours: _Features, theirs: _Features) -> NDArray[np.float64]:
    """Share of tokens in common, less the difference in length; one figure a line."""
    lengths, masks = ours
    common = np.bitwise_count(np.bitwise_and(masks, theirs[1]))
    every = np.bitwise_count(np.bitwise_or(masks, theirs[1]))
    return np.asarray(common / np.maximum(every, 1) - np.abs(lengths - theirs[0]), np.float64)


def _certainty(gain: NDArray[np.float64]) -> float:
    """The standard errors by which the sum lies above 0."""
    spread = float(np.sqrt(np.sum(gain**2)))
    return float(np.sum(gain)) / spread if spread else 0.0
