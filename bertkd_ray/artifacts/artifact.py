"""A stage is a function from artifacts to an artifact: fingerprints, manifests and the atomic commit.

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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.libraries import library_versions

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
"""What makes an artifact finished: JSON of one fixed form, keys sorted.

schema: version of this form; a manifest of another one is refused.
stage: kind of the artifact.
fingerprint: 16 hex digits, a hash of `schema`, `stage`, `config` and `inputs`; with `stage` the directory's name.
created: when it was finished, UTC.
seconds: how long it took since the last start, waiting included.
config: the part of the configuration that it depends on.
inputs: fingerprints of the artifacts, SHA-256 of the text and models that it was made from.
files: every other file of the directory, an object each.
path: relative to the directory, with `/`.
bytes: size.
sha256: of the content, in hex.
row_groups: of a Parquet file, the rows of each row group: all that the batch plan needs.
metrics: the figures that the stage measured.
info: what else the stage recorded (vocabulary size, drops by reason, signatures).
libraries: versions of Python, of this package and of the libraries below it.
checksum: SHA-256 of the manifest without this key, in the same form.
"""
STAGING = "work"
"""The directory of a store that holds checkpoints and partial results, a directory an artifact."""
_CHECKSUM = "checksum"
_LIBRARIES = ("ray", "torch", "transformers", "tokenizers", "pyarrow", "sacrebleu")
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
        return self.store.uri_of(self.directory)

    @property
    def display_uri(self) -> str:
        """The same for people to see: without credentials."""
        return self.store.display_uri(self.directory)

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
        self.store.download(target, self.directory, subdirectory)
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


def find(store: Store, stage: str, digest: str, *, checksums: bool = True) -> Artifact | None:
    """The finished artifact with this fingerprint, every file of it as its manifest says, or None.

    checksums: whether contents are read and compared, beside the sizes. Raises UserError as `load`, and for a file that
    is missing, of another size or content, or not in the manifest. Work left by a driver that was killed between the
    manifest and the end of its commit is removed.
    """
    directory = f"{stage}-{digest}"
    if not store.exists(directory, MANIFEST):
        return None
    artifact = load(store, directory)
    for problem in artifact.problems(checksums=checksums):
        raise UserError(f"{problem}; remove the directory {store.display_uri(directory)} to make it again")
    store.delete(STAGING, directory)
    return artifact


def load(store: Store, directory: str) -> Artifact:
    """The artifact in a directory of the store, its files unchecked.

    Raises UserError for a manifest that is damaged, of another schema version, or of another artifact than the
    directory's name says.
    """
    where, remedy = f"{directory}/{MANIFEST}", f"remove the directory {store.display_uri(directory)} to make it again"
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
    if manifest.pop(_CHECKSUM, None) is None:
        raise UserError(f"{where}: has no checksum of its own, as those of earlier versions; {remedy}")
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
class PendingArtifact:
    """An artifact being made: the same directory, without a manifest yet.

    `staging` is a directory of the store for checkpoints and partial results; the commit removes it.
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
    def staging(self) -> str:
        """The directory of unfinished work in the store."""
        return f"{STAGING}/{self.directory}"

    @property
    def resumed(self) -> bool:
        """Whether an earlier run left something to go on from."""
        return bool(self.store.files(self.directory) or self.store.files(self.staging))

    def commit(self, *, made: Iterable[str], metrics: dict[str, float], info: dict[str, Any]) -> Artifact:
        """Lists and checksums what was made, writes the manifest in one step and removes the unfinished work.

        made: files, and directories with all that lies in them. Whatever else lies in the artifact's directory, left by
        killed writers or by an attempt of another version, is removed first, so that it cannot be taken for a result.
        Raises ValueError when a part of what was made is not there.
        """
        files = self._made(made)
        if strangers := self.store.keep_only([name for name, _ in files], self.directory):
            log(f"{self.directory}: removed {', '.join(strangers[:3])}, left by an earlier attempt")
        manifest = {
            "schema": SCHEMA_VERSION,
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 3),
            "config": self.config,
            "inputs": self.inputs,
            "files": [self._entry(name, size) for name, size in files],
            "metrics": metrics,
            "info": info,
            "libraries": library_versions(("bertkd-ray", *_LIBRARIES)),
        }
        self.store.write(seal(manifest), self.directory, MANIFEST)
        self.store.delete(self.staging)
        return Artifact(self.store, self.directory, manifest)

    def _made(self, made: Iterable[str]) -> list[tuple[str, int]]:
        """The files that are, or lie below, one of the paths."""
        missing, files = set(made), []
        wanted = frozenset(missing)
        for name, size in self.store.files(self.directory):
            if of := wanted.intersection((name, *map(str, PurePosixPath(name).parents))):
                files.append((name, size))
                missing -= of
        if missing:
            raise ValueError(f"{self.directory} lacks {min(missing)}, which was made")
        return files

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
