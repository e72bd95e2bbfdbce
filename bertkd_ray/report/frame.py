"""What every figure shares: colours, fonts, panels, one legend under them, a PNG and an SVG, and SVG inside a page.

A figure is a list of panels. They stand side by side in the files of a report, and one by one in a page, which is
narrower on a phone than two of them.

Series are told apart by colour (Okabe and Ito's palette, which colour-blind readers can tell apart), by line style and
by marker. The same input gives the same bytes with the same matplotlib.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
BEST = "best checkpoint"
"""The legend's last entry."""
_COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_LINE_STYLES = ["-", "--", "-.", ":"]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
COLORS = {
    **{f"series-{number}": color for number, color in enumerate(_COLORS, start=1)},
    "ink": "#333333",
    "grid": "#E3E3E3",
    "faint": "#767676",
}
"""Every colour that figures use, by the name that a page gives its own under."""
_PANEL_INCHES = (4.9, 3.7)
_LETTER_POINTS, _HANDLE_POINTS, _LINE_POINTS = 6, 58, 15  # of an entry of the legend
_MOST_COLUMNS = 4
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}\b")
_DIGITS = re.compile(r"-?\d+\.\d{3,}")
_COLOR_NAMES = {color.lower(): name for name, color in COLORS.items()}
_STYLE = Path(__file__).with_name("template") / "figures.mplstyle"


class Drawing(NamedTuple):
    """The two files of a figure."""

    png: Path
    svg: Path


class Panel(NamedTuple):
    """One set of axes of a figure."""

    title: str
    """Title above the axes; empty for none."""
    draw: Callable[[Axes], None]
    summary: str = ""
    """What the panel shows, with its main numbers, for those who cannot see it."""
    has_curves: bool = True
    """Whether its series stand in the legend."""


class Style(NamedTuple):
    """How one series is told apart."""

    color: str
    line: str
    marker: str


def styles(count: int) -> list[Style]:
    """The styles of `count` series; 28 differ."""
    return [*islice(map(Style, cycle(_COLORS), cycle(_LINE_STYLES), cycle(_MARKERS)), count)]


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Labels, a grid, and round values on the vertical axis."""
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel=x, ylabel=y)
    axes.grid(color=COLORS["grid"], linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))


def draw_panels(panels: Sequence[Panel], stem: Path, inches: tuple[float, float] = _PANEL_INCHES) -> Drawing:
    """Writes panels side by side, each of this width and height, as a PNG and an SVG.

    stem: the path of the files without their suffix.
    """
    import matplotlib

    stem.parent.mkdir(parents=True, exist_ok=True)
    drawing = Drawing(stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg"))
    software = f"matplotlib {matplotlib.__version__}"
    with matplotlib.rc_context(fname=_STYLE):
        figure = _figure(panels, inches)
        figure.savefig(drawing.png, dpi=DPI, facecolor="white", metadata={"Software": software})
        figure.savefig(drawing.svg, facecolor="white", metadata={"Date": None, "Creator": software})
    return drawing


def inline_svg(panel: Panel, id_: str, inches: tuple[float, float]) -> str:
    """A panel as a labelled `svg` element in the page's font, its colours the page's variables (`var(--series-1)`).

    id_: of the element, and the start of all ids in it. Raises KeyError for a colour that is not the figures' own.
    """
    import matplotlib

    text, nothing = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none"}, _STYLE):
        _figure([panel._replace(title="")], inches).savefig(text, format="svg", transparent=True, metadata=nothing)
    # An element of HTML needs no namespaces.
    svg = text.getvalue().replace(' xmlns="http://www.w3.org/2000/svg"', "", 1).replace(' xlink:href="#', ' href="#')
    root = ET.fromstring(svg)
    for defs in root.findall("defs"):
        # A style sheet would be the whole page's.
        for style in defs.findall("style"):
            defs.remove(style)
    referenced = {*_REFERENCE.findall(svg), *re.findall('href="#([^"]+)"', svg)}
    for element in root.iter():
        element.text, element.tail = (text if text and text.strip() else None for text in (element.text, element.tail))
        _rewrite(element, id_, referenced)
    label = f"{panel.title}. {panel.summary}."
    root.attrib = {"id": id_, "viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return ET.tostring(root, encoding="unicode")


def _rewrite(element: ET.Element, prefix: str, referenced: set[str]) -> None:
    """Ids that something refers to get the prefix, the others go; links and colours become those of a page."""
    attributes = {}
    for name, value in element.attrib.items():
        if name == "id":
            if value in referenced:
                attributes[name] = f"{prefix}-{value}"
        elif name == "href":
            attributes[name] = f"#{prefix}-{value.removeprefix('#')}"
        elif name == "style":
            attributes[name] = _COLOR.sub(lambda match: f"var(--{_COLOR_NAMES[match[0].lower()]})", value)
        elif not value.startswith("rotate(-0 "):
            short = _DIGITS.sub(lambda match: f"{float(match[0]):.2f}", value)
            attributes[name] = " ".join(_REFERENCE.sub(rf"url(#{prefix}-\1)", short).split())
    element.attrib = attributes


def _figure(panels: Sequence[Panel], inches: tuple[float, float]) -> Figure:
    """The panels, and one legend under them for all their curves."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, wspace=0.04)
    figure = Figure(figsize=(inches[0] * len(panels), inches[1]), layout=layout)
    entries: dict[str, Any] = {}
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        panel.draw(axes)
        if panel.title:
            axes.set_title(panel.title)
        if not panel.has_curves:
            continue
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            # The validation curve shows line and marker, which the training curve of the same arm lacks.
            if label not in entries or (isinstance(handle, Line2D) and handle.get_marker() not in ("", "None")):
                entries[label] = handle
    if BEST in entries:
        entries[BEST] = entries.pop(BEST)
    if entries:
        _add_legend(figure, entries)
    return figure


def _add_legend(figure: Figure, entries: dict[str, Any]) -> None:
    """In as many columns as fit; the figure grows by what is below the legend's first line."""
    width, height = figure.get_size_inches()
    room = 72 * width
    columns = int(room / (_LETTER_POINTS * max(map(len, entries)) + _HANDLE_POINTS))
    columns = max(min(len(entries), columns, _MOST_COLUMNS), 1)
    labels = [fill(label, int((room / columns - _HANDLE_POINTS) / _LETTER_POINTS)) for label in entries]
    lines = sum(label.count("\n") + 1 for label in labels) if columns == 1 else -(-len(labels) // columns)
    figure.set_size_inches(width, height + (lines - 1) * _LINE_POINTS / 72)
    figure.legend(entries.values(), labels, loc="outside lower center", ncols=columns, handlelength=3)
