"""The manifest of an artifact: its fields, and the one form of its bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
"""The file in an artifact's directory that holds its manifest."""
_CHECKSUM = "checksum"


class ManifestError(ValueError):
    """Bytes that are no manifest of this version; the message says why."""


class UnknownSchemaError(ManifestError):
    """A manifest of another version of the schema, or from before manifests had a checksum."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of an artifact, as its manifest lists it."""

    path: str
    """Relative to the artifact's directory, with `/`."""
    bytes: int
    """Size in bytes."""
    sha256: str
    """SHA-256 of the content, in hex."""
    row_groups: list[int] = field(default_factory=list)
    """Rows of each row group of a Parquet file: all that the batch plan needs."""

    @property
    def is_parquet(self) -> bool:
        """Whether the file is a Parquet file, by its name; no others have row groups."""
        return self.path.endswith(".parquet")

    @property
    def rows(self) -> int:
        """Rows of a Parquet file; 0 for other files."""
        return sum(self.row_groups)

    def as_json(self) -> dict[str, Any]:
        """The file's object in the manifest."""
        tree: dict[str, Any] = {"path": self.path, "bytes": self.bytes, "sha256": self.sha256}
        return {**tree, "row_groups": self.row_groups} if self.is_parquet else tree


@dataclass(frozen=True)
class Manifest:
    """What makes an artifact finished: JSON of one fixed form, keys sorted.

    checksum: SHA-256 of the manifest without this key, in the same form.
    """

    stage: str
    """Kind of the artifact."""
    fingerprint: str
    """16 hex digits, a hash of `schema`, `stage`, `config` and `inputs`; with `stage` the directory's name."""
    created: str
    """When it was finished, UTC."""
    seconds: float
    """How long it took since the last start, waiting included."""
    config: dict[str, Any]
    """The part of the configuration that it depends on."""
    inputs: dict[str, str]
    """Fingerprints of the artifacts, SHA-256 of the text and models that it was made from."""
    files: list[FileEntry]
    """Every other file of the directory, an object each."""
    metrics: dict[str, float]
    """The figures that the stage measured."""
    info: dict[str, Any]
    """What else the stage recorded (vocabulary size, drops by reason, signatures)."""
    libraries: dict[str, str]
    """Versions of Python, of this package and of the libraries below it."""
    schema: int = SCHEMA_VERSION
    """Version of this form; a manifest of another version is an error."""

    @property
    def directory(self) -> str:
        """The name of the artifact's directory in its store."""
        return f"{self.stage}-{self.fingerprint}"

    def content_hash(self, directory: str = "") -> str:
        """SHA-256 of the names and checksums of the files below a directory (its root by default), as hex."""
        files = sorted((file.path, file.sha256) for file in self.files if f"/{file.path}".startswith(f"/{directory}"))
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()

    @staticmethod
    def from_bytes(data: bytes) -> Manifest:
        """The manifest that `to_bytes` wrote.

        Raises ManifestError for anything else, also for one that was changed since, were it in white space alone.
        """
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError):
            raise ManifestError("not JSON") from None
        if not isinstance(tree, dict):
            raise ManifestError("not a manifest")
        if tree.get("schema") != SCHEMA_VERSION:
            raise UnknownSchemaError(f"schema {tree.get('schema')!r:.40}, this version reads {SCHEMA_VERSION}")
        if tree.pop(_CHECKSUM, None) is None:
            raise UnknownSchemaError("has no checksum of its own, as those of earlier versions")
        try:
            sealed = _sealed(tree)
        except (ValueError, RecursionError):  # Read by Python's JSON, not written: NaN, half a surrogate pair.
            sealed = b""
        if sealed != data:
            raise ManifestError("its content differs from its own checksum")
        try:
            manifest = _adapter().validate_json(data, strict=True)
        except ValidationError as error:
            raise ManifestError(f"not a manifest: {_mistake(error)}") from None
        for entry, of_tree in zip(manifest.files, tree["files"], strict=True):
            if entry.is_parquet and "row_groups" not in of_tree:
                raise ManifestError("not a manifest: it lacks `row_groups`")
        # Whole numbers stay what they are.
        return replace(manifest, seconds=tree["seconds"], metrics=tree["metrics"])

    def to_bytes(self) -> bytes:
        """JSON of one fixed form, with the checksum of the same form without it.

        The form is fixed to the byte, so that no change of it goes unnoticed, were it one of white space.
        """
        tree = {key.name: getattr(self, key.name) for key in fields(Manifest)}
        return _sealed({**tree, "files": [entry.as_json() for entry in self.files]})


@cache
def _adapter() -> TypeAdapter[Manifest]:
    """Once a process: making it takes several times as long as reading a manifest."""
    return TypeAdapter(Manifest)


def _mistake(error: ValidationError) -> str:
    """The first one; the keys of a file's object stand by themselves."""
    mistake = error.errors()[0]
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in mistake["loc"])
    key = path.rpartition("].")[2].removeprefix(".")
    if mistake["type"] == "missing":
        return f"it lacks `{key}`"
    return f"its `{key}` is of another type ({type(mistake['input']).__name__})"


def _sealed(tree: dict[str, Any]) -> bytes:
    to_json = json.JSONEncoder(indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode
    checksum = hashlib.sha256(to_json(tree).encode()).hexdigest()
    return to_json({**tree, _CHECKSUM: checksum}).encode()
