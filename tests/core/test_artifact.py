from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.core import artifact as artifacts
from bertkd_ray.core.artifact import Artifact, Draft, Store, fingerprint, redacted
from bertkd_ray.core.errors import UserError


def make(store: Store, stage: str = "corpus", text: bytes = b"hello") -> Artifact:
    work = Draft(store, stage, fingerprint(stage, {"x": 1}, {}), {"x": 1}, {})
    store.write(text, work.directory, "sub", "file.txt")
    store.write(b"unfinished", work.work, "checkpoint")
    return work.commit(metrics={"rows": 3.0}, info={"note": "n"})


def test_fingerprint_depends_on_everything_and_on_nothing_else():
    base = fingerprint("corpus", {"a": 1, "b": [1.5, None, "x"]}, {"text": "abc"})
    assert base == fingerprint("corpus", {"b": [1.5, None, "x"], "a": 1}, {"text": "abc"})
    assert len(base) == 16
    others = [
        fingerprint("teacher", {"a": 1, "b": [1.5, None, "x"]}, {"text": "abc"}),
        fingerprint("corpus", {"a": 2, "b": [1.5, None, "x"]}, {"text": "abc"}),
        fingerprint("corpus", {"a": 1, "b": [1.5, None, "x"]}, {"text": "abd"}),
        fingerprint("corpus", {"a": True, "b": [1.5, None, "x"]}, {"text": "abc"}),
    ]
    assert len({base, *others}) == 5


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, b"bytes", (1, 2), object()])
def test_what_has_no_fingerprint_is_refused(value):
    with pytest.raises(TypeError, match="has no fingerprint"):
        fingerprint("corpus", {"deep": {"value": value}}, {})


def test_nan_has_no_fingerprint():
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint("corpus", {"value": float("nan")}, {})


def test_an_artifact_exists_only_with_its_manifest(tmp_path):
    store = Store(str(tmp_path))
    work = Draft(store, "corpus", "0" * 16, {}, {})
    assert not work.resumed
    store.write(b"x", work.directory, "part")
    assert work.resumed
    assert artifacts.find(store, "corpus", "0" * 16) is None
    work.commit(metrics={}, info={})
    assert artifacts.find(store, "corpus", "0" * 16) is not None


def test_commit_lists_files_with_sizes_checksums_and_row_groups(tmp_path):
    store = Store(str(tmp_path))
    work = Draft(store, "corpus", "1" * 16, {}, {})
    store.fs.create_dir(store.path(work.directory))
    pq.write_table(pa.table({"a": list(range(5))}), store.path(work.directory, "p.parquet"), row_group_size=2)
    store.write(b"hello", work.directory, "sub", "file.txt")
    done = work.commit(metrics={}, info={})
    by_path = {entry["path"]: entry for entry in done.files()}
    assert by_path["p.parquet"]["row_groups"] == [2, 2, 1]
    assert by_path["sub/file.txt"]["bytes"] == 5
    # sha256 of "hello", as any other tool prints it
    assert by_path["sub/file.txt"]["sha256"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert [entry["path"] for entry in done.files("sub/")] == ["sub/file.txt"]
    assert done.manifest["libraries"]["pyarrow"] == pa.__version__


def test_commit_removes_unfinished_work(tmp_path):
    done = make(Store(str(tmp_path)))
    assert not (tmp_path / "work" / done.directory).exists()


def test_a_finished_artifact_is_found_again_with_its_figures(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    found = artifacts.find(store, "corpus", done.fingerprint)
    assert found is not None
    assert (found.metrics, found.info, found.stage) == ({"rows": 3.0}, {"note": "n"}, "corpus")
    assert list(found.problems(checksums=True)) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"hellO"), "its content differs from the manifest's checksum"),
        (lambda path: path.write_bytes(b"hell"), "4 bytes, the manifest says 5"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: (path.parent / "more").write_bytes(b""), "not in the manifest"),
    ],
)
def test_damage_is_found(tmp_path, damage, message):
    done = make(Store(str(tmp_path)))
    damage(tmp_path / done.directory / "sub" / "file.txt")
    problems = list(done.problems(checksums=True))
    assert len(problems) == 1
    assert problems[0].startswith(f"{done.directory}/sub/")
    assert problems[0].endswith(message)


