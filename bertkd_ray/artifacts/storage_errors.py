"""Errors of a storage (full disk, quota, read-only mount, closed bucket), known by number or message, in one line."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertkd_ray.core.console import human_bytes
from bertkd_ray.core.errors import ReportedError, StorageError, one_line

_FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "allow it"),
}
_STORAGE_ERRNOS = frozenset({*_FIXES, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO})
# Libraries that write files of their own, or read a bucket, keep of the system's error its text alone.
_MESSAGES = (
    (re.compile(r"no space left on device|disk is full|\bos error 28\b", re.IGNORECASE), errno.ENOSPC),
    (re.compile(r"disk quota exceeded|\bos error 122\b", re.IGNORECASE), errno.EDQUOT),
    (re.compile(r"read-only file system|readonly database|\bos error 30\b", re.IGNORECASE), errno.EROFS),
    (re.compile(r"input/output error|disk i/o error|\bos error 5\b", re.IGNORECASE), errno.EIO),
    (re.compile(r"access_denied|accessdenied|HTTP status 403", re.IGNORECASE), errno.EACCES),
)
_LONGEST_REASON = 300
_PROBE_BYTES = 1 << 16


def storage_errno(error: BaseException) -> int | None:
    """The `errno` of an error of a storage, by its number or its message; None for an error of another kind."""
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
        return error.errno
    text = str(error)
    return next((number for message, number in _MESSAGES if message.search(text)), None)


def _is_of_bucket(error: BaseException) -> bool:
    """Whether an error is the refusal of an object store, which has no number, and no disk of this machine."""
    return storage_errno(error) == errno.EACCES and getattr(error, "errno", None) is None


def is_out_of_space(error: BaseException) -> bool:
    """Whether an error says that a disk or a quota is full, which is no mistake of a configuration."""
    return storage_errno(error) in (errno.ENOSPC, errno.EDQUOT)


def storage_error(location: str, what: str, error: BaseException, local: str | None = None) -> StorageError:
    """The error of a place that cannot be used. local: a path in its file system, whose free space is named."""
    number = storage_errno(error)
    reason = one_line(error)[:_LONGEST_REASON]
    # An error without a number says more than one would: a bucket's names the request that failed.
    if number is not None and isinstance(error, OSError) and error.errno is not None:
        reason = os.strerror(number)
    room = f"; {free_space(local)}" if local is not None and number == errno.ENOSPC else ""
    fix = f"{_FIXES.get(number or 0, 'mend it')} and run the same command, which goes on from there"
    return StorageError(f"{location} cannot be {what} ({reason}{room}); {fix}")


def free_space(path: str) -> str:
    """How much can still be written in the file system of a path that need not exist."""
    stats = os.statvfs(next(path for path in (Path(path), *Path(path).parents) if path.exists()))
    if stats.f_files and not stats.f_favail:
        return "no further file fits"
    return f"{human_bytes(stats.f_bavail * stats.f_frsize)} free"


def as_reported(error: BaseException) -> ReportedError | None:
    """The error to report for what ended a command, or None for one that wants its traceback.

    An error of the storage that has no line of its own yet is looked for in the errors of Ray, MLflow and torch. Where
    it has caused another (a full disk that does not even take the note of it), the first is reported.
    """
    if isinstance(error, ReportedError):
        return error
    number = storage_errno(error)
    if number is None:
        return None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StorageError):
            return cause
        cause = cause.__cause__ or cause.__context__
    # Without the messages of those who passed it on, which may be pages.
    bare = OSError(number, os.strerror(number))
    if "sqlite3." in str(error):
        return storage_error("tracking.uri: the database of the runs", "written", bare)
    if _is_of_bucket(error):
        return storage_error("a bucket (of the storage, or of the corpus)", "used", error)
    here = tempfile.gettempdir()
    named = getattr(error, "filename", None)
    return storage_error(str(named or f"{here} (TMPDIR) or the storage"), "written", bare, str(named or here))


@contextmanager
def scratch_directory(prefix: str) -> Iterator[Path]:
    """A temporary directory of this process, removed after the block.

    Raises StorageError, which names the directory and not the storage, when what the block writes there finds no room.
    What writes to a store inside the block has to report its own failures.
    """
    try:
        location = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise StorageError(f"{error.strerror}; make room, or set TMPDIR to a directory that can be written") from error
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=location) as directory:
            try:
                yield Path(directory)
            except ReportedError:
                raise
            except Exception:
                # torch says that a file could not be written, and not why: the system says it again.
                with tempfile.TemporaryFile(dir=directory) as probe:
                    probe.write(bytes(_PROBE_BYTES))
                raise
    except Exception as error:
        if isinstance(error, ReportedError) or storage_errno(error) is None or _is_of_bucket(error):
            raise
        raise storage_error(f"temporary directory: {location} (TMPDIR)", "written", error, location) from error
