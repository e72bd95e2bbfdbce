"""Environment variables for the processes that a block starts."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def default_variables(values: Mapping[str, str]) -> Iterator[None]:
    """Sets those variables that are not set while the block runs; what the user has set stands."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
