"""Errors that end a command with one line instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertkd_ray.core.redaction import escape_controls, redacted


class ReportedError(Exception):
    """Its message is one line that says what is wrong and what to do; the command line prints it and no traceback.

    Credentials in URIs are hidden from the message, and control characters escaped.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(escape_controls(redacted(message)))


class UserError(ReportedError):
    """A mistake in the user's input or configuration.

    The message names the file and line, or the configuration key, and the fix.
    """

    exit_code = 2


class StorageError(ReportedError):
    """A place that cannot be written or read: full, over its quota, read-only, broken, closed to this user.

    The message names the place, and how much room it has where that is known. The same command goes on once the
    cause is gone.
    """


class TrainingDivergedError(ReportedError):
    """The loss or the gradient is no longer a number."""


class DeviceMemoryError(ReportedError):
    """The memory of a GPU is too small for a training, whatever was tried."""


class DamagedCheckpointError(ReportedError):
    """A checkpoint that a training cannot go on from."""


def one_line(error: BaseException) -> str:
    """An error's message without line breaks and credentials, of which a part would be left where it is cut off."""
    return redacted(" ".join(str(error).split())) or type(error).__name__


@contextmanager
def unreadable_as_user_error(path: Path) -> Iterator[None]:
    """Whatever a library raises as it reads a student's files becomes one line; a ReportedError passes."""
    try:
        yield
    except ReportedError:
        raise
    except Exception as error:
        reason = one_line(error)[:300]
        raise UserError(f"{path}: damaged, or of another model ({reason}); make the export again") from error


def brief_repr(value: object) -> str:
    """A value for a message, cut off where it is long; credentials are hidden first, or a part might be left."""
    try:
        text = redacted(repr(value))
    except ValueError:
        # Python refuses to write out whole numbers of thousands of digits.
        return "a number with very many digits"
    return text if len(text) <= 200 else f"{text[:200]}…"
