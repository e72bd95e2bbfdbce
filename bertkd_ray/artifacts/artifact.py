"""Finished artifacts and artifacts being made: the fingerprint, the check of the files and the atomic commit.

An artifact is a directory `<stage>-<fingerprint>` in a store. `manifest.json` is written last and in one step; without
it the artifact does not exist and what lies in its directory is unfinished work. Crash safety, caching and lineage all
follow from this.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from bertkd_ray.artifacts import manifest
from bertkd_ray.artifacts.manifest import MANIFEST, SCHEMA_VERSION, FileEntry, Manifest
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.libraries import library_versions

STAGING = "work"
"""The directory of a store that holds checkpoints and partial results, a directory an artifact."""
_LIBRARIES = ("ray", "torch", "transformers", "tokenizers", "pyarrow", "sacrebleu")
_HASHING_THREADS = 4


def fingerprint(stage: str, config: dict[str, Any], inputs: dict[str, str]) -> str:
    """16 hex digits that name an artifact: a hash of its stage, its part of the configuration and its inputs.

    inputs: name to fingerprint (of artifacts) or content hash (of text and models). Raises TypeError for a value that
    JSON cannot hold exactly: it is never turned into a string.
    """
    tree = {"schema": SCHEMA_VERSION, "stage": stage, "config": config, "inputs": inputs}
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False, default=repr)
    if json.loads(text) != tree:
        raise TypeError(f"{stage}: has no fingerprint, as JSON holds it otherwise (tuples, keys that are no strings)")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Artifact(Manifest):
    """A finished artifact: its manifest, and the store in which its files are."""

    store: Store = field(kw_only=True, repr=False, compare=False)

    @property
    def uri(self) -> str:
        """The absolute directory or URI of the artifact."""
        return self.store.uri_of(self.directory)

    @property
    def display_uri(self) -> str:
        """The directory or URI of the artifact, without credentials."""
        return self.store.display_uri(self.directory)

    def path(self, *parts: str) -> str:
        """A path inside the artifact, for the store's filesystem."""
        return self.store.path(self.directory, *parts)

    def open_input(self, *parts: str) -> AbstractContextManager[pa.NativeFile]:
        """A file of the artifact to read from at any position. Raises StorageError when it cannot be read."""
        return self.store.open_input(self.directory, *parts)

    def read_table(self, below: str, columns: list[str] | None = None) -> pa.Table:
        """The rows of all Parquet files whose path begins with `below`, in the order of the manifest.

        columns: which to read; all by default. Raises StorageError when a file cannot be read.
        """
        import pyarrow.parquet as pq

        tables = []
        for entry in self.files_below(below):
            if entry.is_parquet:
                with self.open_input(entry.path) as source:
                    tables.append(pq.read_table(source, columns=columns))
        return pa.concat_tables(tables)

    def read_json(self, *parts: str) -> Any:
        """A JSON file of the artifact."""
        return json.loads(self.store.read(self.directory, *parts))

    def local(self, subdirectory: str, scratch: Path) -> Path:
        """A local directory with the artifact's `subdirectory`; remote files are copied to `scratch` first."""
        if self.store.is_local:
            return Path(self.path(subdirectory))
        return self.copy(subdirectory, scratch / self.directory / subdirectory)

    def copy(self, subdirectory: str, target: Path) -> Path:
        """Copies what the manifest lists of a subdirectory, and nothing else in it, into a local directory."""
        names = [entry.path.removeprefix(f"{subdirectory}/") for entry in self.files_below(f"{subdirectory}/")]
        self.store.download(target, self.directory, subdirectory, names=names)
        return target

    def files_below(self, below: str) -> list[FileEntry]:
        """The files of the manifest whose path begins with `below`."""
        return [entry for entry in self.files if entry.path.startswith(below)]

    def problems(self, remedy: str = "", *, checksums: bool) -> Iterator[str]:
        """One line for every link, and every file that is not as in the manifest: missing, extra, of another content.

        remedy: what is to be done about a damaged file; an additional one is to be moved away, and nothing else. Files
        that operating systems leave in directories are none of them.
        """
        present = dict(self.store.files(self.directory))
        present.pop(MANIFEST, None)
        for name in self.store.links(self.directory):
            location = self.store.display_uri(self.directory, name)
            yield f"{self.directory}/{name}: a link, which is not followed; move it elsewhere: {location}"
        sizes = [present.pop(entry.path, None) for entry in self.files]
        with ThreadPoolExecutor(_HASHING_THREADS) as threads:
            problems = list(threads.map(partial(self._problem, checksums=checksums), self.files, sizes))
        for entry, problem in zip(self.files, problems, strict=True):
            if problem:
                yield f"{self.directory}/{entry.path}: {problem}{remedy and f'; {remedy}'}"
        for name in present:
            location = self.store.display_uri(self.directory, name)
            yield f"{self.directory}/{name}: not in the manifest; move this file elsewhere: {location}"

    def require_intact(self, remedy: str, *, checksums: bool = True) -> None:
        """Raises UserError for the first file that differs from the manifest (`problems`)."""
        for problem in self.problems(remedy, checksums=checksums):
            raise UserError(problem)

    def _problem(self, entry: FileEntry, size: int | None, *, checksums: bool) -> str | None:
        if size is None:
            return "missing"
        if size != entry.bytes:
            return f"{size} bytes, the manifest says {entry.bytes}"
        if checksums and self.store.sha256(self.directory, entry.path) != entry.sha256:
            return "its content differs from the manifest's checksum"
        return None


