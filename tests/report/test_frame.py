from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from bertkd_ray.report.figures import translation_loss_panels
from bertkd_ray.report.frame import COLORS, Panel, inline_svg, styles
from bertkd_ray.training.curves import CurveRow

INCHES = (4.5, 3.3)


def two_arms() -> Panel:
    rows = [CurveRow(step, 0.0, {"train/nll": 9 / step, "valid/nll": 8 / step}) for step in range(1, 60)]
    return translation_loss_panels({"a < b": rows, "control": rows})[1]


def test_a_panel_becomes_an_element_of_a_page() -> None:
    panel = two_arms()
    root = ET.fromstring(inline_svg(panel, "one", INCHES))
    assert (root.tag, root.get("id"), root.get("role")) == ("svg", "one", "img")
    assert panel.title == "Translation loss, validation"
    label = "Translation loss, validation. a < b: from 8 nats per target token at step 1 to 0.1356"
    assert str(root.get("aria-label")).startswith(label)
    # The page has the title, and the figure its text as text.
    texts = [element.text for element in root.iter("text")]
    assert {"a < b", "control", "best checkpoint", "perplexity", "optimizer step"} <= set(texts)
    assert panel.title not in texts
    assert set(root.attrib) == {"id", "viewBox", "role", "aria-label"}


def test_colours_are_the_pages_own() -> None:
    svg = inline_svg(two_arms(), "one", INCHES)
    assert re.findall(r"#[0-9a-fA-F]{3,6}\b", svg) == []
    assert {"series-1", "series-2", "ink", "grid"} <= set(re.findall(r"var\(--([\w-]+)\)", svg)) <= set(COLORS)
    assert {style.color for style in styles(7)} <= set(COLORS.values())


def test_a_colour_without_a_name_is_refused() -> None:
    with pytest.raises(KeyError, match="#123456"):
        inline_svg(Panel("odd", lambda axes: axes.plot([0, 1], color="#123456")), "one", INCHES)


def test_ids_of_two_figures_differ_and_references_follow() -> None:
    first, second = (inline_svg(two_arms(), name, INCHES) for name in ("one", "two"))
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0] & ids[1] == set()
    for svg, known in zip((first, second), ids, strict=True):
        references = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
        assert len(references) > 4
        assert references < known


def test_no_style_sheet_leaks_into_the_page() -> None:
    svg = inline_svg(two_arms(), "one", INCHES)
    assert "<style" not in svg
    assert "<metadata" not in svg
    assert "xmlns" not in svg
