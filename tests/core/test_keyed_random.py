"""Random numbers that depend on their key alone: an independent SplitMix64, order, and uniformity."""

from __future__ import annotations

import numpy as np
import pytest

from bertkd_ray.core.keyed_random import keyed_bits, keyed_permutation, keyed_seed, keyed_uniform

_64 = 2**64 - 1


def splitmix64(state: int) -> int:
    """Steele, Lea and Flood (OOPSLA 2014), figure 17, in Python's whole numbers."""
    z = (state + 0x9E3779B97F4A7C15) & _64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _64
    return z ^ (z >> 31)


def test_the_mixer_gives_the_published_numbers():
    # The first outputs of java.util.SplittableRandom(0) and of every other SplitMix64 seeded with 0.
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert splitmix64(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4


@pytest.mark.parametrize("key", [(0,), (1, 2, 3), (-1,), (2**63 - 1, -(2**63)), (7, 0, 7)])
def test_bits_are_the_mixed_parts_one_after_another(key):
    state = 0
    for part in key:
        state = splitmix64(state ^ splitmix64(part & _64))
    assert keyed_bits(*key).tolist() == [state]


def test_parts_broadcast_and_an_array_is_its_elements():
    ids = np.asarray([4, 9, 4])
    together = keyed_bits(1, 2, ids)
    assert together.dtype == np.uint64
    assert together.tolist() == [int(keyed_bits(1, 2, number)[0]) for number in (4, 9, 4)]
    grid = keyed_bits(np.arange(3)[:, None], np.arange(4))
    assert grid.shape == (3, 4)
    assert grid[2, 1] == keyed_bits(2, 1)[0]
    assert len(keyed_bits(1, np.zeros(0, np.int64))) == 0


def test_the_order_and_the_number_of_the_parts_count():
    keys = [(1, 2), (2, 1), (1, 2, 0), (0, 1, 2), (1,), (2,), (3,)]
    assert len({int(keyed_bits(*key)[0]) for key in keys}) == len(keys)


def test_uniform_numbers_are_spread_evenly_and_independently_of_neighbouring_keys():
    numbers = keyed_uniform(1, 0, np.arange(100_000))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    # Five standard deviations of the mean of 100,000, and of a count with p = 1/10.
    assert abs(numbers.mean() - 0.5) < 5 * 12**-0.5 / 100_000**0.5
    counts = np.histogram(numbers, bins=10, range=(0, 1))[0]
    assert abs(counts - 10_000).max() < 5 * (100_000 * 0.1 * 0.9) ** 0.5
    other = keyed_uniform(1, 1, np.arange(100_000))
    assert abs(np.corrcoef(numbers, other)[0, 1]) < 5 / 100_000**0.5
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 5 / 100_000**0.5


def test_uniform_is_the_upper_53_bits():
    bits = int(keyed_bits(3, 4)[0])
    assert keyed_uniform(3, 4).tolist() == [(bits >> 11) / 2**53]


def test_a_seed_has_63_bits():
    assert keyed_seed(5, 6) == int(keyed_bits(5, 6)[0]) >> 1
    assert all(0 <= keyed_seed(index) < 2**63 for index in range(100))


def test_a_permutation_depends_on_its_key_alone():
    order = keyed_permutation(50, 1, 2)
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() == keyed_permutation(50, 1, 2).tolist()
    assert order.tolist() != keyed_permutation(50, 1, 3).tolist()
    assert keyed_permutation(0, 1).tolist() == []
    assert keyed_permutation(1, 1).tolist() == [0]


def test_every_place_is_reached_equally_often():
    first = [int(keyed_permutation(4, seed)[0]) for seed in range(4_000)]
    assert abs(np.bincount(first, minlength=4) - 1_000).max() < 5 * (4_000 * 0.25 * 0.75) ** 0.5
