"""The matrix products that a piece of work does, and how fast the machine does them when it does nothing else.

`recorded` watches every product that torch runs, forwards and backwards, whoever asks for it. `Replay` runs products of
the same shapes, layouts and dtypes one after another, on operands that are ready: what remains of a work's time beside
that is everything but multiplication. Not seen: products inside of fused kernels (`scaled_dot_product_attention`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_OPERANDS: dict[Any, tuple[int, int]] = {
    _aten.mm.default: (0, 1),
    _aten.mm.out: (0, 1),
    _aten.bmm.default: (0, 1),
    _aten.bmm.out: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.addmm.out: (1, 2),
    _aten.addmm_.default: (1, 2),
    _aten.baddbmm.default: (1, 2),
}
"""Where the two factors stand among the arguments of each product."""
_LINEAR, _MATMUL = _aten.linear.default, _aten.matmul.default


@dataclass(frozen=True)
class Product:
    """One matrix product, or a batch of them: [batch, m, k] times [batch, k, n].

    left_t, right_t: whether the factor lies in memory as its transpose.
    """

    batch: int
    m: int
    k: int
    n: int
    left_t: bool
    right_t: bool
    dtype: torch.dtype

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.batch * self.m * self.k * self.n

    @staticmethod
    def of(left: Tensor, right: Tensor) -> Product:
        """The product of two matrices, or of two batches of them."""
        batch = left.shape[0] if left.ndim == 3 else 1
        m, k, n = left.shape[-2], left.shape[-1], right.shape[-1]
        return Product(batch, m, k, n, _is_transposed(left), _is_transposed(right), left.dtype)

    def operands(self) -> tuple[Tensor, Tensor]:
        """Factors of this shape and layout."""
        return self._factor(self.m, self.k, self.left_t), self._factor(self.k, self.n, self.right_t)

    def _factor(self, rows: int, columns: int, transposed: bool) -> Tensor:
        size = (columns, rows) if transposed else (rows, columns)
        factor = torch.randn(self.batch, *size).to(self.dtype) if self.batch > 1 else torch.randn(size).to(self.dtype)
        return factor.transpose(-2, -1) if transposed else factor


def _is_transposed(factor: Tensor) -> bool:
    return factor.stride(-2) == 1 and factor.stride(-1) != 1


def recorded(work: Callable[[], object]) -> Counter[Product]:
    """Runs `work` and counts its products."""
    with _Recorder() as recorder:
        work()
    return recorder.counts


def flops(products: Counter[Product]) -> int:
    """Of all products together."""
    return sum(product.flops * count for product, count in products.items())


class Replay:
    """Products without the work around them."""

    def __init__(self, products: Counter[Product], dtype: torch.dtype | None = None) -> None:
        """dtype: of all products instead of their own."""
        if dtype is not None:
            of_dtype: Counter[Product] = Counter()
            for product, count in products.items():
                of_dtype[replace(product, dtype=dtype)] += count
            products = of_dtype
        self._products = products
        self._ready = {product: product.operands() for product in products}

    def seconds(self, clock: Callable[[], float] = time.perf_counter) -> float:
        """The time of all products; a product that occurs often is done at most three times and counted in full."""
        total = 0.0
        with torch.no_grad():
            for product, count in self._products.items():
                multiply = torch.bmm if product.batch > 1 else torch.mm
                left, right = self._ready[product]
                out = multiply(left, right)
                times = min(count, 3)
                started = clock()
                for _ in range(times):
                    multiply(left, right, out=out)
                total += (clock() - started) * count / times
        return total


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in _OPERANDS:
            left, right = (args[index] for index in _OPERANDS[func])
            self.counts[Product.of(left, right)] += 1
        elif func is _LINEAR:
            # Under inference_mode linear layers come here whole.
            self.counts[Product.of(args[0].flatten(0, -2), args[1].t())] += 1
        elif func is _MATMUL and args[0].ndim > 2 and args[1].ndim > 2:
            self.counts[Product.of(args[0].flatten(0, -3), args[1].flatten(0, -3))] += 1
        elif func is _MATMUL:
            self.counts[Product.of(args[0].flatten(0, -2), args[1])] += 1
        return func(*args, **(kwargs or {}))
