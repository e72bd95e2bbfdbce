from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pyarrow as pa
import pytest

from bertkd_ray.corpus import deduplication
from bertkd_ray.corpus.deduplication import (
    DUPLICATE,
    HASHES,
    OVERLAP,
    PAIR,
    SENTENCE,
    TEST_SENTENCE,
    bucket_count,
    find_duplicates,
    hash_pairs,
    hash_sentences,
    split_into_buckets,
)


def bucket(rows: list[tuple[int, int, int, int]]) -> pa.Table:
    return pa.table([[row[column] for row in rows] for column in range(4)], schema=HASHES)


def dropped(rows: list[tuple[int, int, int, int]]) -> list[tuple[int, int]]:
    return [(row["place"], row["reason"]) for row in find_duplicates(bucket(rows)).to_pylist()]


def test_of_equal_pairs_the_first_is_kept_in_whatever_order_they_come() -> None:
    rows = [(5, 7, 30, PAIR), (5, 7, 10, PAIR), (5, 8, 11, PAIR), (6, 7, 12, PAIR), (5, 7, 20, PAIR)]
    for turn in range(len(rows)):
        assert dropped(rows[turn:] + rows[:turn]) == [(20, DUPLICATE), (30, DUPLICATE)]


def test_sentences_of_test_drop_all_their_equals_wherever_they_stand() -> None:
    rows = [(9, 9, 1, SENTENCE), (9, 9, 50, TEST_SENTENCE), (9, 9, 60, TEST_SENTENCE), (9, 9, 70, SENTENCE)]
    others = [(9, 8, 2, SENTENCE), (9, 8, 3, SENTENCE), (8, 9, 4, TEST_SENTENCE)]
    assert dropped(others + rows) == [(1, OVERLAP), (70, OVERLAP)]


def test_the_last_bit_of_either_half_tells_hashes_apart() -> None:
    top = (1 << 64) - 1
    rows = [(top, top, 0, PAIR), (top - 1, top, 1, PAIR), (top, top - 1, 2, PAIR), (top, top, 3, PAIR)]
    assert dropped(rows) == [(3, DUPLICATE)]
    assert dropped([]) == []


def test_hashes_of_unlike_things_differ() -> None:
    place = np.array([0], np.int64)
    found = [
        hash_pairs(["a"], ["b"], place, "train"),
        hash_pairs(["a"], ["b"], place, "valid"),
        hash_pairs(["a b"], [""], place, "train"),
        hash_pairs(["b"], ["a"], place, "train"),
        hash_sentences(["a"], place, is_test=False),
    ]
    assert len({(one["high"][0].as_py(), one["low"][0].as_py()) for one in found}) == len(found)


def test_sentences_of_test_and_train_have_the_same_hash_whatever_their_case() -> None:
    place = np.array([3], np.int64)
    test, train = (
        hash_sentences(["Zwei HUNDE"], place, is_test=True),
        hash_sentences(["zwei Hunde"], place, is_test=False),
    )
    assert (test["high"], test["low"]) == (train["high"], train["low"])
    assert [table["kind"].to_pylist() for table in (test, train)] == [[TEST_SENTENCE], [SENTENCE]]
    lower, upper = (hash_pairs([text], ["x"], place, "train") for text in ("zwei Hunde", "Zwei HUNDE"))
    assert (lower["high"], lower["low"]) != (upper["high"], upper["low"])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_buckets_partition_the_hashes_by_their_high_half(count: int) -> None:
    draw = np.random.default_rng(0)
    high, low = (draw.integers(0, 1 << 64, 1000, dtype=np.uint64) for _ in range(2))
    high[:2] = [0, (1 << 64) - 1]
    parts = [slice(0, 400), slice(400, 1000)]
    kind = np.full(1000, PAIR, np.uint8)
    hashes = pa.table([high, low, np.arange(1000), kind], schema=HASHES)
    buckets = split_into_buckets([hashes[part] for part in parts], count)
    assert len(buckets) == count
    tops = [table["high"].to_numpy() for table in buckets]
    assert sorted(np.concatenate(tops).tolist()) == sorted(high.tolist())
    for one, other in pairwise(tops):
        assert one.max() < other.min()
    assert abs(len(tops[0]) - 1000 / count) < 100
    assert [len(table) for table in split_into_buckets([], count)] == [0] * count


def test_a_bucket_has_a_bounded_number_of_hashes() -> None:
    size = deduplication.BUCKET_HASHES
    assert [bucket_count(n) for n in (0, 1, size, size + 1, 20_000_000)] == [1, 1, 1, 2, 20]


def test_buckets_together_drop_what_a_set_of_texts_would() -> None:
    draw = np.random.default_rng(1)
    texts = [f"{a}{b}" for a, b in product("abcde", repeat=2)]
    src, tgt = ([texts[i] for i in draw.integers(0, 25, 600)] for _ in range(2))
    hashes = [hash_pairs(src[s:e], tgt[s:e], np.arange(s, e), "train") for s, e in ((0, 250), (250, 600))]
    found = pa.concat_tables([find_duplicates(table) for table in split_into_buckets(hashes, 5)])
    seen: set[tuple[str, str]] = set()
    expected = [n for n, pair in enumerate(zip(src, tgt, strict=True)) if pair in seen or seen.add(pair)]
    assert sorted(found["place"].to_pylist()) == expected
