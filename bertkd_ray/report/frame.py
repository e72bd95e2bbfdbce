"""What every figure shares: colours, fonts, panels, one legend under them, a PNG and an SVG.

Series are told apart by colour (Okabe and Ito's palette, which colour-blind readers can tell apart), by line style and
by marker. The same input gives the same bytes with the same matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
BLUE, VERMILION, GREEN, _PURPLE, _ORANGE, _SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
_COLORS = [BLUE, VERMILION, GREEN, _PURPLE, _ORANGE, _SKY, "#000000"]
_LINE_STYLES = ["-", "--", "-.", ":"]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
INK, GRID = "#333333", "#E3E3E3"
_PANEL_INCHES = (4.9, 3.7)
_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "bertkd",
}


class Drawing(NamedTuple):
    """The two files of a figure."""

    png: Path
    svg: Path


class Style(NamedTuple):
    """How one series is told apart."""

    color: str
    line: str
    marker: str


def house_style() -> Any:
    """A context in which matplotlib draws in the style of these figures; its global state is left alone."""
    import matplotlib

    return matplotlib.rc_context(_RC)


def styles(count: int) -> list[Style]:
    """The styles of `count` series; 28 differ."""
    return [
        Style(_COLORS[i % len(_COLORS)], _LINE_STYLES[i % len(_LINE_STYLES)], _MARKERS[i % len(_MARKERS)])
        for i in range(count)
    ]


def panels(count: int, inches: tuple[float, float] = _PANEL_INCHES) -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side, each of this width and height."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, wspace=0.04)
    figure = Figure(figsize=(inches[0] * count, inches[1]), layout=layout)
    return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]


def save(figure: Figure, stem: Path, with_curves: Sequence[Axes]) -> Drawing:
    """Write both files, with one legend under the panels for all curves of `with_curves`.

    stem: the path of the files without their suffix.
    """
    import matplotlib
    from matplotlib.lines import Line2D

    entries: dict[str, Any] = {}
    for axes in with_curves:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            # The validation curve shows line and marker, which the training curve of the same arm lacks.
            if label not in entries or (isinstance(handle, Line2D) and handle.get_marker() not in ("", "None")):
                entries[label] = handle
    if "best checkpoint" in entries:
        entries["best checkpoint"] = entries.pop("best checkpoint")
    if entries:
        columns = min(len(entries), 4)
        figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns, handlelength=3)
    stem.parent.mkdir(parents=True, exist_ok=True)
    drawing = Drawing(stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg"))
    software = f"matplotlib {matplotlib.__version__}"
    figure.savefig(drawing.png, dpi=DPI, facecolor="white", metadata={"Software": software})
    figure.savefig(drawing.svg, facecolor="white", metadata={"Date": None, "Creator": software})
    return drawing
