"""Ours against a baseline and against the machine's matrix products, in one process and in turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.products import Replay, flops, recorded
from benchmarks.timing import Spread, interleaved, rates, ratios


@dataclass(frozen=True)
class Compared:
    """Seconds by contestant and round, ours under `OURS`, and what the products of ours take alone."""

    seconds: dict[str, list[float]]
    product_seconds: list[float]
    float32_seconds: list[float]
    """What the same products take in float32."""
    product_flops: int

    def rate(self, name: str, amount: float) -> Spread:
        """What a contestant does a second, when a round of it does `amount`."""
        return Spread.of(rates(amount, self.seconds[name]))

    def ratio(self, name: str, ours: float, theirs: float) -> Spread:
        """Our rate over a contestant's; ours, theirs: what a round of each does."""
        return ratios(rates(ours, self.seconds[OURS]), rates(theirs, self.seconds[name]))

    @property
    def product_rate(self) -> Spread:
        """FLOP/s of our products alone."""
        return Spread.of(rates(self.product_flops, self.product_seconds))

    @property
    def utilisation(self) -> Spread:
        """Our FLOP/s over `product_rate`: the share of our time that the products would take alone."""
        return ratios(self.product_seconds, self.seconds[OURS])

    @property
    def columns(self) -> dict[str, Spread]:
        """The columns of a row that tell of the machine."""
        gain = ratios(self.float32_seconds, self.product_seconds)
        return {"product_rate": self.product_rate, "product_gain": gain, "utilisation": self.utilisation}

    def details(self) -> dict[str, object]:
        """What the row's JSON keeps of it."""
        return {
            "seconds": self.seconds,
            "product_seconds": self.product_seconds,
            "float32_product_seconds": self.float32_seconds,
            "product_flops": self.product_flops,
            "load_after": os.getloadavg()[0],
        }


OURS = "ours"
_PRODUCTS, _FLOAT32 = "products", "products in float32"


def compare(
    ours: Callable[[], object],
    others: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Compared:
    """Runs ours once to see its products, then all in turn: a round to warm up and `rounds` that count."""
    products = recorded(ours)
    replays = {_PRODUCTS: Replay(products), _FLOAT32: Replay(products, torch.float32)}
    alone: dict[str, list[float]] = {name: [] for name in replays}
    multiplied = {name: partial(_replay, replay, alone[name], clock) for name, replay in replays.items()}
    seconds = interleaved({OURS: ours, **others, **multiplied}, rounds, clock=clock)
    # Their own clock leaves out what is not a product.
    in_rounds = {name: spent[-rounds:] for name, spent in alone.items()}
    measured = {name: spent for name, spent in seconds.items() if name not in replays}
    return Compared(measured, in_rounds[_PRODUCTS], in_rounds[_FLOAT32], flops(products))


def _replay(replay: Replay, into: list[float], clock: Callable[[], float]) -> None:
    into.append(replay.seconds(clock))
