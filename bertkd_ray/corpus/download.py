"""A file from the web: resumed where it was cut off, checked, and under its name only when it is whole.

While it comes, the bytes stand in `NAME.part`, and `NAME.part.json` says what they are of. A part is continued only if
the server says that the file is still the same (If-Range with a strong ETag or the date of its last change), or if a
checksum will tell.

Not supported: parallel connections, passwords, other schemes than http and https.
"""

import errno
import fcntl
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel

from bertkd_ray.core.console import Progress
from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.core.redaction import redacted
from bertkd_ray.corpus.readers import stored_hash

_BLOCK = 1 << 18
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE_NOT_SATISFIABLE = 416
_LONGEST_PAUSE, _LONGEST_NAME = 60.0, 200


def fetch(
    url: str,
    directory: str | Path,
    *,
    sha256: str | None = None,
    timeout: float = 30.0,
    tries: int = 5,
    pause: float = 1.0,
) -> Path:
    """The local file of a URL, downloaded unless it is there.

    directory: made if needed; each URL has a folder of its own in it, so that two files of one name do not meet.
    sha256: in hexadecimal; None takes what comes. timeout: seconds without a byte after which a connection is given up.
    tries: connections in a row that bring nothing new before all is given up. pause: seconds before the second try,
    doubled for each further one. A second process that wants the same file waits for the first.
    Raises UserError if the URL is no file's or not http(s), if the server refuses (404) or is out of reach, stalls or
    cuts off for ever, for a checksum that differs, and if the directory cannot be written. What was downloaded stays
    where it is then, and the next call goes on with it. A server that gives no length can cut off unseen; only a
    checksum tells.
    """
    sha256 = None if sha256 is None else sha256.lower()
    name = _file_name(url)
    folder = Path(directory) / hashlib.sha256(url.encode()).hexdigest()[:16]
    with _locked(folder):
        path = folder / name
        if path.exists():
            _require_checksum(path, sha256, f"the file from {redacted(url)}", "delete it to download it again")
            return path
        download = _Download(url, path, is_checked=sha256 is not None)
        if not download.is_whole or (sha256 is not None and stored_hash(str(download.part)) != sha256):
            if download.is_whole:
                download.forget()
            download.run(timeout, tries, pause)
        different = "the server has another file than was expected"
        _require_checksum(download.part, sha256, f"what {redacted(url)} sent", different)
        os.replace(download.part, path)
        download.forget()
        return path


class _Version(BaseModel):
    """The version of a file on a server."""

    validator: str | None = None
    """Strong ETag, else the date of the last change, as the server gave it."""
    size: int | None = None
    """Bytes of the whole file, if the server said."""


class _TransientError(Exception):
    """A failure that another attempt may not have."""


