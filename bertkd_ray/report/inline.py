"""Figures as SVG inside a page: in the page's font and colours, with ids that no other figure has."""

import re
import xml.etree.ElementTree as ET

from bertkd_ray.report.frame import COLORS, Panel, panel_svg

_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}\b")
_DIGITS = re.compile(r"-?\d+\.\d{3,}")
_NAMES = {color.lower(): name for name, color in COLORS.items()}


def inline_svg(panel: Panel, id_: str, inches: tuple[float, float]) -> str:
    """A panel as an `svg` element with a label, the panel's colours being the page's variables (`var(--series-1)`).

    id_: of the element, and the start of all ids in it. Raises KeyError for a colour that is not the figures' own.
    """
    # An element of HTML needs no namespaces.
    svg = panel_svg(panel, inches).replace(' xmlns="http://www.w3.org/2000/svg"', "").replace("xlink:href", "href")
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
            attributes[name] = _COLOR.sub(lambda match: f"var(--{_NAMES[match[0].lower()]})", value)
        elif not value.startswith("rotate(-0 "):
            short = _DIGITS.sub(lambda match: f"{float(match[0]):.2f}", value)
            attributes[name] = " ".join(_REFERENCE.sub(rf"url(#{prefix}-\1)", short).split())
    element.attrib = attributes
