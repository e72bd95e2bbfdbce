"""Random numbers that depend on their key alone, never on what was drawn before.

Masks, shuffles and dropout are keyed by (seed, epoch, id) or (seed, step, stream), so that any worker, in any order and
after any restart, draws the same. The mixer is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = state + _GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return result


def keyed_bits(*key: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits for every combination of the broadcast integer key parts (each part int64 or smaller)."""
    parts: list[NDArray[Any]] = [np.asarray(part, dtype=np.int64).astype(np.uint64) for part in key]
    with np.errstate(over="ignore"):
        state = np.zeros(np.broadcast_shapes(*(part.shape for part in parts)) or (1,), dtype=np.uint64)
        for part in parts:
            state = _mix(state ^ _mix(np.atleast_1d(part)))
    return state


def keyed_uniform(*key: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 53 random bits, one for every combination of the broadcast key parts."""
    return (keyed_bits(*key) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def keyed_seed(*key: int) -> int:
    """A seed of 63 bits for a generator that wants one (torch.manual_seed)."""
    return int(keyed_bits(*key)[0] >> np.uint64(1))


def keyed_permutation(size: int, *key: int) -> NDArray[np.int64]:
    """A permutation of 0 … size - 1 that depends on the key and the size alone."""
    return np.argsort(keyed_bits(*key, np.arange(size)), kind="stable")
