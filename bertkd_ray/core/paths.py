"""Paths as people write them."""

import os
import re

_HOME = re.compile(r"(sqlite:///|file://|)(~[^/]*)(.*)", re.DOTALL)


def expand_home(path: str) -> str:
    """A path, or a `file://` or `sqlite:///` URI, with the home directory in the place of a leading `~` or `~user`.

    Shells do this only where a word begins. What names no home directory stays as it is.
    """
    match = _HOME.fullmatch(path)
    return match[1] + os.path.expanduser(match[2]) + match[3] if match else path
