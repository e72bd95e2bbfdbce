"""A bucket as `storage`: the store and the whole pipeline against an S3 server on the loopback interface."""

from __future__ import annotations

import http.client
import itertools
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from bertkd_ray.artifacts.artifact import find, load
from bertkd_ray.artifacts.lock import hold_lock
from bertkd_ray.artifacts.store import Store
from bertkd_ray.cli import main
from bertkd_ray.core.errors import ReportedError, UserError
from bertkd_ray.pipeline.checks import check_store
from bertkd_ray.softlabels.extract import shard_name
from tests.helpers.local_project import InProcessRuntime, Project, extracted, translated
from tests.helpers.services import environment, free_port, s3_server

pytestmark = pytest.mark.slow
SECRET = "secret-of-the-tests"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    # No role of a machine in the cloud is looked for.
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The server's URL; its credentials are in this process's environment."""
    with pytest.MonkeyPatch.context() as patch, s3_server(environment(**CREDENTIALS)) as url:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        Store(f"s3://bucket?{_way(url)}&allow_bucket_creation=true").write(b"", "is-there")
        yield url


@pytest.fixture(params=["query", "environment", "credentials in the URI"])
def storage(request, server, monkeypatch) -> str:
    """The three ways to say where a bucket is, each with a prefix of its own."""
    prefix = request.node.name.replace("[", "-").strip("]").replace(" ", "-")
    if request.param == "query":
        return f"s3://bucket/{prefix}?{_way(server)}"
    if request.param == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        return f"s3://bucket/{prefix}/"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    return f"s3://tester:{SECRET}@bucket/{prefix}?{_way(server)}"


def _way(url: str) -> str:
    """How the server is reached, as the query of a storage URI."""
    scheme, _, place = url.partition("://")
    return f"scheme={scheme}&endpoint_override={place}"


def test_files_come_and_go(storage):
    store = Store(storage)
    store.require_writable()
    assert store.files() == []
    store.write(b"one", "a", "b", "c.txt")
    store.write(b"three", "a", "b", "c.txt")
    assert (store.exists("a", "b", "c.txt"), store.exists("a", "b")) == (True, False)
    assert (store.read("a", "b", "c.txt"), store.files("a")) == (b"three", [("b/c.txt", 5)])
    assert store.sha256("a", "b", "c.txt") == "8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f"
    store.delete("a")
    store.delete("a")
    assert store.files() == []


def test_a_uri_made_here_opens_there(storage):
    Store(storage).write(b"x", "artifact", "file")
    assert Store(Store(storage).uri_of("artifact")).read("file") == b"x"
    assert Store(Store(storage).uri).read("artifact", "file") == b"x"
    assert SECRET not in Store(storage).display_uri("artifact")


def test_directories_go_up_and_down(storage, tmp_path):
    store, local = Store(storage), tmp_path / "local"
    (local / "inner").mkdir(parents=True)
    (local / "inner" / "x").write_bytes(b"x")
    (local / "y").write_bytes(b"yy")
    store.write(b"of an earlier try", "model", "stranger")
    store.upload(local, "model")
    assert store.files("model") == [("inner/x", 1), ("y", 2)]
    store.download(tmp_path / "again", "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").rglob("*") if path.is_file()} == {
        "x": b"x",
        "y": b"yy",
    }


class Files:
    """A file system, some of whose calls are others."""

    def __init__(self, files: fs.FileSystem, **calls: Any) -> None:
        self._files = files
        vars(self).update(calls)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)


def test_a_large_file_travels_in_parts_and_is_read_in_ranges(server, tmp_path):
    """24 MB are more than one part, and one row group of twelve is a range in the middle."""
    import boto3

    store = Store(f"s3://bucket/large?{_way(server)}")
    values = list(range(3_000_000))
    pq.write_table(
        pa.table({"n": pa.array(values, pa.int64())}),
        tmp_path / "n",
        row_group_size=250_000,
        compression="none",
        use_dictionary=False,
    )
    tags, move = [], store.fs.move

    def move_noting_the_tag(source: str, target: str) -> None:
        head = boto3.client("s3", endpoint_url=server).head_object(Bucket="bucket", Key=source.partition("/")[2])
        tags.append(head["ETag"])
        move(source, target)

    store.fs = Files(store.fs, move=move_noting_the_tag)
    store.upload(tmp_path, "table")
    assert int(tags[0].strip('"').partition("-")[2]) > 1
    with store.fs.open_input_file(store.path("table", "n")) as source:
        assert pq.ParquetFile(source).read_row_group(7)["n"].to_pylist() == values[1_750_000:2_000_000]


@pytest.mark.parametrize("size", [1 << 20, 24 << 20])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is gone")])
def test_an_upload_that_breaks_off_leaves_what_was_there(server, tmp_path, monkeypatch, error, size):
    store = Store(f"s3://bucket/interrupted?{_way(server)}")
    store.write(b"before", "model", "x")
    (tmp_path / "x").write_bytes(bytes(size))

    def interrupted(source: Any, sink: Any, chunk: int) -> None:
        sink.write(source.read(size // 2))
        raise error

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    with pytest.raises((KeyboardInterrupt, ReportedError)):
        store.upload(tmp_path, "model")
    assert store.read("model", "x") == b"before"
    assert [name for name, _ in store._all_files()] == ["model/x"]


def test_writing_asks_for_no_more_than_writing(server):
    """Who may write below a prefix alone may neither look at the bucket nor make markers of directories."""

    def create_dir(*_: Any, **__: Any) -> None:
        pytest.fail("a directory is made")

    store = Store(f"s3://bucket/prefix/below?{_way(server)}")
    store.fs = Files(store.fs, create_dir=create_dir)
    store.require_writable()
    store.write(b"x", "a", "b")
    assert store.read("a", "b") == b"x"
    assert [name for name, _ in store._all_files()] == ["a/b"]


@pytest.fixture
def flaky(server) -> Iterator[str]:
    """The server behind one that answers every third request itself: come back later."""
    lock, count = threading.Lock(), itertools.count(1)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self._body()
            with lock:
                is_refused = next(count) % 3 == 0
            if is_refused:
                self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                return
            connection = http.client.HTTPConnection(server.removeprefix("http://"))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())
            connection.close()

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = headers.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()


def test_answers_that_say_later_are_asked_for_again(flaky, tmp_path):
    store = Store(f"s3://bucket/flaky?{_way(flaky)}")
    (tmp_path / "model").mkdir()
    data = bytes(range(256)) * (24 << 12)
    (tmp_path / "model" / "x").write_bytes(data)
    for _ in range(3):
        store.require_writable()
        store.upload(tmp_path / "model", "model")
        assert store.files("model") == [("x", len(data))]
        assert store.read("model", "x") == data
        with hold_lock(store, "corpus-x"):
            assert store.exists("locks", "corpus-x.json")
        store.delete("model")


def test_a_lock_is_one_drivers(storage):
    with (
        hold_lock(Store(storage), "corpus-x"),
        pytest.raises(UserError, match=r"corpus-x: process .* has been making it since"),
        hold_lock(Store(storage), "corpus-x"),
    ):
        pytest.fail("both hold it")
    with hold_lock(Store(storage), "corpus-x"):
        assert [name for name, _ in Store(storage).files()] == ["locks/corpus-x.json"]


@pytest.mark.parametrize(
    "place", ["nobody-made-this-bucket/x?{way}", "bucket/x?scheme=http&endpoint_override=127.0.0.1:{port}"]
)
def test_a_bucket_that_is_not_there_is_one_line(server, capsys, tmp_path, place):
    where = place.format(way=_way(server), port=free_port())
    config = tmp_path / "c.yaml"
    config.write_text("name: x\ncorpus: {source: demo}\ntracking: none\n", encoding="utf-8")
    started = time.monotonic()
    code = main(["run", str(config), f"storage=s3://tester:{SECRET}@{where}"])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("bertkd: error: storage: s3://")
    assert SECRET not in err
    assert time.monotonic() - started < 60


def test_a_uri_that_opens_nothing_is_one_line_without_its_credentials():
    with pytest.raises(ReportedError) as raised:
        Store(f"s3://tester:{SECRET}@bucket/x?scheme=htp&endpoint_override=127.0.0.1:1").require_writable()
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory) -> Project:
    """The corpus that a directory gets."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.corpus()
    return project


