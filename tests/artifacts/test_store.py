from __future__ import annotations

import errno
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pyarrow as pa
import pytest
from pyarrow import fs

from bertkd_ray.artifacts import store as module
from bertkd_ray.artifacts.store import Store, store_above
from bertkd_ray.core.errors import StorageError, UserError
from tests.helpers.failing_storage import FaultyStorage

LEFT_BEHIND = ".part.parquet.0123456789ab.partial"


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_file_is_written_read_and_listed(store):
    store.write(b"one", "a", "b")
    store.write(b"two!", "a", "b")
    store.write(b"", "c")
    assert store.read("a", "b") == b"two!"
    assert store.files() == [("a/b", 4), ("c", 0)]
    assert store.files("a") == [("b", 4)]
    assert store.files("nowhere") == []
    assert (store.exists("a", "b"), store.exists("a"), store.exists("x")) == (True, False, False)
    # sha256 of "two!", as any other tool prints it
    assert store.sha256("a", "b") == "a97b629a5b1da759586c3353a9bc284bf673970d8eca56e11e556b715c329614"
    with pytest.raises(FileNotFoundError):
        store.read("x")


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_end(store, monkeypatch):
    happened = []

    def name_of(descriptor: int) -> str:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        return re.sub("[0-9a-f]{12}", "TOKEN", os.path.relpath(path, os.path.dirname(store.root)))

    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: happened.append(f"sync {name_of(descriptor)}"))
    monkeypatch.setattr(os, "replace", lambda old, new: (happened.append("rename"), replace(old, new)))
    store.write(b"x", "a", "b", "file")
    assert happened == [
        "sync .",  # the directories that were made, each in the one above it
        "sync store",
        "sync store/a",
        "sync store/a/b/.file.TOKEN.partial",
        "rename",
        "sync store/a/b",
    ]


def test_what_need_not_last_does_not_wait_for_the_disk(store, monkeypatch):
    store.fs.create_dir(store.path("a"))
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    store.write(b"x", "a", "file", lasting=False)
    assert (store.read("a", "file"), synced) == (b"x", [])
    assert store.files() == [("a/file", 1)]


def test_a_file_system_that_cannot_sync_names(store, monkeypatch):
    def refuse(number: int) -> None:
        def fsync(descriptor: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)

    refuse(errno.EINVAL)
    store.write(b"x", "a")
    refuse(errno.EIO)
    with pytest.raises(StorageError, match=r"/store/a cannot be written \(Input/output error\); mend it and run the"):
        store.write(b"x", "a")


def test_writers_of_one_file_do_not_meet(store):
    contents = [bytes([number]) * 300_000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            list(threads.map(lambda data: store.write(data, "a", "file"), contents))
            assert store.read("a", "file") in contents
    assert [path.name for path in Path(store.root, "a").iterdir()] == ["file"]


def test_a_failed_write_leaves_what_was_there(store, monkeypatch):
    store.write(b"old", "file")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(
        StorageError, match=r"file cannot be written \(No space left on device; [\d.]+ \wiB free\); make"
    ):
        store.write(b"new", "file")
    assert store.read("file") == b"old"
    assert os.listdir(store.root) == ["file"]


def test_what_killed_writers_left_is_no_file_of_the_store(store):
    store.write(b"x", "a", "part.parquet")
    Path(store.root, "a", LEFT_BEHIND).write_bytes(b"half")
    assert store.files("a") == [("part.parquet", 1)]
    assert store.keep_only(["part.parquet"], "a") == []
    assert os.listdir(Path(store.root, "a")) == ["part.parquet"]


def test_keep_only_tells_what_it_removed(store):
    for name in ("a", "b/c", "b/d"):
        store.write(b"", "x", name)
    store.write(b"", "y")
    assert store.keep_only(["a", "b/d"], "x") == ["b/c"]
    assert store.files() == [("x/a", 0), ("x/b/d", 0), ("y", 0)]


def test_an_uploaded_directory_holds_what_the_local_one_does(store, tmp_path):
    local = tmp_path / "local"
    (local / "sub").mkdir(parents=True)
    (local / "a").write_bytes(b"a")
    (local / "sub" / "b").write_bytes(b"b" * 3_000_000)
    store.write(b"of an earlier attempt", "there", "c")
    store.write(b"old", "there", "a")
    store.write(b"", "elsewhere")
    store.upload(local, "there")
    assert store.files() == [("elsewhere", 0), ("there/a", 1), ("there/sub/b", 3_000_000)]
    store.download(tmp_path / "back", "there")
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").rglob("*") if path.is_file()} == {
        "a": b"a",
        "b": b"b" * 3_000_000,
    }


