"""Environment variables for the processes that a block starts."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def default_variables(values: Mapping[str, str], *, override: bool = False) -> Iterator[None]:
    """Sets those variables that are not set while the block runs; what the user has set stands, without `override`."""
    new = {name: value for name, value in values.items() if override or name not in os.environ}
    before = {name: os.environ[name] for name in new if name in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
        os.environ.update(before)
