"""Functions that may kill their process, each called in a fork of this one, which stays as it was."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any


def kills_until_done(function: Callable[[], Any], *, max_kills: int = 40) -> int:
    """How many processes the function kills until it returns in one. Fails when it raises, and after `max_kills`."""
    for kills in range(max_kills):
        if not is_killed(function):
            return kills
    raise AssertionError(f"not done after {max_kills} kills")


def is_killed(function: Callable[[], Any]) -> bool:
    """Whether the function kills its process. Fails when it raises."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            # Not an ordinary exit, which would run this process's own clean-up in its copy.
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False
