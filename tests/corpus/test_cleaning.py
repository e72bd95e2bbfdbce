from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bertkd_ray.config.corpus import CleanConfig
from bertkd_ray.core.keyed_random import keyed_uniform
from bertkd_ray.corpus import cleaning
from bertkd_ray.corpus.cleaning import (
    KEPT,
    TEXT_REASONS,
    TOKEN_REASONS,
    copies,
    count_odd_lines,
    count_reasons,
    filter_by_length,
    filter_by_text,
    held_out_splits,
)


def test_admission_names_the_first_reason() -> None:
    reasons = filter_by_length([1, 0, 150, 151, 5, 300, 255], [1, 5, 150, 5, 151, 300, 1], max_side=150)
    assert reasons.dtype == np.int8
    names = [None if reason == KEPT else TOKEN_REASONS[reason - 1] for reason in reasons]
    long = "side_too_long"
    assert names == [None, None, None, long, long, long, long]
    assert count_reasons(reasons, TOKEN_REASONS) == {"side_too_long": 4, "pair_too_long": 0}


def test_a_pair_may_be_too_long_together() -> None:
    reasons = filter_by_length(np.array([255, 255, 400]), np.array([254, 255, 109]), max_side=400)
    assert reasons.tolist() == [KEPT, 1 + TOKEN_REASONS.index("pair_too_long"), KEPT]
    assert filter_by_length([3], [3], max_side=3, max_pair=5).tolist() == [2]


def test_no_pairs() -> None:
    reasons = filter_by_length(np.empty(0, np.int32), np.empty(0, np.int32))
    assert reasons.shape == (0,)
    assert count_reasons(reasons, TOKEN_REASONS) == {"side_too_long": 0, "pair_too_long": 0}
    assert filter_by_text(pa.array([], pa.string()), pa.array([], pa.string()), CleanConfig()).tolist() == []


def drop_reasons(pairs: list[tuple[str, str]], **rules: object) -> list[str | None]:
    src, tgt = zip(*pairs, strict=True)
    reasons = filter_by_text(pa.array(src), pa.array(tgt), CleanConfig.model_validate(rules))
    return [None if reason == KEPT else TEXT_REASONS[reason - 1] for reason in reasons]


PAIRS = [("a b c", "a b c"), ("a", "x y z"), ("", "x"), ("x", ""), ("", ""), ("ä ö", "中"), ("a b c d", "v w x y")]


@pytest.mark.parametrize(
    ("rules", "dropped"),
    [
        ({}, {2: "empty", 3: "empty", 4: "empty"}),
        ({"identical_sides": True}, {0: "identical_sides", 2: "empty", 3: "empty", 4: "empty"}),
        ({"min_words": 1}, {2: "empty", 3: "empty", 4: "empty"}),
        ({"min_words": 2}, {1: "too_few_words", 2: "empty", 3: "empty", 4: "empty", 5: "too_few_words"}),
        ({"max_words": 3}, {2: "empty", 3: "empty", 4: "empty", 6: "too_many_words"}),
        ({"max_ratio": 2}, {1: "length_ratio", 2: "empty", 3: "empty", 4: "empty"}),
        ({"max_ratio": 3.0}, {2: "empty", 3: "empty", 4: "empty"}),
        (
            {"identical_sides": True, "min_words": 2, "max_words": 2, "max_ratio": 1},
            {
                0: "identical_sides",
                1: "too_few_words",
                2: "empty",
                3: "empty",
                4: "empty",
                5: "too_few_words",
                6: "too_many_words",
            },
        ),
    ],
)
def test_every_rule_drops_what_it_says(rules: dict[str, object], dropped: dict[int, str]) -> None:
    assert drop_reasons(PAIRS, **rules) == [dropped.get(row) for row in range(len(PAIRS))]