class Listing:
    """A bucket with one object; broken: it is listed, and cannot be read."""

    def __init__(self, path: str, data: bytes = b"theirs", *, broken: bool = False) -> None:
        self.path, self.data, self.broken = path, data, broken

    def get_file_info(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        return [fs.FileInfo(self.path, fs.FileType.File, size=len(self.data))]

    def open_input_file(self, path: str) -> pa.NativeFile:
        if self.broken:
            raise OSError("curlCode: 56, connection lost")
        return pa.BufferReader(self.data)


@pytest.mark.parametrize(
    "name", ["../kept", "a/../../kept", "..", "", ".", "a//b", "a/./b", "/ABSOLUTE", "//ABSOLUTE", "a/"]
)
def test_an_object_that_names_a_place_elsewhere_is_refused_before_anything_is_opened(store, tmp_path, name):
    kept = tmp_path / "kept"
    kept.write_bytes(b"mine")
    name = name.replace("/ABSOLUTE", str(kept))
    store.fs, store.storage, store.root = Listing(f"bucket/model/{name}"), "s3://bucket", "bucket"
    with pytest.raises(UserError) as refused:
        store.download(tmp_path / "target", "model")
    assert str(refused.value).startswith(f"storage: s3://bucket/model/{name} has a name that is no path below")
    assert "\n" not in str(refused.value)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("kept", b"mine")]


def test_an_object_whose_writing_breaks_off_leaves_what_was_there(store, tmp_path, monkeypatch):
    store.write(b"before", "d", "x")
    store.fs, store.root = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "store"
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "x").write_bytes(b"after")

    def interrupted(source: IO[bytes], sink: IO[bytes], chunk: int) -> None:
        sink.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.upload(tmp_path / "local", "d")
    assert [path.name for path in (tmp_path / "store" / "d").iterdir()] == ["x"]
    assert store.read("d", "x") == b"before"
    store.upload(tmp_path / "local", "d")
    assert store.read("d", "x") == b"after"


def test_a_download_that_breaks_off_leaves_what_was_there(store, tmp_path):
    """Dots inside a name are part of it."""
    store.root = "bucket"
    store.fs = Listing("bucket/model/..a/b..c")
    store.download(tmp_path / "target", "model")
    target = tmp_path / "target" / "..a" / "b..c"
    assert target.read_bytes() == b"theirs"
    store.fs = Listing("bucket/model/..a/b..c", broken=True)
    with pytest.raises(StorageError, match="connection lost"):
        store.download(tmp_path / "target", "model")
    assert [(path, path.read_bytes()) for path in target.parent.iterdir()] == [(target, b"theirs")]


def test_deleting_what_is_being_deleted(store):
    store.delete("a")
    store.write(b"", "a", "b")
    store.delete("a", "b")  # no directory
    assert store.exists("a", "b")
    for number in range(200):
        store.write(b"", "a", f"{number}")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: store.delete("a"), range(4)))
    store.delete("a")
    assert store.files() == []


def test_uris(tmp_path):
    plain = Store(str(tmp_path))
    assert (plain.uri, plain.uri_of("a", "b"), plain.display_uri("a")) == (
        str(tmp_path),
        f"{tmp_path}/a/b",
        f"{tmp_path}/a",
    )
    assert Store(f"file://{tmp_path}").uri_of("a") == f"{tmp_path}/a"
    bucket = Store("s3://KEY:secret@bucket/x/?region=eu-west-1&endpoint_override=localhost:1")
    assert bucket.root == "bucket/x"
    assert bucket.uri == "s3://KEY:secret@bucket/x?region=eu-west-1&endpoint_override=localhost:1"
    assert bucket.uri_of("a", "b") == "s3://KEY:secret@bucket/x/a/b?region=eu-west-1&endpoint_override=localhost:1"
    assert bucket.display_uri("a") == "s3://***@bucket/x/a?region=eu-west-1&endpoint_override=localhost:1"
    assert Store(bucket.uri_of("a")).root == "bucket/x/a"


def test_the_store_above_a_directory(tmp_path):
    for location in (f"{tmp_path}/s/x", f"{tmp_path}/s/x/", f"file://{tmp_path}/s/x/"):
        store, name = store_above(location)
        assert (store.root, name) == (f"{tmp_path}/s", "x")
    store, name = store_above("s3://k:s@bucket/s/x?region=r&scheme=http")
    assert (store.storage, name) == ("s3://k:s@bucket/s?region=r&scheme=http", "x")


