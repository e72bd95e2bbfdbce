"""The line after which two files that should be line-aligned drift apart: where the surplus of one likeliest stands.

Sentences that translate each other have similar lengths and share numbers, names and punctuation. Of all places where
the surplus could stand, in one piece, the one is taken that makes the most lines similar. Not supported: a
surplus in several places, unless one of them explains most of it.
"""

import math
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
    if len(long) < len(short):
        long, short = short, long
    count, surplus = len(short), len(long) - len(short)
    if surplus == 0 or count == 0:
        return None
    gain = _similarity(long[:count], short) - _similarity(long[surplus:], short)
    line = int(np.argmax(np.concatenate([[0.0], np.cumsum(gain)])))
    # At either end there is nothing on one side that could speak.
    sides = [side for side in (gain[:line], -gain[line:]) if len(side)]
    is_uncertain = any(side.sum() <= _CERTAIN * np.linalg.norm(side) for side in sides)
    return None if is_uncertain else line


def _features(lines: Iterable[str]) -> NDArray[np.void] | None:
    """The logarithm of every line's `length`, and a hash of its `tokens` as a set of bits."""
    features: list[tuple[float, int]] = []
    for line in lines:
        if len(features) == _MAX_LINES:
            return None
        mask = 0
        for token in _TOKEN.findall(line[:1000]):
            mask |= 1 << zlib.crc32(token.lower().encode("utf-8", "replace")) % _BITS
        features.append((math.log(len(line) + 1), mask))
    return np.array(features, [("length", np.float64), ("tokens", np.uint64)])


def _similarity(ours: NDArray[np.void], theirs: NDArray[np.void]) -> NDArray[np.float64]:
    """Share of tokens in common, less the difference in length; one figure a line."""
    common = np.bitwise_count(ours["tokens"] & theirs["tokens"])
    every = np.bitwise_count(ours["tokens"] | theirs["tokens"])
    return np.asarray(common / np.maximum(every, 1) - np.abs(ours["length"] - theirs["length"]), np.float64)
