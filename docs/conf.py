"""Sphinx: `make docs` builds these pages into docs/_build/html, warnings as errors. No page needs the network."""

from __future__ import annotations

import sys
from pathlib import Path

from bertkd_ray import __version__

sys.path.insert(0, str(Path(__file__).parent))  # the extensions
project = "bertkd_ray"
release = version = __version__
extensions = ["myst_parser", "mathml", "reference_pages"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["attrs_inline", "deflist", "dollarmath"]
myst_heading_anchors = 3
# `--json` is an option, not a dash.
smartquotes = False

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"bertkd_ray {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
