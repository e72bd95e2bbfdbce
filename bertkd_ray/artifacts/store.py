"""A directory or a bucket: files that appear in one step and last, and one line for an error of the storage."""

import errno
import hashlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

import pyarrow as pa
from pyarrow import fs

from bertkd_ray.artifacts.storage_errors import is_out_of_space, storage_error
from bertkd_ray.core.errors import StorageError, UserError, one_line
from bertkd_ray.core.paths import expand_home
from bertkd_ray.core.redaction import redacted
from bertkd_ray.core.timeouts import call_with_timeout

_COPY_BYTES = 1 << 20
_NO_DIRECTORIES = ("s3", "gcs", "abfs")
"""File systems where a directory is a beginning of names: making one asks for rights that writing does not need."""
_LARGEST_COPY = 5 << 30
"""Bytes of an object that S3 copies at once."""
_TOKEN_DIGITS = 12
# Hidden, so that whoever reads a directory of Parquet files as one table passes over it.
_SCRATCH_NAME = re.compile(rf"\..+\.[0-9a-f]{{{_TOKEN_DIGITS}}}\.partial")
# macOS, Windows, and NFS clients for a file that is removed while it is open.
_SYSTEM_FILE = re.compile(r"\.DS_Store|\._.*|(?i:thumbs\.db|desktop\.ini)|\.nfs[0-9a-f]+")


