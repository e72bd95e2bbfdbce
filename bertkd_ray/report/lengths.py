"""The figure of a corpus: how long its sentences are on both sides, and how the two sides compare, by split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.inspect import SIDES, LengthCounts
from bertkd_ray.report.frame import GRID, Drawing, Panel, draw_panels, styles

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
    shares = {
        side: _shares({name: lengths.histogram(side) for name, lengths in splits.items()}, splits) for side in SIDES
    }
    highest = 1.05 * max(float(share.max()) for side in shares.values() for share in side[0])

    def side(name: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            _draw_stairs(axes, list(splits), *shares[name])
            axes.set_xlim(0, shares[name][1][-1])
            _finish(axes, "tokens a sentence")
            axes.set_ylim(0, highest)

        return draw

    def ratio(axes: Axes) -> None:
        _draw_ratios(axes, splits)
        _finish(axes, "source tokens a target token")

    src, tgt = (
        "; ".join(f"{name}: median {_median(lengths.histogram(side))} tokens" for name, lengths in splits.items())
        for side in SIDES
    )
    return [
        Panel("Source length", side("src"), src),
        Panel("Target length", side("tgt"), tgt),
        Panel("Length ratio", ratio, f"source tokens a target token, by split: {', '.join(splits)}"),
    ]


def _median(histogram: NDArray[np.int64]) -> int:
    running = np.cumsum(histogram)
    return int(np.searchsorted(running, running[-1] / 2))


def _longest(splits: Mapping[str, LengthCounts]) -> int:
    """The length that ends the axes of both sides."""
    histograms = [lengths.histogram(side) for lengths in splits.values() for side in SIDES]
    return max(int(np.searchsorted(np.cumsum(counts), _AXIS_SHARE * counts.sum())) for counts in histograms)


def _shares(
    histograms: Mapping[str, NDArray[np.int64]], splits: Mapping[str, LengthCounts]
) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
    """Percent of the pairs of every split in each bin, and the bins' edges."""
    longest = _longest(splits)
    width = max(math.ceil((longest + 1) / _LENGTH_BINS), 1)
    edges = np.arange(0, longest + width + 1, width)
    shares = []
    for histogram in histograms.values():
        counts = np.zeros(edges[-1], np.int64)
        counts[: len(histogram)] = histogram[: edges[-1]]
        shares.append(100 * counts.reshape(-1, width).sum(axis=1) / histogram.sum())
    return shares, edges


def _draw_ratios(axes: Axes, splits: Mapping[str, LengthCounts]) -> None:
    """On a logarithmic axis, where 2 is as far from 1 as 1/2 is; one bin has the ratio 1 in its middle."""
    from matplotlib.ticker import NullLocator

    bins = {}
    # At least from 1/2 to 2, so that a corpus of equal lengths looks like one.
    low, high = -_RATIO_BINS_AN_OCTAVE, _RATIO_BINS_AN_OCTAVE
    for name, lengths in splits.items():
        ratios, pairs = lengths.ratios()
        octave_bins = np.round(np.log2(ratios) * _RATIO_BINS_AN_OCTAVE).astype(np.int64)
        if len(octave_bins):
            low, high = min(low, -_reach(-octave_bins, pairs)), max(high, _reach(octave_bins, pairs))
        bins[name] = octave_bins, pairs
    low, high = low - 1, high + 1
    edges = 2.0 ** ((np.arange(low, high + 2) - 0.5) / _RATIO_BINS_AN_OCTAVE)
    shares = []
    for octave_bins, pairs in bins.values():
        within_axis = (octave_bins >= low) & (octave_bins <= high)
        counts = np.bincount(octave_bins[within_axis] - low, weights=pairs[within_axis], minlength=high - low + 1)
        shares.append(100 * counts / max(pairs.sum(), 1))
    _draw_stairs(axes, list(splits), shares, edges)
    axes.set_xscale("log", base=2)
    axes.set_xlim(edges[0], edges[-1])
    within = range(math.ceil(math.log2(edges[0])), math.floor(math.log2(edges[-1])) + 1)
    octaves = [octave for octave in within if octave % math.ceil(len(within) / _MOST_RATIO_TICKS) == 0]
    axes.set_xticks([2.0**octave for octave in octaves], [f"1/{2**-o}" if o < 0 else f"{2**o}" for o in octaves])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)


def _reach(octave_bins: NDArray[np.int64], pairs: NDArray[np.int64]) -> int:
    """The highest bin among the lowest 99% of the pairs."""
    order = np.argsort(octave_bins)
    running = np.cumsum(pairs[order])
    return int(octave_bins[order[np.searchsorted(running, _AXIS_SHARE * running[-1])]])


def _draw_stairs(axes: Axes, names: Sequence[str], shares: Sequence[NDArray[np.float64]], edges: NDArray[Any]) -> None:
    for place, (name, share, style) in enumerate(zip(names, shares, styles(len(names)), strict=True)):
        if place == 0:
            axes.stairs(share, edges, fill=True, color=style.color, alpha=0.15)
        axes.stairs(share, edges, color=style.color, linestyle=style.line, linewidth=1.6, label=name)


def _finish(axes: Axes, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(label)
    axes.set_ylabel("pairs, %")
    axes.grid(color=GRID, linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
