"""The figure of the method's page is of the mask that the package makes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def method_figures(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    yield __import__("method_figures")
    sys.modules.pop("method_figures")


def test_the_figure_shows_who_sees_whom(method_figures):
    axes = method_figures.figure().axes[0]
    seen = ["".join(".x"[int(value)] for value in row) for row in axes.images[0].get_array().tolist()]
    assert seen == [*["xxxx.."] * 4, "xxxxx.", "xxxxxx"]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[-3:] == ["[SEP]  3", "two  4", "dogs  5"]


def test_the_page_has_the_figure_with_these_words(method_figures):
    assert f"../images/{method_figures.IMAGE.name}" in (DOCS / "explanation" / "method.md").read_text(encoding="utf-8")
    image = method_figures.IMAGE.read_text(encoding="utf-8")
    assert all(text in image for text in ("zwei  1", "dogs  5", "predicts dogs", "predicts the end"))
