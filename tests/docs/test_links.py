"""What the documentation points to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md")]
PAGES += sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_to_is_there(page):
    text = page.read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text) if not (page.parent / link).exists()}
    assert links == set()
    paths = re.findall(r"`((?:bertkd_ray|benchmarks|configs|deploy|docs|jobs|tests|tools)/[\w./-]+)`", text)
    assert {path for path in paths if not (ROOT / path).exists()} == set()
