"""Writes the figures of docs/scaling.md again: below each `bertkd plan` command, what it prints.

python docs/scaling_figures.py
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

from bertkd_ray.cli import main

PAGE = Path(__file__).with_name("scaling.md")
_FIGURES = re.compile(r"^```sh\n(bertkd plan [^\n]+)\n```\n\n```text\n(.*?)```$", re.MULTILINE | re.DOTALL)


def with_figures(page: str) -> str:
    """The page with what its commands print now; they run in the working directory, the checkout's."""

    def block(match: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = main(shlex.split(match[1])[1:])
        if code:
            raise ValueError(f"{match[1]} ends with exit code {code}")
        return f"```sh\n{match[1]}\n```\n\n```text\n{printed.getvalue()}```"

    return _FIGURES.sub(block, page)


if __name__ == "__main__":
    PAGE.write_text(with_figures(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
