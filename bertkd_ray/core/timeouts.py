"""Calls to machines that may never answer: the libraries behind them try for minutes, or for ever."""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

TIMEOUT_SECONDS = 30.0

Answer = TypeVar("Answer")

_hung_threads: list[threading.Thread] = []


def call_with_timeout(call: Callable[[], Answer], seconds: float | None = None) -> Answer:
    """What a call gives or raises; TimeoutError when it has not ended after so many seconds (default: 30).

    The call itself cannot be stopped: its thread is left behind (see `exit_past_hung_calls`).
    """
    timeout = TIMEOUT_SECONDS if seconds is None else seconds
    outcome: Future[Answer] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="call with timeout", daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome.done():
        _hung_threads.append(thread)
        raise TimeoutError(f"no answer within {timeout:.0f} seconds")
    return outcome.result()


def exit_past_hung_calls(code: int) -> int:
    """The exit code, with which the process will end even if a call is still waiting for its answer.

    Libraries wait for such calls when the interpreter ends (pyarrow for those to S3).
    """
    if any(thread.is_alive() for thread in _hung_threads):
        atexit.register(_exit_if_hung, code)
    return code


def _exit_if_hung(code: int) -> None:
    if any(thread.is_alive() for thread in _hung_threads):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
