"""A stage is a function from artifacts to an artifact: fingerprints, manifests and the atomic commit.

An artifact is a directory `<stage>-<fingerprint>` in a store. `manifest.json` is written last and in one step; without
it the artifact does not exist and what lies in its directory is unfinished work. Crash safety, caching and lineage all
follow from this.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from bertkd_ray.core.errors import UserError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_CHECKSUM = "checksum"
_LIBRARIES = ("ray", "torch", "transformers", "tokenizers", "pyarrow", "sacrebleu")
_CHUNK = 1 << 20
_HASHING_THREADS = 4


def fingerprint(stage: str, config: dict[str, Any], inputs: dict[str, str]) -> str:
    """16 hex digits that name an artifact: a hash of its stage, its part of the configuration and its inputs.

    inputs: name to fingerprint (of artifacts) or content hash (of text and models). Raises TypeError for a value that
    JSON cannot hold exactly: what cannot be fingerprinted is refused, never turned into a string.
    """
    _require_plain(config, stage)
    tree = {"schema": SCHEMA_VERSION, "stage": stage, "config": config, "inputs": inputs}
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _require_plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where}: the key {key!r} is not a string and has no fingerprint")
            _require_plain(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif not (value is None or isinstance(value, str | bool | int | float)):
        raise TypeError(f"{where}: a {type(value).__name__} has no fingerprint")


class Store:
    """Artifacts in a directory or under a URI (`s3://`, `gs://`), through pyarrow's filesystems."""

    def __init__(self, storage: str) -> None:
        """Raises UserError when the URI names no filesystem that pyarrow knows."""
        self.storage = storage
        if "://" in storage:
            try:
                self.fs, self.root = fs.FileSystem.from_uri(storage)
            except (pa.ArrowInvalid, OSError) as error:
                # The library's message repeats the URI, with the password that may stand in it.
                said, shown = one_line(error), redacted(storage)
                raise UserError(f"storage: {shown} cannot be opened: {said.replace(storage, shown)}") from None
        else:
            self.fs, self.root = fs.LocalFileSystem(), str(Path(storage).resolve())

    @property
    def is_local(self) -> bool:
        """Whether the store is a directory of this file system."""
        return isinstance(self.fs, fs.LocalFileSystem)

    @property
    def uri(self) -> str:
        """The absolute directory, or the URI, as a process elsewhere can open it."""
        return self.root if self.is_local else self.storage.rstrip("/")

    def path(self, *parts: str) -> str:
        """A path inside the store, for the store's filesystem."""
        return "/".join([self.root, *parts])

    def exists(self, *parts: str) -> bool:
        """Whether a file stands at this path."""
        return bool(self.fs.get_file_info(self.path(*parts)).type == fs.FileType.File)

    def files(self, *parts: str) -> list[tuple[str, int]]:
        """Every file below a directory: its path relative to it, and its size in bytes; sorted."""
        base = self.path(*parts)
        selector = fs.FileSelector(base, recursive=True, allow_not_found=True)
        found = [info for info in self.fs.get_file_info(selector) if info.type == fs.FileType.File]
        return sorted((info.path[len(base) + 1 :], info.size) for info in found)

    def read(self, *parts: str) -> bytes:
        """A file's bytes."""
        with self.fs.open_input_stream(self.path(*parts)) as stream:
            return bytes(stream.read())

    def write(self, data: bytes, *parts: str) -> None:
        """Writes a file in one step: a reader sees the whole of it or nothing.

        Object stores are atomic by nature; a directory gets a temporary file that is renamed.
        """
        target = self.path(*parts)
        self.fs.create_dir(target.rpartition("/")[0], recursive=True)
        scratch = f"{target}.partial" if self.is_local else target
        with self.fs.open_output_stream(scratch) as stream:
            stream.write(data)
        if scratch != target:
            self.fs.move(scratch, target)

    def delete(self, *parts: str) -> None:
        """Removes a directory and what lies in it, if it is there."""
        target = self.path(*parts)
        if self.fs.get_file_info(target).type == fs.FileType.Directory:
            self.fs.delete_dir(target)

    def upload(self, local: Path, *parts: str) -> None:
        """Copies the files of a local directory below a path of the store, overwriting."""
        target = self.path(*parts)
        self.fs.create_dir(target, recursive=True)
        fs.copy_files(str(local), target, source_filesystem=fs.LocalFileSystem(), destination_filesystem=self.fs)

    def sha256(self, *parts: str) -> str:
        """The checksum of a file, read in pieces."""
        digest = hashlib.sha256()
        with self.fs.open_input_stream(self.path(*parts)) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def require_writable(self) -> None:
        """Raises UserError, in one line, when nothing can be written here."""
        try:
            self.write(b"", ".writable")
            self.fs.delete_file(self.path(".writable"))
        except OSError as error:
            raise UserError(f"storage: {redacted(self.storage)} cannot be written: {one_line(error)}") from None


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: what its manifest says, and where its files are."""

    store: Store
    directory: str
    manifest: dict[str, Any]

    @property
    def stage(self) -> str:
        """The kind of artifact: corpus, teacher, softlabels, student or translation."""
        return str(self.manifest["stage"])

    @property
    def fingerprint(self) -> str:
        """16 hex digits that say what it was made from."""
        return str(self.manifest["fingerprint"])

    @property
    def metrics(self) -> dict[str, float]:
        """The figures that the stage measured."""
        return dict(self.manifest["metrics"])

    @property
    def info(self) -> dict[str, Any]:
        """What else the stage recorded (vocabulary size, drops by reason, signatures)."""
        return dict(self.manifest["info"])

    @property
    def uri(self) -> str:
        """The absolute directory or URI of the artifact."""
        return f"{self.store.uri}/{self.directory}"

    def path(self, *parts: str) -> str:
        """A path inside the artifact, for the store's filesystem."""
        return self.store.path(self.directory, *parts)

    def read_json(self, *parts: str) -> Any:
        """A JSON file of the artifact."""
        return json.loads(self.store.read(self.directory, *parts))

    def local(self, subdirectory: str, scratch: Path) -> Path:
        """A local directory with the artifact's `subdirectory`; remote files are copied to `scratch` first."""
        if self.store.is_local:
            return Path(self.path(subdirectory))
        target = scratch / self.directory / subdirectory
        target.mkdir(parents=True, exist_ok=True)
        fs.copy_files(self.path(subdirectory), str(target), source_filesystem=self.store.fs)
        return target

    def files(self, below: str = "") -> list[dict[str, Any]]:
        """The manifest's entries of the files below a subdirectory: path, bytes, sha256, and for Parquet row_groups."""
        return [entry for entry in self.manifest["files"] if entry["path"].startswith(below)]

    def problems(self, *, checksums: bool) -> Iterator[str]:
        """One line for every file that differs from the manifest: missing, of another size or content, or extra."""
        present = dict(self.store.files(self.directory))
        present.pop(MANIFEST, None)
        entries = self.manifest["files"]
        sound = [checksums and present.get(entry["path"]) == entry["bytes"] for entry in entries]
        with ThreadPoolExecutor(_HASHING_THREADS) as threads:
            digests = threads.map(self._digest, entries, sound)
            for entry, digest in zip(entries, digests, strict=True):
                size = present.pop(entry["path"], None)
                where = f"{self.directory}/{entry['path']}"
                if size is None:
                    yield f"{where}: missing"
                elif size != entry["bytes"]:
                    yield f"{where}: {size} bytes, the manifest says {entry['bytes']}"
                elif digest not in (None, entry["sha256"]):
                    yield f"{where}: its content differs from the manifest's checksum"
        for name in present:
            yield f"{self.directory}/{name}: not in the manifest"

    def _digest(self, entry: dict[str, Any], wanted: bool) -> str | None:
        return self.store.sha256(self.directory, entry["path"]) if wanted else None