def find(store: Store, stage: str, digest: str, *, checksums: bool = True) -> Artifact | None:
    """The finished artifact with this fingerprint, every file of it as its manifest says, or None.

    checksums: whether contents are read and compared, beside the sizes. Raises UserError as `load`, and for a file that
    is missing, of another size or content, or not in the manifest. Work left by a driver that was killed between the
    manifest and the end of its commit is removed.
    """
    directory = f"{stage}-{digest}"
    artifact = load_finished(store, directory)
    if artifact is None:
        return None
    artifact.require_intact(_again(store, directory), checksums=checksums)
    store.delete(STAGING, directory)
    return artifact


def load_finished(store: Store, directory: str) -> Artifact | None:
    """The artifact in a directory of the store, its files unchecked, or None. Raises UserError as `load`."""
    return load(store, directory) if store.exists(directory, MANIFEST) else None


def load(store: Store, directory: str) -> Artifact:
    """The artifact in a directory of the store, its files unchecked.

    Raises UserError for a manifest that is damaged, of another schema version, or of another artifact than the
    directory's name says.
    """
    where = f"{directory}/{MANIFEST}"
    try:
        fields = Manifest.from_bytes(store.read(directory, MANIFEST))
    except manifest.UnknownSchemaError as error:
        raise UserError(f"{where}: {error}; use another storage or the version that wrote it") from None
    except manifest.ManifestError as error:
        raise UserError(f"{where}: {error}; {_again(store, directory)}") from None
    if fields.directory != directory:
        raise UserError(f"{where}: is that of {fields.directory}; give the directory its name back, or move it")
    return Artifact(**vars(fields), store=store)


def _again(store: Store, directory: str) -> str:
    """Advice that costs nothing should the artifact be whole elsewhere, or still on its way here."""
    return f"copy it again, or move the directory {store.display_uri(directory)} elsewhere to make it again"


@dataclass
class PendingArtifact:
    """An artifact being made, whose directory has no manifest yet.

    `staging` is a directory of the store for checkpoints and partial results; the commit removes it.
    """

    store: Store
    stage: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    started: float = field(default_factory=time.time)

    @classmethod
    def of(cls, store: Store, stage: str, config: dict[str, Any], inputs: dict[str, str]) -> PendingArtifact:
        """The artifact that is made with a part of the configuration from some inputs (`fingerprint`)."""
        return cls(store, stage, fingerprint(stage, config, inputs), config, inputs)

    @property
    def directory(self) -> str:
        """The artifact's directory in the store."""
        return f"{self.stage}-{self.fingerprint}"

    @property
    def staging(self) -> str:
        """The directory of unfinished work in the store."""
        return f"{STAGING}/{self.directory}"

    @property
    def resumed(self) -> bool:
        """Whether an earlier run left something to go on from."""
        # Both are listed, as no link is followed.
        return any([self.store.files(self.directory), self.store.files(self.staging)])

    def commit(self, *, made: Iterable[str], metrics: dict[str, float], info: dict[str, Any]) -> Artifact:
        """Lists and checksums what was made, writes the manifest in one step and removes the unfinished work.

        made: files, and directories with all that lies in them. Whatever else lies in the artifact's directory, left by
        killed writers or by an attempt of another version, is removed first, so that it cannot be taken for a result.
        Raises ValueError when a part of what was made is not there.
        """
        files = self._made(made)
        if extra := self.store.keep_only([name for name, _ in files], self.directory):
            log(f"{self.directory}: removed {', '.join(extra[:3])}, left by an earlier attempt")
        artifact = Artifact(
            stage=self.stage,
            fingerprint=self.fingerprint,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.time() - self.started, 3),
            config=self.config,
            inputs=self.inputs,
            files=[self._entry(name, size) for name, size in files],
            metrics=metrics,
            info=info,
            libraries=library_versions(("bertkd-ray", *_LIBRARIES)),
            store=self.store,
        )
        self.store.write(artifact.to_bytes(), self.directory, MANIFEST)
        self.store.delete(self.staging)
        return artifact

    def _made(self, made: Iterable[str]) -> list[tuple[str, int]]:
        """The files that are, or lie below, one of the paths."""
        missing, files = set(made), []
        wanted = frozenset(missing)
        for name, size in self.store.files(self.directory):
            if matches := wanted.intersection((name, *map(str, PurePosixPath(name).parents))):
                files.append((name, size))
                missing -= matches
        if missing:
            raise ValueError(f"{self.directory} lacks {min(missing)}, which was made")
        return files

    def _entry(self, name: str, size: int) -> FileEntry:
        import pyarrow.parquet as pq

        entry = FileEntry(name, size, self.store.sha256(self.directory, name))
        if not entry.is_parquet:
            return entry
        with self.store.open_input(self.directory, name) as source:
            footer = pq.read_metadata(source)
        return replace(entry, row_groups=[footer.row_group(i).num_rows for i in range(footer.num_row_groups)])
