"""Padded lengths, and rows in batches of similar length."""

import numpy as np
from numpy.typing import NDArray


def padded_length(length: int, multiple: int) -> int:
    """The least multiple that holds the length: so few distinct shapes reach the kernels."""
    return -(-length // multiple) * multiple


def longest_first_batches(lengths: NDArray[np.integer], budget: int, multiple: int = 8) -> list[NDArray[np.int64]]:
    """int64 row numbers of each batch: at most `budget` padded tokens, or one row; longest rows first, ties in order.

    Full batches of one padded length have the same shape, and one that does not fit into memory shows at once.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        stop = start + max(1, budget // padded_length(int(lengths[order[start]]), multiple))
        batches.append(order[start:stop])
        start = stop
    return batches


def packed_rows(tokens: int) -> int:
    """Rows of hidden states for so many tokens: at least one for padding, a multiple of 32, so that shapes recur."""
    return padded_length(tokens + 1, 32)
