"""The figure of a corpus: how long its sentences are on both sides, and how the two sides compare, by split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.inspect import SIDES, LengthCounts
from bertkd_ray.report.frame import Drawing, Panel, draw_panels, label_axes, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL_INCHES = (3.9, 3.3)
_LENGTH_BINS = 40
_RATIO_BINS_AN_OCTAVE = 6
_MOST_RATIO_TICKS = 7
MOST_PAIRS = 200_000
"""Pairs of a split whose lengths are read for a page; more would not change the picture."""
_AXIS_SHARE = 0.99
"""The share of every split's pairs that the axes reach; a few very long sentences would press the rest flat."""


def read_lengths(corpus: Artifact, split: str, *, most: int = MOST_PAIRS) -> LengthCounts:
    """The lengths of a split's pairs; of a split of more than `most` pairs, those of row groups all over it."""
    groups = RowGroups(corpus, f"{split}/", [f"{side}_ids" for side in SIDES])
    every = math.ceil(int(groups.rows.sum()) / most)
    table = groups.read(np.arange(0, len(groups.rows), every))
    lengths = [Ragged.from_arrow(table[f"{side}_ids"]).lengths for side in SIDES]
    both, counts = np.unique(np.stack(lengths), axis=1, return_counts=True)
    return LengthCounts(both[0], both[1], counts)


def draw_lengths(splits: Mapping[str, LengthCounts], stem: Path) -> Drawing:
    """`length_panels` as files. stem: the path of the files without their suffix."""
    return draw_panels(length_panels(splits), stem, _PANEL_INCHES)


def length_panels(splits: Mapping[str, LengthCounts]) -> list[Panel]:
    """Histograms of source length, target length (tokens a sentence) and source tokens a target token, by split.

    Heights are percent of a split's pairs, so that splits of any size compare. The axes end where 99% of every
    split are shown; pairs with an empty side have no ratio.
    """
    ends = [_quantile(getattr(counts, side), counts.pairs, _AXIS_SHARE) for counts in splits.values() for side in SIDES]
    width = math.ceil((max(ends) + 1) / _LENGTH_BINS)
    edges = np.arange(0, max(ends) + width + 1, width)
    shares = {
        side: [_shares(getattr(counts, side), counts.pairs, edges - 0.5) for counts in splits.values()]
        for side in SIDES
    }
    highest = 1.05 * max(heights.max() for side in SIDES for heights in shares[side])

    def draw_side(side: str, axes: Axes) -> None:
        _draw_stairs(axes, list(splits), shares[side], edges)
        label_axes(axes, "tokens a sentence", "pairs, %")
        axes.set(xlim=(0, edges[-1]), ylim=(0, highest))

    src, tgt = (
        "; ".join(
            f"{name}: median {_quantile(getattr(counts, side), counts.pairs, 0.5)} tokens"
            for name, counts in splits.items()
        )
        for side in SIDES
    )
    ratio = f"source tokens a target token, by split: {', '.join(splits)}"
    return [
        Panel("Source length", partial(draw_side, "src"), src),
        Panel("Target length", partial(draw_side, "tgt"), tgt),
        Panel("Length ratio", partial(_draw_ratios, splits), ratio),
    ]


def _quantile(values: NDArray[np.int64], pairs: NDArray[np.int64], share: float) -> int:
    """The smallest value that so large a share of the pairs does not exceed."""
    return int(np.quantile(values, share, weights=pairs, method="inverted_cdf"))


def _shares(values: NDArray[np.int64], pairs: NDArray[np.int64], limits: NDArray[Any]) -> NDArray[np.float64]:
    """Percent of the pairs with values between each two limits, which no value is at."""
    return np.asarray(100 * np.histogram(values, limits, weights=pairs)[0] / max(pairs.sum(), 1))


def _draw_ratios(splits: Mapping[str, LengthCounts], axes: Axes) -> None:
    """On a logarithmic axis, where 2 is as far from 1 as 1/2 is; one bin has the ratio 1 in its middle."""
    from matplotlib.ticker import NullLocator

    ratios = [counts.ratios() for counts in splits.values()]
    octave_bins = [(np.round(np.log2(of) * _RATIO_BINS_AN_OCTAVE).astype(np.int64), pairs) for of, pairs in ratios]
    # At least from 1/2 to 2, so that a corpus of equal lengths looks like one.
    low = high = _RATIO_BINS_AN_OCTAVE
    for bins, pairs in octave_bins:
        if len(bins):
            low, high = max(low, _quantile(-bins, pairs, _AXIS_SHARE)), max(high, _quantile(bins, pairs, _AXIS_SHARE))
    limits = np.arange(-low - 1, high + 3) - 0.5
    edges = 2.0 ** (limits / _RATIO_BINS_AN_OCTAVE)
    shares = [_shares(bins, pairs, limits) for bins, pairs in octave_bins]
    _draw_stairs(axes, list(splits), shares, edges)
    axes.set_xscale("log", base=2)
    axes.set_xlim(edges[0], edges[-1])
    within = range(math.ceil(math.log2(edges[0])), math.floor(math.log2(edges[-1])) + 1)
    octaves = [octave for octave in within if octave % math.ceil(len(within) / _MOST_RATIO_TICKS) == 0]
    axes.set_xticks([2.0**octave for octave in octaves], [f"1/{2**-o}" if o < 0 else f"{2**o}" for o in octaves])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    label_axes(axes, "source tokens a target token", "pairs, %")


def _draw_stairs(axes: Axes, names: Sequence[str], shares: Sequence[NDArray[np.float64]], edges: NDArray[Any]) -> None:
    for index, (name, share, style) in enumerate(zip(names, shares, styles(len(names)), strict=True)):
        if index == 0:
            axes.stairs(share, edges, fill=True, color=style.color, alpha=0.15)
        axes.stairs(share, edges, color=style.color, linestyle=style.line, linewidth=1.6, label=name)