class Store:
    """Files in a directory or under a URI (`s3://`, `gs://`), through pyarrow's filesystems.

    Every method that reads or writes contents raises StorageError when the storage fails.
    """

    def __init__(self, storage: str) -> None:
        """Raises UserError when the URI names no filesystem that pyarrow knows."""
        self.storage = storage = expand_home(storage)
        if "://" in storage:
            try:
                self.fs, self.root = call_with_timeout(lambda: fs.FileSystem.from_uri(storage))
            except (pa.ArrowException, OSError) as error:
                reason = redacted(one_line(error), secrets_of=storage)
                raise UserError(f"storage: {storage} cannot be opened: {reason}") from None
        else:
            self.fs, self.root = fs.LocalFileSystem(), str(Path(storage).resolve())

    @property
    def is_local(self) -> bool:
        """Whether the store is a directory of this file system."""
        return isinstance(self.fs, fs.LocalFileSystem)

    @property
    def uri(self) -> str:
        """The absolute directory, or the URI, as a process elsewhere can open it."""
        return self.uri_of()

    def uri_of(self, *parts: str) -> str:
        """The absolute path or URI of a path inside the store."""
        if self.is_local:
            return self.path(*parts)
        above, mark, query = self.storage.partition("?")
        return "/".join([above.rstrip("/"), *parts]) + mark + query

    def display_uri(self, *parts: str) -> str:
        """The absolute path or URI of a path inside the store, without credentials."""
        return redacted(self.uri_of(*parts))

    def path(self, *parts: str) -> str:
        """A path inside the store, for the store's filesystem."""
        return "/".join([self.root, *parts])

    def exists(self, *parts: str) -> bool:
        """Whether a file stands at this path. Raises UserError where it is a link."""
        with self.reporting_errors("read", *parts):
            if self.is_local and Path(self.path(*parts)).is_symlink():
                self._require_no_link(*parts)
            return bool(self.fs.get_file_info(self.path(*parts)).type == fs.FileType.File)

    def modified(self, *parts: str) -> float:
        """When a file was last written, in seconds since 1970; 0 where the storage does not say."""
        with self.reporting_errors("read", *parts):
            written = self.fs.get_file_info(self.path(*parts)).mtime
        return 0.0 if written is None else float(written.timestamp())

    def directories(self) -> list[str]:
        """The names of the directories at the top of the store, sorted; none where the store is not made yet."""
        with self.reporting_errors("read"):
            infos = self.fs.get_file_info(fs.FileSelector(self.root, allow_not_found=True))
        return sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)

    def files(self, *parts: str) -> list[tuple[str, int]]:
        """Every file below a directory: its path relative to it, and its size in bytes; sorted.

        What a writer has not finished, or left behind when it was killed, is not among them, nor what operating systems
        leave in directories (`.DS_Store`, `Thumbs.db`).
        """
        return [(name, size) for name, size in self._all_files(*parts) if not _is_scratch(name)]

    def links(self, *parts: str) -> list[str]:
        """The symbolic links below a directory, sorted; none of them is a file of it. There are none in a bucket."""
        base = self.path(*parts)
        with self.reporting_errors("read", *parts):
            paths = (path for path, info in _walk(base) if stat.S_ISLNK(info.st_mode)) if self.is_local else ()
            return sorted(path[len(base) + 1 :] for path in paths)

    def _all_files(self, *parts: str) -> list[tuple[str, int]]:
        """Files with writers' temporary ones, without an operating system's. Raises UserError as `_require_no_link`."""
        base = self.path(*parts)
        with self.reporting_errors("read", *parts):
            self._require_no_link(*parts)
            if self.is_local:
                files = [(path, info.st_size) for path, info in _walk(base) if stat.S_ISREG(info.st_mode)]
            else:
                infos = self.fs.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
                files = [(info.path, info.size) for info in infos if info.type == fs.FileType.File]
        own = ((path, size) for path, size in files if not _SYSTEM_FILE.fullmatch(path.rpartition("/")[2]))
        return sorted((path[len(base) + 1 :], size) for path, size in own)

    def _require_no_link(self, *parts: str) -> None:
        """Raises UserError where the way from the root (which may be one) to a directory leads through a link."""
        location = Path(self.root)
        for part in PurePosixPath(*parts).parts if self.is_local else ():
            location /= part
            if location.is_symlink():
                raise UserError(
                    f"storage: {location} is a link, and what it leads to is not touched; move it elsewhere, or make "
                    "the whole storage a link"
                )

    @contextmanager
    def open_input(self, *parts: str) -> Iterator[pa.NativeFile]:
        """A file to read from at any position, closed after the block.

        Raises FileNotFoundError if there is none, and StorageError for all that pyarrow cannot read inside the block.
        """
        with self.reporting_errors("read", *parts), self.fs.open_input_file(self.path(*parts)) as source:
            yield source

    def read(self, *parts: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError if there is none."""
        with self.open_input(*parts) as source:
            return bytes(source.read())

    def write(self, data: bytes, *parts: str, lasting: bool = True) -> None:
        """Writes a file in one step: a reader sees the whole of it or nothing, and what it sees outlasts a crash.

        It is a scratch file of a name of its own first, in a directory synced and renamed, in a bucket moved.
        lasting: False for what is of no use after a crash of the machine, and need not wait for the disk.
        """
        with self._new_file(len(data), *parts, lasting=lasting) as stream:
            stream.write(data)

    def upload(self, local: Path, *parts: str, others_stay: bool = False) -> None:
        """Makes a directory of the store hold the files of a local one: each in one step, and no others by default."""
        wanted = sorted(str(path.relative_to(local)) for path in local.rglob("*") if path.is_file())
        for name in wanted:
            size = (local / name).stat().st_size
            with (local / name).open("rb") as source, self._new_file(size, *parts, name) as sink:
                shutil.copyfileobj(source, sink, _COPY_BYTES)
        if not others_stay:
            self.keep_only(wanted, *parts)

    def download(self, local: Path, *parts: str, names: Iterable[str] | None = None) -> None:
        """Copies files below a directory of the store, all or those of these names, into a local one, made if needed.

        Each appears when it is whole. Raises UserError, before any is written, for an object whose name is no path
        below the directory: whoever can write into a bucket would choose where it ends up here.
        """
        names = [name for name, _ in self.files(*parts)] if names is None else list(names)
        for name in names:
            if {"", ".", ".."}.intersection(name.split("/")):
                raise UserError(
                    f"storage: {self.display_uri(*parts, name)} has a name that is no path below its directory; "
                    "move this object elsewhere"
                )
        for name in names:
            with self.open_input(*parts, name) as source, _whole_file(local / name, lasting=False) as sink:
                shutil.copyfileobj(source, sink, _COPY_BYTES)

    def local(self, scratch: Path, *parts: str) -> Path:
        """A local directory with the files of the store's directory `parts`; remote ones are copied below `scratch`."""
        if self.is_local:
            return Path(self.path(*parts))
        target = scratch.joinpath(*parts)
        self.download(target, *parts)
        return target

    def keep_only(self, names: list[str], *parts: str) -> list[str]:
        """Removes all files and links below a directory but the files named and the operating system's.

        Returns what was removed, scratch files aside. What a link leads to stays as it is.
        """
        wanted = set(names)
        extra = [name for name, _ in self._all_files(*parts) if name not in wanted] + self.links(*parts)
        for name in extra:
            self.delete_file(*parts, name)
        return [name for name in extra if not _is_scratch(name)]

    def delete_file(self, *parts: str) -> None:
        """Removes a file, if it is there; another process may be doing so too."""
        with self.reporting_errors("removed", *parts), suppress(FileNotFoundError):
            self.fs.delete_file(self.path(*parts))

    def delete(self, *parts: str) -> None:
        """Removes a directory and what lies in it, if it is there; another process may be doing so too."""
        target = self.path(*parts)
        with self.reporting_errors("removed", *parts), suppress(FileNotFoundError):
            if self.fs.get_file_info(target).type == fs.FileType.Directory:
                self._require_no_link(*parts)
                self.fs.delete_dir(target)

    def sha256(self, *parts: str) -> str:
        """The checksum of a file, read in pieces."""
        with self.open_input(*parts) as source:
            return hashlib.file_digest(source, "sha256").hexdigest()

    def require_writable(self) -> None:
        """Raises UserError when nothing can be written here, or nobody answers; StorageError when it is only full."""
        try:
            call_with_timeout(self._write_probe)
        except (OSError, pa.ArrowException) as error:
            if is_out_of_space(error):
                raise self._error("written", error) from None
            reason = redacted(one_line(error), secrets_of=self.storage)
            raise UserError(f"storage: {self.storage} cannot be written: {reason}") from None

    def _write_probe(self) -> None:
        """Writes a file of no use and removes it."""
        probe = self.path(_scratch_name("writable"))
        with self._whole_object(probe, in_place=True) as stream:
            stream.write(b"\0")
        self.fs.delete_file(probe)

    @contextmanager
    def _new_file(self, size: int, *parts: str, lasting: bool = True) -> Iterator[IO[bytes]]:
        """A stream whose file stands under its name once the block has ended well."""
        with self.reporting_errors("written", *parts):
            if self.is_local:
                self._require_no_link(*PurePosixPath(*parts).parent.parts)
                with _whole_file(Path(self.path(*parts)), lasting=lasting) as stream:
                    yield stream
            else:
                with self._whole_object(self.path(*parts), in_place=size > _LARGEST_COPY) as stream:
                    yield stream

    @contextmanager
    def _whole_object(self, target: str, *, in_place: bool) -> Iterator[IO[bytes]]:
        """An object that appears when the block ended well: pyarrow completes an upload whose block raises, too.

        in_place: no scratch object is moved; one whose block raises is there for a moment.
        """
        directory, _, name = target.rpartition("/")
        scratch = target if in_place else f"{directory}/{_scratch_name(name)}"
        if self.fs.type_name not in _NO_DIRECTORIES or "allow_bucket_creation" in self.storage:
            self.fs.create_dir(directory, recursive=True)
        try:
            with self.fs.open_output_stream(scratch) as stream:
                yield stream
            if scratch != target:
                self.fs.move(scratch, target)
        except BaseException:
            with suppress(OSError):
                self.fs.delete_file(scratch)
            raise

    @contextmanager
    def reporting_errors(self, what: str, *parts: str) -> Iterator[None]:
        """Turns errors of the storage in the block into StorageError: "… cannot be `what`" (`written`, `read`, …)."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            if what == "read" and isinstance(error, FileNotFoundError):
                raise
            raise self._error(what, error, *parts) from error

    def _error(self, what: str, error: BaseException, *parts: str) -> StorageError:
        return storage_error(f"storage: {self.display_uri(*parts)}", what, error, self.root if self.is_local else None)


def store_above(directory: str) -> tuple[Store, str]:
    """The store that holds an artifact's directory (a path or a URI), and the directory's name."""
    if "://" not in directory:
        path = Path(expand_home(directory)).resolve()
        return Store(str(path.parent)), path.name
    location, mark, query = directory.partition("?")
    above, _, name = location.rstrip("/").rpartition("/")
    return Store(above + mark + query), name


def _walk(base: str) -> Iterator[tuple[str, os.stat_result]]:
    """All below a local directory, which need not be there, with what it is itself: no link is followed."""

    def unless_gone(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for directory, subdirectories, names in os.walk(base, onerror=unless_gone):
        for name in (*subdirectories, *names):
            path = os.path.join(directory, name)
            with suppress(FileNotFoundError):
                yield path, os.lstat(path)


@contextmanager
def _whole_file(target: Path, *, lasting: bool) -> Iterator[IO[bytes]]:
    """A file that appears when the block ended well, a lasting one on the disk itself: data first, then its name."""
    _make_directory(target.parent)
    scratch = target.with_name(_scratch_name(target.name))
    try:
        with scratch.open("xb") as stream:
            yield stream
            if lasting:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(scratch, target)
    except BaseException:
        # Of a full disk this is the room that the next try needs.
        scratch.unlink(missing_ok=True)
        raise
    if lasting:
        _sync_directory(target.parent)


def _make_directory(directory: Path) -> None:
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems keep names by themselves and cannot sync.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _scratch_name(name: str) -> str:
    """A name that no other writer has, which `_is_scratch` knows."""
    return f".{name}.{uuid.uuid4().hex[:_TOKEN_DIGITS]}.partial"


def _is_scratch(path: str) -> bool:
    return _SCRATCH_NAME.fullmatch(path.rpartition("/")[2]) is not None