def find(store: Store, stage: str, print_: str, *, checksums: bool = True) -> Artifact | None:
    """The finished artifact with this fingerprint, every file of it as its manifest says, or None.

    checksums: whether contents are read and compared, beside the sizes. Raises UserError as `load`, and for a file that
    is missing, of another size or content, or not in the manifest.
    """
    directory = f"{stage}-{print_}"
    if not store.exists(directory, MANIFEST):
        return None
    artifact = load(store, directory)
    for problem in artifact.problems(checksums=checksums):
        raise UserError(f"{problem}; remove the directory {store.uri}/{directory} to make it again")
    return artifact


def load(store: Store, directory: str) -> Artifact:
    """The artifact in a directory of the store, its files unchecked.

    Raises UserError for a manifest that is damaged, of another schema version, or of another artifact than the
    directory's name says.
    """
    where, remedy = f"{directory}/{MANIFEST}", f"remove the directory {store.uri}/{directory} to make it again"
    data = store.read(directory, MANIFEST)
    try:
        manifest = json.loads(data)
    except ValueError:
        raise UserError(f"{where}: not JSON; {remedy}") from None
    if not isinstance(manifest, dict):
        raise UserError(f"{where}: not a manifest; {remedy}")
    if manifest.get("schema") != SCHEMA_VERSION:
        raise UserError(
            f"{where}: schema {manifest.get('schema')}, this version reads {SCHEMA_VERSION}; "
            "use another storage or the version that wrote it"
        )
    manifest.pop(_CHECKSUM, None)
    if not _is_sealed(manifest, data):
        raise UserError(f"{where}: its content differs from its own checksum; {remedy}")
    name = f"{manifest['stage']}-{manifest['fingerprint']}"
    if name != directory:
        raise UserError(f"{where}: is that of {name}; give the directory its name back, or remove it")
    return Artifact(store, directory, manifest)


