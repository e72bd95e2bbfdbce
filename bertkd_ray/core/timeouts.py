"""Calls to machines that may never answer: the libraries behind them try for minutes, or for ever."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

TIMEOUT_SECONDS = 30.0

Answer = TypeVar("Answer")

_left_behind: list[threading.Thread] = []


def call_with_timeout(call: Callable[[], Answer], seconds: float | None = None) -> Answer:
    """What a call gives or raises; TimeoutError when it has not ended after so many seconds (default: 30).

    The call itself cannot be stopped: its thread is left behind (see `exit_past_hung_calls`).
    """
    patience = TIMEOUT_SECONDS if seconds is None else seconds
    answers: list[Answer] = []
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=ask, name="asking", daemon=True)
    thread.start()
    thread.join(patience)
    if failures:
        raise failures[0]
    if not answers:
        _left_behind.append(thread)
        raise TimeoutError(f"no answer within {patience:.0f} seconds")
    return answers[0]


def exit_past_hung_calls(code: int) -> int:
    """The exit code, with which the process will end even if a call is still waiting for its answer.

    Libraries wait for such calls when the interpreter ends (pyarrow for those to S3).
    """
    if any(thread.is_alive() for thread in _left_behind):
        atexit.register(_leave, code)
    return code


def _leave(code: int) -> None:
    if any(thread.is_alive() for thread in _left_behind):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
