"""`bertkd`: parse, call, print. Results go to stdout, logs and progress to stderr."""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from bertkd_ray.artifacts.storage_errors import as_reported
from bertkd_ray.cli.parser import make_parser, parse
from bertkd_ray.core.redaction import redacted_stream
from bertkd_ray.core.timeouts import exit_past_hung_calls
from bertkd_ray.execution.ray import cluster_address

__all__ = ["main", "make_parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    if sys.stderr is not None:
        sys.stderr = redacted_stream(sys.stderr)
    options = parse(arguments)
    # The hub's progress bars and the tokenizers' warnings about forks say nothing to this program's user.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    cluster_address()  # before anything imports Ray
    # What `ray job stop` and a node's shutdown send is as much an interruption as Ctrl-C.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        return options.call(options) or 0
    except KeyboardInterrupt:
        print("bertkd: interrupted; run the same command to go on", file=sys.stderr)
        return 1
    except Exception as error:
        reported = as_reported(error)
        if reported is None:
            raise
        print(f"bertkd: error: {reported}", file=sys.stderr)
        return exit_past_hung_calls(reported.exit_code)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
