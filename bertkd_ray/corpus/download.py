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
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import unquote, urlsplit

from bertkd_ray.core.console import Progress
from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.core.redaction import redacted

_BLOCK = 1 << 18
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE_NOT_SATISFIABLE = 416
_LONGEST_PAUSE = 60.0


def fetch(
    url: str,
    directory: str | Path,
    *,
    sha256: str | None = None,
    timeout: float = 30.0,
    tries: int = 5,
    pause: float = 1.0,
    quiet: bool = False,
) -> Path:
    """The local file of a URL, downloaded unless it is there.

    directory: made if needed; each URL has a folder of its own in it, so that two files of one name do not meet.
    sha256: in hexadecimal; None takes what comes. timeout: seconds without a byte after which a connection is given up.
    tries: connections in a row that bring nothing new before all is given up. pause: seconds before the second try,
    doubled for each further one. quiet: no progress bar. A second process that wants the same file waits for the first.
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
        part = _PartialFile(url, path)
        if not part.is_whole or (sha256 is not None and _sha256(part.path) != sha256):
            if part.is_whole:
                part.forget()
            _Download(part, sha256 is not None, timeout, tries, pause, quiet).run()
        _require_checksum(
            part.path, sha256, f"what {redacted(url)} sent", "the server has another file than was expected"
        )
        part.finish()
        return path


@dataclass(frozen=True)
class _RemoteFile:
    """The version of a file on a server."""

    validator: str | None
    """Strong ETag, else the date of the last change, as the server gave it."""
    size: int | None
    """Bytes of the whole file, if the server said."""


class _PartialFile:
    """The bytes of a file that have come, and the version on the server that they are of."""

    def __init__(self, url: str, path: Path) -> None:
        self.url, self._final = url, path
        self.path = path.with_name(f"{path.name}.part")
        self._version_path = path.with_name(f"{path.name}.part.json")
        self.source = _RemoteFile(None, None)
        if self.path.exists() and self._version_path.exists():
            self.source = _RemoteFile(**json.loads(self._version_path.read_text(encoding="utf-8")))

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def is_whole(self) -> bool:
        """Whether all bytes that the server announced are there."""
        return self.path.exists() and self.size == self.source.size

    def forget(self) -> None:
        """Removes the bytes."""
        self._version_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.source = _RemoteFile(None, None)

    def open(self, source: _RemoteFile, start: int) -> IO[bytes]:
        """The file to write to, truncated to `start` bytes, once the version that it will hold is on disk."""
        self.source = source
        stream = self.path.open("r+b" if start else "wb")
        stream.truncate(start)
        stream.seek(start)
        new_path = self._version_path.with_suffix(".new")
        new_path.write_text(json.dumps(asdict(source)), encoding="utf-8")
        os.replace(new_path, self._version_path)
        return stream

    def finish(self) -> None:
        """Renames the file to its own name."""
        os.replace(self.path, self._final)
        self._version_path.unlink(missing_ok=True)


class _TransientError(Exception):
    """A failure that another attempt may not have."""


class _Download:
    """Tries until the part is whole, or until `tries` of them in a row brought nothing new."""

    def __init__(
        self, part: _PartialFile, is_checked: bool, timeout: float, tries: int, pause: float, quiet: bool
    ) -> None:
        self._part, self._is_checked, self._quiet = part, is_checked, quiet
        self._timeout, self._tries, self._pause = timeout, tries, pause
        self._furthest = part.size
        self._progress: Progress | None = None
        # No handler for file, ftp and data: a redirection to them is refused like any unknown scheme.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            self._opener.add_handler(handler)

    def run(self) -> None:
        """Raises UserError as `fetch`."""
        failures, before, is_done = 0, self._furthest, False
        try:
            while not is_done:
                try:
                    self._attempt()
                    is_done = True
                except _TransientError as failure:
                    failures = 0 if self._furthest > before else failures + 1
                    before = self._furthest
                    if failures >= self._tries:
                        raise UserError(
                            f"{redacted(self._part.url)}: {failure}, {self._tries} times in a row after "
                            f"{self._part.size:,} bytes; check the network and run again to go on from there, or "
                            "download the file yourself and give its path"
                        ) from failure
                    time.sleep(min(self._pause * 2 ** max(failures - 1, 0), _LONGEST_PAUSE))
        finally:
            if self._progress is not None:
                self._progress.close(failed=not is_done)

    def _attempt(self) -> None:
        """One connection, to the end of the file."""
        request = self._request()
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                self._receive(response)
        except urllib.error.HTTPError as error:
            self._raise_for_status(error)
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(_reason(error)) from error

    def _request(self) -> urllib.request.Request:
        request = urllib.request.Request(self._part.url, headers={"Accept-Encoding": "identity"})
        start, validator = self._part.size, self._part.source.validator
        if start and (validator or self._is_checked):
            request.add_header("Range", f"bytes={start}-")
            if validator:
                request.add_header("If-Range", validator)
        return request

    def _raise_for_status(self, error: urllib.error.HTTPError) -> NoReturn:
        error.close()
        status = f"the server answers {error.code} {error.reason}"
        if error.code == _RANGE_NOT_SATISFIABLE:
            self._part.forget()  # it is longer than the server's file, so it is of another
        if error.code in (_RANGE_NOT_SATISFIABLE, *_TRANSIENT_STATUSES):
            raise _TransientError(status) from error
        raise UserError(f"{redacted(self._part.url)}: {status}; correct the address") from error

    def _receive(self, response: Any) -> None:
        start = _range_start(response)
        size = None if response.length is None else start + response.length
        if start > self._part.size:
            raise _TransientError(f"the server skips to byte {start:,}")
        source = _RemoteFile(_validator(response), size)
        if self._progress is None:
            name = self._part.path.name.removesuffix(".part")
            self._progress = Progress(size, f"download {name}", "bytes", initial=start, quiet=self._quiet)
        with _writing(self._part.path), self._part.open(source, start) as file:
            done = start
            while block := _read(response):
                file.write(block)
                done += len(block)
                self._furthest = max(self._furthest, done)
                self._progress.update(done)
        if size is not None and done < size:
            raise _TransientError(f"the server cuts off at {done:,} of {size:,} bytes")


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read1(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _TransientError(_reason(error)) from error
    return block


def _range_start(response: Any) -> int:
    """The first byte that a response has: 0 unless the server honours the range."""
    if response.status != http.client.PARTIAL_CONTENT:
        return 0
    content_range = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
    if content_range is None:
        raise _TransientError("the server sends a part without saying which")
    return int(content_range[1])


def _validator(response: Any) -> str | None:
    tag = response.headers.get("ETag")
    strong = tag if tag and not tag.startswith("W/") else None
    return strong or response.headers.get("Last-Modified")


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "the server stalls"
    if isinstance(cause, http.client.IncompleteRead):
        return "the server cuts off"
    return one_line(cause) if isinstance(cause, BaseException) else cause


def _file_name(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{redacted(url)}: only http:// and https:// addresses are downloaded; give one, or a path")
    name = unquote(parts.path).rsplit("/", 1)[-1]
    if name in ("", ".", "..") or "\0" in name:
        raise UserError(f"{redacted(url)}: names no file; give the address of the file itself")
    return name


def _require_checksum(path: Path, sha256: str | None, what: str, fix: str) -> None:
    if sha256 is not None and (digest := _sha256(path)) != sha256:
        raise UserError(f"{path}: {what} has SHA-256 {digest}, not {sha256}; {fix}, or correct the checksum")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    try:
        with _writing(folder):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
