"""The products that are seen are those that torch does, with their shapes, layouts and operations."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from benchmarks.products import Product, Replay, flops, recorded

F32, BF16 = torch.float32, torch.bfloat16


def test_products_of_a_training_step_by_hand() -> None:
    """A linear layer of 8 to 16 over 20 places: one product forwards, two backwards, each 2 · 20 · 8 · 16."""
    layer, inputs = nn.Linear(8, 16), torch.randn(4, 5, 8, requires_grad=True)
    found = recorded(lambda: layer(inputs).sum().backward())
    assert sorted((product.m, product.k, product.n) for product in found) == [(16, 20, 8), (20, 8, 16), (20, 16, 8)]
    assert flops(found) == 3 * 2 * 20 * 8 * 16


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_products_under_autocast_are_bf16(mode: type) -> None:
    layer, inputs = nn.Linear(8, 16), torch.randn(4, 5, 8)

    def work() -> None:
        with mode(), torch.autocast("cpu", torch.bfloat16):
            hidden = layer(inputs)
            torch.matmul(hidden, hidden.transpose(1, 2))

    found = recorded(work)
    assert Product(1, 20, 8, 16, left_t=False, right_t=True, dtype=BF16) in found
    assert flops(found) == 2 * 20 * 8 * 16 + 2 * 4 * 5 * 16 * 5
    assert {product.dtype for product in found} == {BF16}


def test_products_into_a_buffer_are_seen() -> None:
    left, right, out = torch.randn(3, 4), torch.randn(4, 5), torch.empty(3, 5)
    assert recorded(lambda: (torch.mm(left, right, out=out), out.addmm_(left, right))) == Counter(
        {Product(1, 3, 4, 5, left_t=False, right_t=False, dtype=F32): 2}
    )


def test_operands_lie_in_memory_as_they_did() -> None:
    product = Product(6, 3, 4, 5, left_t=True, right_t=False, dtype=BF16)
    left, right = product.operands()
    assert (left.shape, right.shape, left.dtype) == ((6, 3, 4), (6, 4, 5), BF16)
    assert Product.of(left, right) == product


def test_a_replay_counts_a_frequent_product_in_full() -> None:
    """A clock that moves by one at every look: each product takes a second, however often it is really done."""
    looks = iter(range(100))
    once, often = (Product(1, 2, 2, size, left_t=False, right_t=False, dtype=F32) for size in (2, 3))
    assert Replay(Counter({once: 1, often: 12})).seconds(lambda: float(next(looks))) == 1 + 12 / 3


def test_a_replay_in_float32_joins_what_differs_in_dtype_alone() -> None:
    looks = iter(range(100))
    one, other = (Product(1, 2, 2, 2, left_t=False, right_t=False, dtype=dtype) for dtype in (F32, BF16))
    assert Replay(Counter({one: 3, other: 3}), F32).seconds(lambda: float(next(looks))) == 6 / 3
