"""The page in a headless Chromium: what it fetches, how it fits, what the keyboard reaches, whether it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.report.page import page_html
from tests.report.browser import NAMES, Page, browser, executable
from tests.report.stages import finished_stages, results_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(executable() is None, reason=f"no browser: none of {', '.join(NAMES)} is installed"),
]

CONTRAST = """
(() => {
  const paint = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (color) => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = color; paint.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * below[i]).concat(1);
  const ground = (element) => {
    if (!element) return [255, 255, 255, 1];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own : over(own, ground(element.parentElement));
  };
  const light = (color) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = color.slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (const details of document.querySelectorAll('details')) details.open = true;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text || ['SCRIPT', 'STYLE'].includes(element.tagName) || !element.getClientRects().length) continue;
    const style = getComputedStyle(element), below = ground(element);
    const ink = over(rgba(element.closest('svg') ? style.fill : style.color), below);
    const [high, low] = [light(ink), light(below)].sort((a, b) => b - a);
    found.push([(high + 0.05) / (low + 0.05), text]);
  }
  return found.sort((a, b) => a[0] - b[0]);
})()
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("browser")
    path = directory / "report.html"
    path.write_text(page_html(results_of(finished_stages(directory / "store"))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


def test_nothing_is_fetched_and_nothing_goes_wrong(page, file):
    page.requests.clear()
    page.open(file, width=1280, scheme="light")
    page.evaluate("document.getElementById('theme').click()")
    assert set(page.requests) == {file.as_uri()}
    assert page.problems == []


@pytest.mark.parametrize("width", [360, 768, 1280, 2560])
def test_the_page_never_scrolls_sideways(page, file, width):
    page.open(file, width=width, scheme="light")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wider = (
        "[...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll, .unseen, svg') && "
        "one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"
    )
    assert page.evaluate(wider) == []


def test_figures_keep_legible_letters_on_a_phone(page, file):
    page.open(file, width=360, scheme="light")
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg text')].map(one => "
        "parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a).filter(size => size > 0)"
    )
    assert len(sizes) > 50
    assert min(sizes) > 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(page, file, scheme):
    page.open(file, width=1280, scheme=scheme)
    page.evaluate("localStorage.clear(); delete document.documentElement.dataset.theme")
    found: list[tuple[float, str]] = page.evaluate(CONTRAST)
    assert len(found) > 300
    assert [one for one in found if one[0] < 4.5] == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def stops(page: Page) -> list[dict[str, Any]]:
    """What the Tab key reaches, one after the other, and whether it can be seen that it is there."""
    found = []
    told = (
        "(() => { const one = document.activeElement; const style = getComputedStyle(one); return { tag: one.tagName, "
        "id: one.id, href: one.getAttribute('href'), name: one.className, outline: style.outlineStyle, "
        "top: one.getBoundingClientRect().bottom > 0 }; })()"
    )
    while True:
        page.press("Tab")
        stop = page.evaluate(told)
        if stop["tag"] == "BODY" or len(found) > 200:
            return found
        found.append(stop)


def test_the_keyboard_reaches_everything_in_order(page, file):
    page.open(file, width=1280, scheme="light")
    found = stops(page)
    assert found[0]["href"] == "#main"
    assert found[1]["id"] == "theme"
    assert [stop["href"] for stop in found[2:11]] == [
        "#scores",
        "#students",
        "#translations",
        "#teacher",
        "#soft-labels",
        "#corpus",
        "#time",
        "#artifacts",
        "#settings",
    ]
    assert all(stop["outline"] == "solid" and stop["top"] for stop in found)
    assert sum(stop["tag"] == "SUMMARY" for stop in found) == 5
    assert sum(stop["name"] == "scroll" for stop in found) >= 3


def test_the_toggle_changes_the_colours_and_is_remembered(page, file):
    page.open(file, width=1280, scheme="light")
    page.evaluate("localStorage.clear()")
    page.open(file, width=1280, scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate("document.getElementById('theme').textContent") == "Dark colours"
    page.evaluate("document.getElementById('theme').focus()")
    page.press("Enter")
    assert page.evaluate(ground) == "rgb(20, 24, 29)"
    assert page.evaluate("document.getElementById('theme').textContent") == "Light colours"
    page.open(file, width=1280, scheme="light")
    assert page.evaluate(ground) == "rgb(20, 24, 29)"
    page.evaluate("localStorage.clear()")


def test_text_of_the_corpus_runs_nothing(page, file):
    page.open(file, width=1280, scheme="light")
    assert page.evaluate("document.querySelectorAll('img, iframe, object, body b').length") == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 1
