"""Marks of what every process did from when to when, to find out where a command's time goes.

Off unless the environment variable `BERTKD_TIMELINE` names a file: every process then appends a line of JSON a span to
it, with `name`, `pid`, `begin` and `end` (seconds since 1970). Other machines write where it is set there too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "BERTKD_TIMELINE"


@contextmanager
def span(name: str) -> Iterator[None]:
    """Marks the time that the block takes, whether it ends well or raises; does nothing where no file is named."""
    path = os.environ.get(VARIABLE)
    if not path:
        yield
        return
    begin = time.time()
    try:
        yield
    finally:
        line = json.dumps({"name": name, "pid": os.getpid(), "begin": begin, "end": time.time()}) + "\n"
        # One write in append mode: lines of many processes do not mix.
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