@pytest.fixture(scope="module")
def in_bucket(on_disk, server) -> Project:
    """All five stages, their artifacts in the bucket; made once."""
    project = Project(on_disk.directory, f"storage=s3://bucket/pipeline?{_way(server)}")
    project.labels()
    _translate(project)
    return project


def _translate(project: Project) -> Any:
    corpus, student = project.corpus(), project.control()
    return translated(project.pending_translation(), project.config, project.runtime, corpus, student)


def test_the_corpus_is_that_of_a_directory(on_disk, in_bucket):
    local, remote = on_disk.corpus(), in_bucket.corpus()
    assert local.fingerprint == remote.fingerprint
    assert local.files == remote.files


def test_every_artifact_is_committed_and_the_work_is_gone(in_bucket):
    stages = {name.partition("-")[0] for name, _ in in_bucket.store.files() if name.endswith("/manifest.json")}
    assert stages == {"corpus", "teacher", "softlabels", "student", "translation"}
    assert in_bucket.store.files("work") == []
    assert check_store(in_bucket.config.storage) == (5, [])


def test_a_second_driver_finds_them(in_bucket):
    store = Store(in_bucket.config.storage)
    for made in (in_bucket.corpus(), in_bucket.teacher(), in_bucket.labels(), in_bucket.control()):
        found = find(store, made.stage, made.fingerprint)
        assert found is not None
        assert found == load(store, made.directory)