class _Download:
    """The bytes of a file that have come, the version on the server that they are of, and how the rest comes."""

    def __init__(self, url: str, path: Path, *, is_checked: bool) -> None:
        self._url, self._is_checked = url, is_checked
        self.part = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.part.json")
        try:
            self._version = _Version.model_validate_json(self._note.read_bytes())
        except (OSError, ValueError):
            self._version = _Version()
        self._furthest = self._size
        self._progress: Progress | None = None

    @property
    def _size(self) -> int:
        """Bytes that are there."""
        return self.part.stat().st_size if self.part.exists() else 0

    @property
    def is_whole(self) -> bool:
        """Whether all bytes that the server announced are there."""
        return self.part.exists() and self._size == self._version.size

    def forget(self) -> None:
        """Removes the bytes."""
        self._note.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)
        self._version = _Version()

    def run(self, timeout: float, tries: int, pause: float) -> None:
        """Tries until the part is whole, or until so many tries in a row brought nothing new: UserError as `fetch`."""
        opener, failures, is_done = _opener(), 0, False
        try:
            while not is_done:
                before = self._furthest
                try:
                    self._attempt(opener, timeout)
                    is_done = True
                except _TransientError as failure:
                    failures = 0 if self._furthest > before else failures + 1
                    if failures >= tries:
                        raise UserError(
                            f"{redacted(self._url)}: {failure}, {tries} times in a row after {self._size:,} bytes; "
                            "check the network and run again to go on from there, or download the file yourself and "
                            "give its path"
                        ) from failure
                    time.sleep(min(pause * 2 ** max(failures - 1, 0), _LONGEST_PAUSE))
        finally:
            if self._progress is not None:
                self._progress.close(failed=not is_done)

    def _attempt(self, opener: urllib.request.OpenerDirector, timeout: float) -> None:
        """One connection, to the end of the file."""
        request = urllib.request.Request(self._url, headers={"Accept-Encoding": "identity"})
        if self._size and (self._version.validator or self._is_checked):
            request.add_header("Range", f"bytes={self._size}-")
            if self._version.validator:
                request.add_header("If-Range", self._version.validator)
        try:
            with opener.open(request, timeout=timeout) as response:
                self._receive(response)
        except urllib.error.HTTPError as error:
            error.close()
            status = f"the server answers {error.code} {error.reason}"
            if error.code == _RANGE_NOT_SATISFIABLE:
                self.forget()  # it is longer than the server's file, so it is of another
            if error.code in (_RANGE_NOT_SATISFIABLE, *_TRANSIENT_STATUSES):
                raise _TransientError(status) from error
            raise UserError(f"{redacted(self._url)}: {status}; correct the address") from error
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(_reason(error)) from error

    def _receive(self, response: Any) -> None:
        start = _range_start(response)
        size = None if response.length is None else start + response.length
        if start > self._size:
            raise _TransientError(f"the server skips to byte {start:,}")
        if self._progress is None:
            self._progress = Progress(size, f"download {self.part.stem}", "bytes", initial=start)
        tag = response.headers.get("ETag") or "W/"
        validator = response.headers.get("Last-Modified") if tag.startswith("W/") else tag
        with _writing(self.part):
            file = self._opened(_Version(validator=validator, size=size), start)
        done = start
        with file:
            while block := response.read1(_BLOCK):
                with _writing(self.part):
                    file.write(block)
                    file.flush()
                done += len(block)
                self._furthest = max(self._furthest, done)
                self._progress.update(done)
        if size is not None and done < size:
            raise _TransientError(f"the server cuts off at {done:,} of {size:,} bytes")

    def _opened(self, version: _Version, start: int) -> IO[bytes]:
        """The part to write to, truncated to `start` bytes, once the version that it will hold is on disk."""
        self._version = version
        stream = self.part.open("r+b" if start else "wb")
        stream.truncate(start)
        stream.seek(start)
        new = self._note.with_suffix(".new")
        new.write_text(version.model_dump_json(), encoding="utf-8")
        os.replace(new, self._note)
        return stream


def _opener() -> urllib.request.OpenerDirector:
    # No handler for file, ftp and data: a redirection to them is refused like any unknown scheme.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _range_start(response: Any) -> int:
    """The first byte that a response has: 0 unless the server honours the range."""
    if response.status != http.client.PARTIAL_CONTENT:
        return 0
    content_range = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
    if content_range is None:
        raise _TransientError("the server sends a part without saying which")
    return int(content_range[1])


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "the server stalls"
    if isinstance(cause, http.client.IncompleteRead):
        return "the server cuts off"
    return one_line(cause) if isinstance(cause, BaseException) else cause


def _file_name(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_plain = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
    except ValueError:  # no port: an error of the connection would show it, and it may be of a password
        is_plain = False
    if not is_plain or "@" in parts.netloc:
        raise UserError(f"{redacted(url)}: give a path, or an http:// or https:// address without user and password")
    name = unquote(parts.path).rsplit("/", 1)[-1]
    if name in ("", ".", "..") or "\0" in name or len(name.encode()) > _LONGEST_NAME:
        raise UserError(f"{redacted(url)}: names no file; give the address of the file itself")
    return name


def _require_checksum(path: Path, sha256: str | None, what: str, fix: str) -> None:
    if sha256 is not None and (digest := stored_hash(str(path))) != sha256:
        raise UserError(f"{path}: {what} has SHA-256 {digest}, not {sha256}; {fix}, or correct the checksum")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "no space is left" if error.errno == errno.ENOSPC else error.strerror
        raise UserError(f"{path}: cannot be written ({reason}); free space, or set another directory") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder for this process alone; the lock ends with the process, however it ends."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    if link := next((path for path in (folder, *folder.iterdir()) if path.is_symlink()), None):
        raise UserError(f"{link}: is a link, and a download would be written to where it leads; remove the link")
    try:
        with _writing(folder):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
