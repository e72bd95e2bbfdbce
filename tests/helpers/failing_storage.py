"""Object storage, made of a directory, that refuses: after so many written files or bytes, or to be read."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any, Self

import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from bertkd_ray.artifacts import store
from bertkd_ray.corpus import readers


class FaultyStorage:
    """While it is entered, `faulty://…` URIs of stores and corpora name places of this machine, as an object store.

    Users, passwords and queries of the URIs are passed over.

    writes: files that may still be written; size: bytes. A file is there once it is closed, whole, or not at all.
    """

    def __init__(self, *, writes: int = 1 << 30, size: int = 1 << 60, error: OSError | None = None) -> None:
        self.writes, self.size = writes, size
        self.error = error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.reads = True
        self.written: list[str] = []
        self._patch = pytest.MonkeyPatch()

    @staticmethod
    def uri(directory: Path) -> str:
        """The URI of a directory."""
        return f"faulty://{directory}"

    def __enter__(self) -> Self:
        opened = fs.PyFileSystem(fs.FSSpecHandler(_FaultyFiles(self, skip_instance_cache=True)))

        class FileSystem(fs.FileSystem):
            @staticmethod
            def from_uri(uri: str) -> tuple[Any, str]:
                scheme, _, rest = uri.partition("://")
                path = rest.partition("?")[0].rpartition("@")[2].rstrip("/")
                return (opened, path) if scheme == "faulty" else fs.FileSystem.from_uri(uri)

        shim = type(fs)("fs")
        shim.__dict__.update({**vars(fs), "FileSystem": FileSystem})
        for module in (store, readers):
            self._patch.setattr(module, "fs", shim)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def take(self, path: str, size: int) -> None:
        """Makes room for a file, or raises."""
        if self.writes < 1 or self.size < size:
            raise self.error
        self.writes -= 1
        self.size -= size
        self.written.append(path)


class _FaultyFiles(LocalFileSystem):
    """The calls of fsspec that pyarrow makes."""

    def __init__(self, storage: FaultyStorage, **options: Any) -> None:
        super().__init__(**options)
        self._storage = storage

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        os.replace(path1, path2)
        self._storage.written[self._storage.written.index(path1)] = path2

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "wb":
            return _Sink(path, self._storage)
        if not self._storage.reads:
            raise self._storage.error
        return super().open(path, mode, **options)


class _Sink(io.BytesIO):
    def __init__(self, path: str, storage: FaultyStorage) -> None:
        super().__init__()
        self._path, self._storage = path, storage

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._storage.take(self._path, len(data))
            Path(self._path).write_bytes(data)
