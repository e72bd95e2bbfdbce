"""Work in processes that may be killed: each try is a fork of this process, which stays as it was."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any


def deaths_until_done(work: Callable[[], Any], *, most: int = 40) -> int:
    """How many processes were killed at this work, until one has done it. Fails when one raises, and after `most`."""
    for deaths in range(most):
        if not dies(work):
            return deaths
    raise AssertionError(f"still not done after {most} deaths")


def dies(work: Callable[[], Any]) -> bool:
    """Whether a process that does this work is killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
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