def test_a_flipped_byte_is_found(in_bucket):
    student = in_bucket.control()
    data = in_bucket.store.read(student.directory, "model", "model.safetensors")
    in_bucket.store.write(data[:-1] + bytes([data[-1] ^ 1]), student.directory, "model", "model.safetensors")
    try:
        assert check_store(in_bucket.config.storage) == (
            5,
            [f"{student.directory}/model/model.safetensors: its content differs from the manifest's checksum"],
        )
    finally:
        in_bucket.store.write(data, student.directory, "model", "model.safetensors")


def test_a_lost_shard_alone_is_made_again(in_bucket):
    labels, store = in_bucket.labels(), in_bucket.store
    before = {name: store.sha256(labels.directory, name) for name, _ in store.files(labels.directory)}
    shards = sorted(name for name in before if name.endswith(".parquet"))
    assert len(shards) > 2
    for lost in ("manifest.json", shards[1]):
        store.fs.delete_file(store.path(labels.directory, lost))
    runtime: Any = InProcessRuntime()
    pending = in_bucket.pending_labels()
    assert pending.resumed
    made = extracted(pending, in_bucket.config, runtime, in_bucket.corpus(), in_bucket.teacher())
    assert [shard_name(item) for item in runtime.mapped] == [shards[1]]
    after = {name: store.sha256(made.directory, name) for name in shards if name != shards[1]}
    assert after.items() <= before.items()
    assert check_store(in_bucket.config.storage) == (5, [])


def test_the_student_leaves_the_bucket_as_a_directory(in_bucket, tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    directory = Path(in_bucket.control().local("model", tmp_path))
    assert directory.is_relative_to(tmp_path)
    assert AutoModelForSeq2SeqLM.from_pretrained(directory).config.d_model == 32