def seal(manifest: dict[str, Any]) -> bytes:
    """The bytes of a manifest: JSON of one fixed form, with the checksum of the same form without it.

    The form is fixed to the byte, so that no change of it goes unnoticed, were it one of white space.
    """
    digest = hashlib.sha256(_json_bytes(manifest)).hexdigest()
    return _json_bytes({**manifest, _CHECKSUM: digest})


def _is_sealed(manifest: dict[str, Any], data: bytes) -> bool:
    try:
        return seal(manifest) == data
    except ValueError:
        # Read by Python's JSON but not written by it: NaN, half a surrogate pair.
        return False


def _json_bytes(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


@dataclass
class Draft:
    """An artifact being made: the same directory, without a manifest yet.

    `work` is a directory of the store for checkpoints and partial results; the commit removes it.
    """

    store: Store
    stage: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    started: float = field(default_factory=time.time)

    @property
    def directory(self) -> str:
        """The artifact's directory in the store."""
        return f"{self.stage}-{self.fingerprint}"

    @property
    def work(self) -> str:
        """The directory of unfinished work in the store."""
        return f"work/{self.directory}"

    @property
    def resumed(self) -> bool:
        """Whether an earlier run left something to go on from."""
        return bool(self.store.files(self.directory) or self.store.files(self.work))

    def commit(self, *, metrics: dict[str, float], info: dict[str, Any]) -> Artifact:
        """Lists and checksums every file, writes the manifest in one step and removes the unfinished work."""
        manifest = {
            "schema": SCHEMA_VERSION,
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 3),
            "config": self.config,
            "inputs": self.inputs,
            "files": [self._entry(name, size) for name, size in self.store.files(self.directory)],
            "metrics": metrics,
            "info": info,
            "libraries": _library_versions(),
        }
        self.store.write(seal(manifest), self.directory, MANIFEST)
        self.store.delete(self.work)
        return Artifact(self.store, self.directory, manifest)

    def _entry(self, name: str, size: int) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "path": name,
            "bytes": size,
            "sha256": self.store.sha256(self.directory, name),
        }
        if name.endswith(".parquet"):
            entry["row_groups"] = _row_groups(self.store, self.directory, name)
        return entry


def _row_groups(store: Store, *parts: str) -> list[int]:
    """Rows of every row group: the batch plan needs no more than the manifest."""
    import pyarrow.parquet as pq

    with store.fs.open_input_file(store.path(*parts)) as source:
        footer = pq.read_metadata(source)
    return [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]


def _library_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("bertkd-ray", *_LIBRARIES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def redacted(uri: str) -> str:
    """A URI without user, password and query, for messages."""
    parts = urlsplit(uri)
    if not parts.scheme:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
