"""Notice that this process is to go: SIGTERM, or its node's announced end.

The training loop asks once an update. It then writes a checkpoint, so that no more work is lost than the update being
computed.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType


class Notice(IntEnum):
    """What a worker knows of its end; the gravest of all workers' notices holds for each of them."""

    NONE = 0
    CHECKPOINT = 1
    """The node ends soon: write a checkpoint now, and train on while it lasts."""
    TERMINATE = 2
    """The process ends now: write a checkpoint and stop."""


class PreemptedError(RuntimeError):
    """A worker whose process is to end has written its checkpoint."""


sigterm_received = threading.Event()
_training = threading.Event()


def handle_sigterm(grace: float) -> None:
    """Makes SIGTERM a notice while this process trains; its end comes `grace` seconds later at the latest.

    Must be called in the main thread. Where Python code of the main thread runs rarely, the notice is as late.
    """

    def on_sigterm(number: int, _: FrameType | None) -> None:
        if not _training.is_set():
            sys.exit(128 + number)
        sigterm_received.set()
        end = threading.Timer(grace, os._exit, (128 + number,))
        end.daemon = True
        end.start()

    signal.signal(signal.SIGTERM, on_sigterm)


@contextmanager
def sigterm_as_notice() -> Iterator[None]:
    """SIGTERM is a notice while the block runs."""
    _training.set()
    try:
        yield
    finally:
        _training.clear()
