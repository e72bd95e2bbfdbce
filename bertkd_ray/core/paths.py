"""Paths as people write them."""

import os
import re

from bertkd_ray.core.errors import UserError

_HOME = re.compile(r"(sqlite:///|file://|)(~[^/]*)(.*)", re.DOTALL)


def expand_home(path: str) -> str:
    """A path, or a `file://` or `sqlite:///` URI, with the home directory in the place of a leading `~` or `~user`.

    Shells do this only where a word begins. A `~user` that there is not stays as it is. Raises UserError for `~` where
    nobody says which directory that is: one of this name would be made.
    """
    match = _HOME.fullmatch(path)
    if match and match[2] == "~" == os.path.expanduser("~"):
        raise UserError(f"{path}: this user has no home directory; set HOME, or give a whole path")
    return match[1] + os.path.expanduser(match[2]) + match[3] if match else path
