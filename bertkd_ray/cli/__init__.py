"""`bertkd`: parse, call, print. Results go to stdout, logs and progress to stderr."""

import io
import os
import select
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Sequence

from bertkd_ray.artifacts.storage_errors import as_reported
from bertkd_ray.cli.arguments import is_config
from bertkd_ray.cli.parser import make_parser, parse
from bertkd_ray.core.redaction import redacted_stream
from bertkd_ray.core.timeouts import exit_past_hung_calls
from bertkd_ray.execution.ray import cluster_address

__all__ = ["main", "make_parser"]

_STDOUT = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    _prepare_streams()
    # The hub's progress bars and the tokenizers' warnings about forks say nothing to this program's user.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    cluster_address()  # before anything imports Ray
    # What `ray job stop` and a node's shutdown send is as much an interruption as Ctrl-C.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = Namespace()
    try:
        options = parse(arguments)
        code = options.call(options) or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        goes_on = "; run the same command to go on" if is_config(vars(options).get("config") or "") else ""
        print(f"bertkd: interrupted{goes_on}", file=sys.stderr)
        return 1
    except Exception as error:
        if isinstance(error, OSError) and (refused := _stdout_error()) is not None:
            if isinstance(refused, BrokenPipeError):
                return 0  # of one who reads no further there is nothing to say
            print(f"bertkd: error: stdout: {refused.strerror}; give a place that can be written", file=sys.stderr)
            return 1
        reported = as_reported(error)
        if reported is None:
            raise
        print(f"bertkd: error: {reported}", file=sys.stderr)
        return exit_past_hung_calls(reported.exit_code)


def _prepare_streams() -> None:
    """Makes sure that whatever is printed can be, and that no credentials are.

    A stream that was closed when the process began is None, and its number would be given to the next file opened,
    which then got what libraries print.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w"))
    # What the terminal's encoding lacks is written as an escape, not an error after hours of work.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = redacted_stream(sys.stderr)


def _stdout_error() -> OSError | None:
    """Why stdout does not take what has been printed; None where it does."""
    error: OSError | None = None
    try:
        sys.stdout.flush()
    except OSError as refused:
        error = refused
    poll = select.poll()
    poll.register(_STDOUT, 0)
    if any(event & select.POLLERR for _, event in poll.poll(0)):  # where Python keeps nothing to be flushed
        error = BrokenPipeError()
    if error is not None:
        # Python flushes it once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    return error
