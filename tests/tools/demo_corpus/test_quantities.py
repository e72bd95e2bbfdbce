"""Prices and clock times, read back independently."""

from __future__ import annotations

from random import Random

from tests.tools.demo_corpus.number_values import english_value, german_value
from tools.demo_corpus.grammar.times import clock
from tools.demo_corpus.sentences.quantities import price


def test_decimal_comma_and_thousands_change_over() -> None:
    rng = Random(0)
    prices = [price(rng, expensive) for expensive in (False, True) for _ in range(200)]
    swap = str.maketrans(",.", ".,")
    for german, english in prices:
        if german[0].isdigit():
            assert german.removesuffix(" Euro").translate(swap) == english.removesuffix(" euros")
        else:
            assert german_value(german.removesuffix(" Euro")) == english_value(english.removesuffix(" euros"))


def test_half_hours_name_the_next_hour_in_german() -> None:
    rng = Random(0)
    times = [clock(rng) for _ in range(400)]
    halves = [(german.split()[-1], english.split()[-1]) for german, english in times if "halb" in german]
    assert halves
    assert all(german_value(german) == english_value(english) + 1 for german, english in halves)
    assert ("um ein Uhr", "at one o'clock") in times
