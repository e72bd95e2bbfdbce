from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from bertkd_ray.core.timeouts import call_with_timeout


def test_an_answer_and_an_error_are_passed_on():
    assert call_with_timeout(lambda: 7) == 7
    assert call_with_timeout(lambda: None) is None
    with pytest.raises(KeyError, match="x"):
        call_with_timeout(lambda: {}["x"])


def test_no_answer():
    ended = threading.Event()
    started = time.perf_counter()
    with pytest.raises(TimeoutError, match=r"^no answer within 0 seconds$"):
        call_with_timeout(ended.wait, 0.05)
    assert time.perf_counter() - started < 5
    ended.set()


SCRIPT = """
import atexit, sys, threading, time
atexit.register(time.sleep, 600)  # as a library that waits for its call
from bertkd_ray.core.timeouts import call_with_timeout, exit_past_hung_calls
{before}
print("said")
sys.exit(exit_past_hung_calls(3))
"""


def test_the_process_ends_all_the_same():
    waiting = "try: call_with_timeout(lambda: time.sleep(600), 0.05)\nexcept TimeoutError as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=waiting)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (3, "no answer within 0 seconds\nsaid\n")


def test_a_process_that_waits_for_nothing_ends_as_usual():
    script = SCRIPT.replace("600", "0").format(before="call_with_timeout(lambda: 1)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "said\n")
