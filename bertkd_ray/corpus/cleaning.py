"""The rules that drop sentence pairs from training, and the choice of those held out of it.

Every rule depends on one normalised pair alone, so that equal pairs are treated alike; what needs all of the text
(duplicates, overlap with test) is `corpus.deduplication`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from bertkd_ray.config.corpus import CleanConfig
from bertkd_ray.core.keyed_random import keyed_uniform
from bertkd_ray.corpus.segmentation import CONTROL, is_plain

TEXT_REASONS = ("empty", "identical_sides", "too_few_words", "too_many_words", "length_ratio")
WHOLE_REASONS = ("test_overlap", "duplicate")
TOKEN_REASONS = ("side_too_long", "pair_too_long")
REASONS = (*TEXT_REASONS, *WHOLE_REASONS, *TOKEN_REASONS)
"""The reasons in the order of the rules: a pair is counted under the first that applies."""
KEPT = 0

ID_SOURCE_BITS, ID_COPY_BITS = 40, 56
"""An id is `copy << 56 | source << 40 | line`: the line's position in its source, the source's in the list of train."""
ID_MONOLINGUAL_BIT = 55
"""Set in the ids of monolingual text, whose sources are numbered for themselves; no list of train is so long."""
_CONTROL = re.compile(f"[{CONTROL}]")
_ZERO_WIDTH = re.compile("[\xad\u200b\u2060\ufeff]")  # not joiners and marks of direction, which have a meaning
_WEIGHT_KEY = 0x77656967  # sets these draws apart from those keyed by (seed, epoch, id)


def filter_by_length(
    src_lengths: ArrayLike, tgt_lengths: ArrayLike, max_side: int = 150, max_pair: int = 509
) -> NDArray[np.int8]:
    """The reason why each pair is too long: int8[n], 0 (`KEPT`) or 1 + the index of the first in `TOKEN_REASONS`.

    Lengths are in tokens of the student, without BOS and EOS. `side_too_long`: a side has more than `max_side`;
    `pair_too_long`: both have more than `max_pair` together (BERT's 512 positions less `[CLS]` and two `[SEP]`).
    """
    src, tgt = np.asarray(src_lengths, np.int64), np.asarray(tgt_lengths, np.int64)
    return _first([np.maximum(src, tgt) > max_side, src + tgt > max_pair])


def filter_by_text(src: pa.ChunkedArray, tgt: pa.ChunkedArray, clean: CleanConfig) -> NDArray[np.int8]:
    """The reason why each normalised pair is dropped for its text: int8[n], 0 or 1 + the index in `TEXT_REASONS`."""
    src_words, tgt_words = word_counts(src), word_counts(tgt)
    shorter, longer = np.minimum(src_words, tgt_words), np.maximum(src_words, tgt_words)
    never = np.zeros(len(shorter), dtype=bool)
    return _first(
        [
            shorter == 0,
            pc.equal(src, tgt).to_numpy(zero_copy_only=False) if clean.identical_sides else never,
            shorter < clean.min_words if clean.min_words else never,
            longer > clean.max_words if clean.max_words else never,
            longer > clean.max_ratio * shorter if clean.max_ratio else never,
        ]
    )


def count_reasons(reasons: NDArray[np.int8], names: Sequence[str]) -> dict[str, int]:
    """Dropped pairs by reason, from the result of `filter_by_length` or `filter_by_text`."""
    counts = np.bincount(reasons, minlength=len(names) + 1)
    return {name: int(count) for name, count in zip(names, counts[1:], strict=True)}


def count_odd_lines(lines: Sequence[str]) -> dict[str, int]:
    """Raw lines that may want a look: not in Unicode NFC, with control characters, with characters of no width that no
    script needs, and with nothing visible at all.
    """
    lines = [line for line in lines if not is_plain(line)]
    return {
        "not_nfc": sum(not unicodedata.is_normalized("NFC", line) for line in lines),
        "control_characters": sum(_CONTROL.search(line) is not None for line in lines),
        "zero_width": sum(_ZERO_WIDTH.search(line) is not None for line in lines),
        "invisible": sum(
            _CONTROL.sub("", line).strip() != "" and all(unicodedata.category(letter)[0] in "CZ" for letter in line)
            for line in lines
        ),
    }


def held_out_splits(src: Sequence[str], shares: Mapping[str, float]) -> NDArray[np.int8]:
    """The split that each pair of train belongs to: int8[n], 0 for train, else 1 + the index in `shares`.

    Chosen by a hash of the normalised source sentence in lower case, so that equal sentences, whatever their case,
    stand on one side of every border, for every seed and wherever they stand in the input. Of two splits the last has
    the hashes from 0 upwards and the other those from 1 downwards, so that neither's share changes the other's pairs.
    """
    if not shares:
        return np.zeros(len(src), dtype=np.int8)
    digests = b"".join(hashlib.blake2b(text.casefold().encode(), digest_size=8).digest() for text in src)
    drawn = np.frombuffer(digests, "<u8") * 2.0**-64
    *others, last = shares.values()
    split = np.where(drawn < last, len(shares), 0)
    return np.where(drawn >= 1 - others[0], 1, split).astype(np.int8) if others else split.astype(np.int8)


def copies(ids: NDArray[np.int64], weights: Sequence[float]) -> NDArray[np.int64]:
    """The repetitions of each pair of train: int64[n], its source's weight rounded down or up by a hash of its id."""
    if all(weight == 1.0 for weight in weights):
        return np.ones(len(ids), dtype=np.int64)
    weight = np.asarray(weights, np.float64)[ids >> ID_SOURCE_BITS]
    whole = np.floor(weight)
    return np.asarray(whole + (keyed_uniform(_WEIGHT_KEY, ids) < weight - whole), np.int64)


def word_counts(lines: pa.ChunkedArray) -> NDArray[np.int64]:
    """int64[n], the words of every normalised line, in which one space stands between two words."""
    spaces = pc.count_substring(lines, " ").to_numpy(zero_copy_only=False)
    return np.asarray(spaces + pc.greater(pc.binary_length(lines), 0).to_numpy(zero_copy_only=False), np.int64)


def _first(applies: Sequence[NDArray[np.bool_]]) -> NDArray[np.int8]:
    return np.select(applies, list(range(1, len(applies) + 1)), KEPT).astype(np.int8)
