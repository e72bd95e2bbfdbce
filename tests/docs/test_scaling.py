"""The figures of docs/scaling.md are what its commands print."""

from __future__ import annotations

import pytest

from tests.docs.test_site import DOCS, ROOT


def test_every_figure_is_what_its_command_prints(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.chdir(ROOT)
    import scaling_figures

    page = scaling_figures.PAGE.read_text(encoding="utf-8")
    assert scaling_figures.with_figures(page) == page, "run: python docs/scaling_figures.py"
    assert page.count("In all ") == 2


def test_a_command_that_fails_leaves_no_figures(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.chdir(ROOT)
    import scaling_figures

    with pytest.raises(ValueError, match="ends with exit code 2"):
        scaling_figures.with_figures("```sh\nbertkd plan nothing.yaml\n```\n\n```text\n```")
