"""What a full disk, a quota, a read-only mount or a closed bucket says, in whatever words and however deep inside."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertkd_ray.core.console import human_bytes
from bertkd_ray.core.errors import ReportedError, StorageError, one_line

_ROOM = "make room"
_RIGHTS = "allow it"
_REPAIR = "mend it"
_FIXES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
}
_REFUSALS = frozenset({*_FIXES, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO})
# Libraries that write files of their own, or read a bucket, keep of the system's error its text alone.
_IN_WORDS = (
    (re.compile(r"no space left on device|disk is full|\bos error 28\b", re.IGNORECASE), errno.ENOSPC),
    (re.compile(r"disk quota exceeded|\bos error 122\b", re.IGNORECASE), errno.EDQUOT),
    (re.compile(r"read-only file system|readonly database|\bos error 30\b", re.IGNORECASE), errno.EROFS),
    (re.compile(r"input/output error|disk i/o error|\bos error 5\b", re.IGNORECASE), errno.EIO),
    (re.compile(r"access_denied|accessdenied|HTTP status 403", re.IGNORECASE), errno.EACCES),
)
_LONGEST_REASON = 300
_LITTLE_BYTES = 1 << 16


def storage_errno(error: BaseException) -> int | None:
    """The `errno` of the refusal that an error is, by number or in words; None for an error of another kind."""
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return error.errno
    text = str(error)
    return next((number for words, number in _IN_WORDS if words.search(text)), None)


def is_out_of_space(error: BaseException) -> bool:
    """Whether an error says that a disk or a quota is full, which is no mistake of a configuration."""
    return storage_errno(error) in (errno.ENOSPC, errno.EDQUOT)


def storage_error(place: str, what: str, error: BaseException, local: str | None = None) -> StorageError:
    """What is told of a place that cannot be used. local: a path in its file system, whose room is named."""
    number = storage_errno(error)
    said = one_line(error)[:_LONGEST_REASON]
    reason = said if number is None or _tells_more(error) else os.strerror(number)
    room = f"; {free_room(local)}" if local is not None and number == errno.ENOSPC else ""
    fix = _REPAIR if number is None else _FIXES.get(number, _REPAIR)
    return StorageError(
        f"{place} cannot be {what} ({reason}{room}); {fix} and run the same command, which goes on from there"
    )


def _tells_more(error: BaseException) -> bool:
    """Whether an error's words say more than its number: a bucket names the request that it refused."""
    return not isinstance(error, OSError) or error.errno is None


def free_room(path: str) -> str:
    """How much can still be written in the file system of a path that need not exist."""
    here = Path(path)
    while not here.exists():
        here = here.parent
    found = os.statvfs(here)
    if found.f_files and not found.f_favail:
        return "no further file fits"
    return f"{human_bytes(found.f_bavail * found.f_frsize)} free"


def as_reported(error: BaseException) -> ReportedError | None:
    """The error to report for what ended a command, or None for one that wants its traceback.

    A refusal that nobody has put into words yet is found in the errors of Ray, MLflow and torch. Where a refusal has
    caused another (a full disk that does not even take the note of it), it is the one that is told.
    """
    if isinstance(error, ReportedError):
        return error
    number = storage_errno(error)
    if number is None:
        return None
    before: BaseException | None = error
    while before is not None:
        if isinstance(before, StorageError):
            return before
        before = before.__cause__ or before.__context__
    # Without the words of those who passed it on, which may be pages.
    bare = OSError(number, os.strerror(number))
    if "sqlite3." in str(error):
        return storage_error("tracking.uri: the database of the runs", "written", bare)
    here = tempfile.gettempdir()
    named = getattr(error, "filename", None)
    return storage_error(str(named or f"{here} (TMPDIR) or the storage"), "written", bare, str(named or here))


@contextmanager
def scratch_directory(prefix: str) -> Iterator[Path]:
    """A temporary directory of this process, removed after the block.

    Raises StorageError, which names the directory and not the storage, when what the block writes there finds no room.
    What writes to a store inside the block has to report its own failures.
    """
    place = _temporary_place()
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=place) as directory:
            try:
                yield Path(directory)
            except ReportedError:
                raise
            except Exception:
                # torch says that a file could not be written, and not why: the system says it again.
                _write_a_little(Path(directory))
                raise
    except ReportedError:
        raise
    except Exception as error:
        if storage_errno(error) is None:
            raise
        raise storage_error(f"temporary directory: {place} (TMPDIR)", "written", error, place) from error


def _temporary_place() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise StorageError(f"{error.strerror}; make room, or set TMPDIR to a directory that can be written") from error


def _write_a_little(directory: Path) -> None:
    with tempfile.TemporaryFile(dir=directory) as probe:
        probe.write(bytes(_LITTLE_BYTES))