def test_a_truncated_artifact_is_refused_in_one_line(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    (tmp_path / done.directory / "sub" / "file.txt").write_bytes(b"")
    with pytest.raises(UserError, match=r"file.txt: 0 bytes, the manifest says 5; remove the directory"):
        artifacts.find(store, "corpus", done.fingerprint)


def test_a_manifest_of_another_schema_is_refused(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    path = tmp_path / done.directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(UserError, match="schema 99, this version reads 1"):
        artifacts.find(store, "corpus", done.fingerprint)
    path.write_text("[]")
    with pytest.raises(UserError, match="not a manifest"):
        artifacts.find(store, "corpus", done.fingerprint)
    path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        artifacts.find(store, "corpus", done.fingerprint)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b'"rows": 3.0', b'"rows": 4.0'),
        lambda data: data.replace(b'"rows": 3.0', b'"rows": NaN'),
        lambda data: data.replace(b'"note": "n"', b'"note": "\\ud800"'),
        lambda data: data.replace(b'"checksum"', b'"checksun"'),
        lambda data: json.dumps(json.loads(data), indent=2, sort_keys=True).encode(),
        lambda data: data + b"\n",
        lambda data: b'{"schema": 1}',
    ],
    ids=["value", "not a number", "half a surrogate", "its key", "other white space", "line end", "nothing else"],
)
def test_a_manifest_that_was_changed_is_refused(tmp_path, damage):
    store = Store(str(tmp_path))
    done = make(store)
    path = tmp_path / done.directory / "manifest.json"
    data = path.read_bytes()
    path.write_bytes(damage(data))
    assert path.read_bytes() != data
    with pytest.raises(UserError, match=r"manifest\.json: its content differs from its own checksum; remove the dir"):
        artifacts.find(store, "corpus", done.fingerprint)


def test_the_manifest_carries_the_checksum_of_what_else_it_says(tmp_path):
    """As anyone can compute it, who drops the line and dumps the rest in the same form."""
    done = make(Store(str(tmp_path)))
    said = json.loads((tmp_path / done.directory / "manifest.json").read_text(encoding="utf-8"))
    checksum = said.pop("checksum")
    rest = json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False)
    assert checksum == hashlib.sha256(rest.encode()).hexdigest()


def test_an_artifact_under_another_name_is_refused(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    other = "f" * 16
    (tmp_path / done.directory).rename(tmp_path / f"corpus-{other}")
    with pytest.raises(UserError, match=rf"corpus-{other}/manifest\.json: is that of {done.directory}; give"):
        artifacts.find(store, "corpus", other)


def test_contents_are_read_unless_sizes_are_enough(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    (tmp_path / done.directory / "sub" / "file.txt").write_bytes(b"hellO")
    with pytest.raises(UserError, match=r"file\.txt: its content differs from the manifest's checksum; remove the dir"):
        artifacts.find(store, "corpus", done.fingerprint)
    assert artifacts.find(store, "corpus", done.fingerprint, checksums=False) is not None


def test_a_write_leaves_no_partial_file(tmp_path):
    store = Store(str(tmp_path))
    store.write(b"one", "a", "b")
    store.write(b"two", "a", "b")
    assert store.read("a", "b") == b"two"
    assert store.files() == [("a/b", 3)]


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"storage: .* cannot be written"):
        Store(str(tmp_path / "file" / "below")).require_writable()
    with pytest.raises(UserError, match="storage: nosuch://host/x cannot be opened"):
        Store("nosuch://user:secret@host/x?key=secret")


def test_secrets_are_redacted():
    assert redacted("s3://key:secret@bucket/path?region=x") == "s3://bucket/path"
    assert redacted("plain/path") == "plain/path"
