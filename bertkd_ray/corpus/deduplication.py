"""Duplicates, and overlap with test, over a corpus of any size: by 128-bit hashes, a bucket of them at a time.

Each task writes the hashes of its pairs to one file, cut by the hash into buckets (row groups). A bucket holds about
`BUCKET_HASHES` hashes, those of equal sentences among them; it is read from all files, sorted, and says which pairs
are dropped. No process holds more than one bucket. What is dropped depends on the input's order alone, never on the
order in which tasks end. Two different sentences have the same hash with a probability of n² / 2^129 for n pairs.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BUCKET_HASHES = 1 << 20
TEST_SENTENCE, SENTENCE, PAIR = range(3)
"""Kinds of hashes: of a source sentence of test, of one of train or valid, of a pair. The first two are compared."""
OVERLAP, DUPLICATE = 1, 2
"""Reasons to drop a pair; both may apply to one."""

HASHES = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), ("place", pa.int64()), ("kind", pa.uint8())])
"""A row is a hash in two halves, the position of its pair (ascending with the input) and its kind."""
DROPS = pa.schema([("place", pa.int64()), ("reason", pa.uint8())])


def hash_sentences(src: Sequence[str], positions: NDArray[np.int64], *, is_test: bool) -> pa.Table:
    """Hashes of normalised source sentences, whatever their case, with the schema `HASHES`."""
    texts = (text.casefold() for text in src)
    return _hashes(texts, positions, TEST_SENTENCE if is_test else SENTENCE, "sentence")


def hash_pairs(src: Sequence[str], tgt: Sequence[str], positions: NDArray[np.int64], split: str) -> pa.Table:
    """Hashes of normalised pairs, with the schema `HASHES`; those of different splits are never equal."""
    # Normalised text holds no line feed.
    texts = (f"{src_text}\n{tgt_text}" for src_text, tgt_text in zip(src, tgt, strict=True))
    return _hashes(texts, positions, PAIR, split)


def bucket_count(hashes: int) -> int:
    """The number of buckets for a number of hashes."""
    return max(1, -(-hashes // BUCKET_HASHES))


def split_into_buckets(hashes: Sequence[pa.Table], count: int) -> list[pa.Table]:
    """One table with the schema `HASHES` a bucket, perhaps empty."""
    table = pa.concat_tables([HASHES.empty_table(), *hashes])
    bucket = ((table["high"].to_numpy() >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)
    order = np.argsort(bucket, kind="stable")
    table = table.take(pa.array(order))
    ends = np.searchsorted(bucket[order], np.arange(count + 1, dtype=np.uint64))
    return [table.slice(start, end - start) for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]


def find_duplicates(bucket: pa.Table) -> pa.Table:
    """The pairs of a whole bucket that are dropped, with the schema `DROPS`, sorted by position.

    Of equal pairs all but the first are dropped, of sentences equal to one of test all.
    """
    high, low, position, kind = (bucket[name].to_numpy() for name in HASHES.names)
    order = np.lexsort((position, kind, low, high))
    high, low, position, kind = high[order], low[order], position[order], kind[order]
    repeats = np.zeros(len(order), dtype=bool)
    repeats[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    # Sentences of test stand first among their equals.
    first_kind = kind[np.maximum.accumulate(np.where(repeats, 0, np.arange(len(order))))]
    overlaps = (kind == SENTENCE) & (first_kind == TEST_SENTENCE)
    duplicates = (kind == PAIR) & repeats
    positions = np.concatenate([position[overlaps], position[duplicates]])
    reasons = np.repeat(np.array([OVERLAP, DUPLICATE], np.uint8), [overlaps.sum(), duplicates.sum()])
    by_position = np.argsort(positions, kind="stable")
    return pa.table([positions[by_position], reasons[by_position]], schema=DROPS)


def _hashes(texts: Iterable[str], positions: NDArray[np.int64], kind: int, person: str) -> pa.Table:
    # `person` keeps the hashes of unlike things apart.
    key = person.encode()
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16, person=key).digest() for text in texts)
    halves = np.frombuffer(digests, "<u8").reshape(-1, 2)
    kinds = np.full(len(positions), kind, np.uint8)
    return pa.table([halves[:, 0], halves[:, 1], positions, kinds], schema=HASHES)
