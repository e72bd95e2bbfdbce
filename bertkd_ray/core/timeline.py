"""Marks of what every process did from when to when, to find out where a command's time goes.

Off unless the environment variable `BERTKD_TIMELINE` names a file: every process then appends a line of JSON a span to
it, with `name`, `pid`, `begin` and `end` (seconds since 1970) and `cpu`, the seconds of CPU that the process took
meanwhile. Other machines write where it is set there too.
"""

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
    begin, cpu = time.time(), time.process_time()
    try:
        yield
    finally:
        spent = {"begin": begin, "end": time.time(), "cpu": round(time.process_time() - cpu, 4)}
        line = json.dumps({"name": name, "pid": os.getpid(), **spent}) + "\n"
        # One unbuffered write in append mode: lines of many processes do not mix.
        with open(path, "ab", buffering=0) as file:
            file.write(line.encode())
