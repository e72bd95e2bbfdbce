"""The form of a manifest: what is written is read back, and what is of another shape ends in one line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.artifacts.artifact import load
from bertkd_ray.artifacts.manifest import FileEntry, Manifest, ManifestError, UnknownSchemaError
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import UserError

MANIFEST = Manifest(
    stage="corpus",
    fingerprint="0123456789abcdef",
    created="2030-01-01T00:00:00+00:00",
    seconds=1.5,
    config={"max_words": None, "splits": ["train", {"seed": 1}]},
    inputs={"text": "ab"},
    files=[FileEntry("a.parquet", 7, "cd", [2, 1]), FileEntry("b.parquet", 3, "ef", []), FileEntry("c.txt", 5, "0ü")],
    metrics={"pairs": 3, "share": 0.5},
    info={"text": "raw"},
    libraries={"python": "3.11.9"},
)


def sealed(tree: Any) -> bytes:
    """A tree in a manifest's form, with its checksum."""
    text = json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False)
    if not isinstance(tree, dict):
        return text.encode()
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**tree, "checksum": checksum}, indent=1, sort_keys=True, ensure_ascii=False).encode()


def tree_of(manifest: Manifest) -> dict[str, Any]:
    tree = json.loads(manifest.to_bytes())
    tree.pop("checksum")
    return tree


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert Manifest.from_bytes(MANIFEST.to_bytes()) == MANIFEST
    assert MANIFEST.directory == "corpus-0123456789abcdef"
    assert [entry.rows for entry in MANIFEST.files] == [3, 0, 0]


def test_the_bytes_are_json_of_one_form() -> None:
    tree = tree_of(MANIFEST)
    assert MANIFEST.to_bytes() == sealed(tree)
    assert tree["schema"] == 1
    assert tree["files"] == [
        {"bytes": 7, "path": "a.parquet", "row_groups": [2, 1], "sha256": "cd"},
        {"bytes": 3, "path": "b.parquet", "row_groups": [], "sha256": "ef"},
        {"bytes": 5, "path": "c.txt", "sha256": "0ü"},
    ]
    assert tree["metrics"] == {"pairs": 3, "share": 0.5}
    assert b'"pairs": 3,' in MANIFEST.to_bytes()


KEYS = ("stage", "fingerprint", "created", "seconds", "config", "inputs", "files", "metrics", "info", "libraries")


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_missing_is_named(key: str) -> None:
    tree = tree_of(MANIFEST)
    del tree[key]
    with pytest.raises(ManifestError, match=rf"^not a manifest: it lacks `{key}`$"):
        Manifest.from_bytes(sealed(tree))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [None, True, [1], {"deep": [None]}])
def test_a_value_of_another_type_is_named(key: str, value: Any) -> None:
    if key in ("config", "info") and isinstance(value, dict):
        return
    with pytest.raises(ManifestError, match=rf"^not a manifest: its `{key}.*` is of another type \(\w+\)$"):
        Manifest.from_bytes(sealed({**tree_of(MANIFEST), key: value}))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "it lacks `path`"),
        ({"path": "a", "sha256": ""}, "it lacks `bytes`"),
        ({"path": "a", "bytes": 1}, "it lacks `sha256`"),
        ({"path": "a.parquet", "bytes": 1, "sha256": ""}, "it lacks `row_groups`"),
        ({"path": "a", "bytes": 1.5, "sha256": ""}, r"its `bytes` is of another type \(float\)"),
        ({"path": "a.parquet", "bytes": 1, "sha256": "", "row_groups": [1, "2"]}, r"its `row_groups\[1\]` is of .*str"),
    ],
)
def test_a_file_of_another_shape_is_named(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        Manifest.from_bytes(sealed({**tree_of(MANIFEST), "files": [entry]}))


def test_another_schema_is_told_apart() -> None:
    with pytest.raises(UnknownSchemaError, match=r"^schema 2, this version reads 1$"):
        Manifest.from_bytes(replace(MANIFEST, schema=2).to_bytes())


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b""])
def test_what_is_no_json_is_no_manifest(data: bytes) -> None:
    with pytest.raises(ManifestError, match=r"^not JSON$"):
        Manifest.from_bytes(data)


@pytest.mark.parametrize("tree", [[], "manifest", 1, None])
def test_what_is_no_object_is_no_manifest(tree: Any) -> None:
    with pytest.raises(ManifestError, match=r"^not a manifest$"):
        Manifest.from_bytes(sealed(tree))


def test_a_manifest_of_another_shape_ends_in_one_line_that_names_the_file(tmp_path: Path) -> None:
    tree = tree_of(MANIFEST)
    del tree["inputs"]
    store = Store(str(tmp_path))
    store.write(sealed(tree), MANIFEST.directory, "manifest.json")
    with pytest.raises(UserError) as error:
        load(store, MANIFEST.directory)
    directory = tmp_path / MANIFEST.directory
    assert str(error.value) == (
        f"{MANIFEST.directory}/manifest.json: not a manifest: it lacks `inputs`; "
        f"copy it again, or move the directory {directory} elsewhere to make it again"
    )