def test_what_cannot_be_opened_or_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"^storage: .*/file/below cannot be written: "):
        Store(str(tmp_path / "file" / "below")).require_writable()
    said = r"^storage: nosuch://\*\*\*@host/x\?key=\*\*\* cannot be opened: Unrecognized filesystem type in URI: nosuch"
    with pytest.raises(UserError, match=said):
        Store("nosuch://user:secret@host/x?key=secret")


def test_many_may_ask_at_once_whether_it_can_be_written(store):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: store.require_writable(), range(64)))
    assert os.listdir(store.root) == []


def test_a_full_storage_is_nobodys_mistake(tmp_path):
    with FaultyStorage(writes=0) as faulty:
        store = Store(faulty.uri(tmp_path))
        with pytest.raises(
            StorageError, match=r"^storage: .* cannot be written \(No space left on device\); make room"
        ):
            store.require_writable()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EROFS, "x"), r"\(Read-only file system\); allow it"),
        (OSError("When writing: AWS Error ACCESS_DENIED: no"), r"\(When writing: AWS Error ACCESS_DENIED: no\); allow"),
        (OSError("curlCode: 7, Couldn't connect"), r"\(curlCode: 7, Couldn't connect\); mend it"),
    ],
)
def test_a_bucket_that_refuses(tmp_path, error, said):
    with FaultyStorage(writes=1, error=error) as faulty:
        store = Store(faulty.uri(tmp_path))
        store.write(b"x", "a", "one")
        (tmp_path / "local").write_bytes(b"y")
        with pytest.raises(StorageError, match=rf"/a/two cannot be written {said}"):
            store.write(b"x", "a", "two")
        (tmp_path / "up").mkdir()
        (tmp_path / "up" / "f").write_bytes(b"")
        with pytest.raises(StorageError, match=rf"/b/f cannot be written {said}"):
            store.upload(tmp_path / "up", "b")
        assert [name for name, _ in store.files("a")] == ["one"]
        faulty.reads = False
        for use in (lambda: store.read("a", "one"), lambda: store.sha256("a", "one")):
            with pytest.raises(StorageError, match=rf"/a/one cannot be read {said}"):
                use()
        with pytest.raises(StorageError, match=rf"/a/one cannot be read {said}"):
            store.download(tmp_path / "down", "a")


def test_scratch_names_are_known_again():
    assert module._is_scratch("a/" + module._scratch_name("part.parquet"))
    assert module._is_scratch(LEFT_BEHIND)
    assert not module._is_scratch("part.partial")
    assert not module._is_scratch(".part.partial")


def test_no_link_below_the_root_is_followed(tmp_path):
    """What a user's link leads to is neither listed, read, written nor removed; the whole store may be a link."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine" / "sub").mkdir(parents=True)
    (tmp_path / "mine" / "sub" / "file").write_bytes(b"mine")
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    for store in (Store(str(tmp_path / "linked")), Store(f"file://{tmp_path}/linked")):
        store.write(b"x", "a", "file")
        Path(store.root, "a", ".DS_Store").symlink_to(tmp_path / "mine" / "sub" / "file")
        Path(store.root, "a", "sub").symlink_to(tmp_path / "mine" / "sub")
        Path(store.root, "b").symlink_to(tmp_path / "mine")
        assert store.files() == [("a/file", 1)]
        assert store.links() == ["a/.DS_Store", "a/sub", "b"]
        store.download(tmp_path / "copy", "a")
        assert os.listdir(tmp_path / "copy") == ["file"]
        uses = (
            lambda store=store: store.files("b", "sub"),
            lambda store=store: store.keep_only([], "b"),
            lambda store=store: store.write(b"theirs", "a", "sub", "file"),
            lambda store=store: store.delete("b", "sub"),
            lambda store=store: store.delete("b"),
        )
        for use in uses:
            with pytest.raises(
                UserError, match=r"^storage: \S+/(a/sub|b) is a link, and what it leads to is not touch"
            ):
                use()
        assert store.keep_only(["file"], "a") == [".DS_Store", "sub"]
        assert os.listdir(Path(store.root, "a")) == ["file"]
        Path(store.root, "b").unlink()
    assert (tmp_path / "mine" / "sub" / "file").read_bytes() == b"mine"


def test_a_file_that_is_a_link_is_not_taken_for_one(tmp_path):
    """Else what it leads to would be read."""
    store = Store(str(tmp_path / "store"))
    store.write(b"{}", "work", "own.json")
    (tmp_path / "elsewhere.json").write_text("[]")
    (tmp_path / "store" / "work" / "text.json").symlink_to(tmp_path / "elsewhere.json")
    assert store.exists("work", "own.json")
    with pytest.raises(UserError, match=r"storage: .*work/text\.json is a link, and what it leads to is not touched"):
        store.exists("work", "text.json")