def test_rules_read_slices_of_arrays() -> None:
    src, tgt = pa.array(["x", "a", "a b"])[1:], pa.array(["x", "a", "b"])[1:]
    assert filter_by_text(src, tgt, CleanConfig(identical_sides=True, max_ratio=1)).tolist() == [2, 5]


def test_odd_lines_are_counted() -> None:
    lines = ["plain", "e\u0301cole", "école", "a\tb\u2028c", "\x07bell", "e\u0301\x00", "\x9f"]
    assert count_odd_lines(lines) == {"not_nfc": 2, "control_characters": 3, "zero_width": 0, "invisible": 0}
    odd = ["\ufeffa", "so\xadft", "\u200b", " \u200e ", "", " ", "نمی\u200cخواهم", "👩\u200d👩"]
    assert count_odd_lines(odd) == {"not_nfc": 0, "control_characters": 0, "zero_width": 3, "invisible": 2}


def test_held_out_shares_are_what_was_asked_and_depend_on_the_sentence_alone() -> None:
    src = [f"Satz {number}" for number in range(20_000)]
    splits = held_out_splits(src, {"valid": 0.1, "test": 0.02})
    valid, test = np.mean(splits == 1), np.mean(splits == 2)
    # Four standard deviations of a share of 20,000 draws.
    assert abs(valid - 0.1) < 4 * (0.1 * 0.9 / 20_000) ** 0.5
    assert abs(test - 0.02) < 4 * (0.02 * 0.98 / 20_000) ** 0.5
    assert held_out_splits([text.upper() for text in reversed(src)], {"valid": 0.1, "test": 0.02})[::-1].tolist() == (
        splits.tolist()
    )
    # A larger share holds the smaller one.
    larger = held_out_splits(src, {"valid": 0.2, "test": 0.02})
    assert np.all(larger[splits == 1] == 1)
    assert not held_out_splits(src, {}).any()


def test_the_pairs_held_out_for_test_are_the_same_whatever_is_held_out_for_valid() -> None:
    src = [f"Satz {number}" for number in range(5_000)]
    splits = {valid: held_out_splits(src, {"valid": valid, "test": 0.1}) for valid in (0.05, 0.3, 0.85)}
    alone = held_out_splits(src, {"test": 0.1}) == 1
    assert all(np.array_equal(split == 2, alone) for split in splits.values())
    assert np.array_equal(held_out_splits(src, {"valid": 0.05, "test": 0.4}) == 1, splits[0.05] == 1)
    # A larger share holds the smaller one here too.
    assert np.all(splits[0.3][splits[0.05] == 1] == 1)


def test_case_folding_does_not_depend_on_the_form_of_sigma() -> None:
    shares = {"valid": 0.5}
    for number in range(50):
        forms = [f"ΣΟΦΟΣ {number} STRASSE", f"σοφος {number} strasse", f"σοφοσ {number} straße"]
        assert len(set(held_out_splits(forms, shares).tolist())) == 1


def test_copies_follow_the_weights_of_the_sources() -> None:
    lines = np.arange(4000)
    ids = np.concatenate([lines, (1 << 40) + lines, (2 << 40) + lines])
    times = copies(ids, [2.5, 1.0, 0.25])
    first, second, third = times[:4000], times[4000:8000], times[8000:]
    assert set(first.tolist()) == {2, 3}
    assert set(second.tolist()) == {1}
    assert set(third.tolist()) == {0, 1}
    drawn = keyed_uniform(cleaning._WEIGHT_KEY, ids)
    assert np.array_equal(first == 3, drawn[:4000] < 0.5)
    assert np.array_equal(third == 1, drawn[8000:] < 0.25)
    assert abs(np.mean(first) - 2.5) < 4 * 0.5 / 4000**0.5
    # Another weight of another source changes nothing.
    assert np.array_equal(copies(ids, [2.5, 7.0, 0.25])[:4000], first)
    assert copies(ids, [1.0, 1.0, 1.0]).tolist() == [1] * 12_000
