"""Downloads from a real server on this machine that does what servers do."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import download
from bertkd_ray.corpus.download import fetch

CONTENT = hashlib.shake_256(b"content").digest(1_000_000)
SUM = hashlib.sha256(CONTENT).hexdigest()
Behaviour = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Answers the first requests by `script`, one behaviour each, and all others by the last of it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, script: list[Behaviour]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests = script, list[dict[str, str]]()
        self.content, self.tag = CONTENT, '"one"'
        self.released = threading.Event()

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is expected."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data/de-en.tgz"

    def ranges(self) -> list[str | None]:
        return [request.get("range") for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Behaves as the script says."""
        server = self.server
        server.requests.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
        server.script[min(len(server.requests), len(server.script)) - 1](self)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def headers_for(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def start(self, tag: str | None = None, **headers: str) -> bytes:
        """Sends the headers of a well-behaved server; gives the bytes that are to follow."""
        content, tag = self.server.content, tag or self.server.tag
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if found is None or self.headers.get("If-Range", tag) != tag:
            self.headers_for(200, len(content), ETag=tag, **headers)
            return content
        first = int(found[1])
        if first >= len(content):
            self.headers_for(416, 0)
            return b""
        span = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self.headers_for(206, len(content) - first, ETag=tag, Content_Range=span, **headers)
        return content[first:]


def serve(handler: Handler) -> None:
    handler.wfile.write(handler.start())


def cut_off(after: int) -> Behaviour:
    return lambda handler: handler.wfile.write(handler.start()[:after]) and None


def stall(after: int) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.wfile.write(handler.start()[:after])
        handler.wfile.flush()
        handler.server.released.wait(20)

    return behave


def status(code: int) -> Behaviour:
    return lambda handler: handler.headers_for(code, 0)


def redirect(target: str) -> Behaviour:
    return lambda handler: handler.headers_for(302, 0, Location=target)


def ignore_range(after: int | None = None) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.headers_for(200, len(CONTENT))
        handler.wfile.write(CONTENT[:after])

    return behave


def without_length(handler: Handler) -> None:
    handler.headers_for(200, None)
    handler.wfile.write(CONTENT)


def chunked(after: int) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.headers_for(200, None, Transfer_Encoding="chunked")
        handler.wfile.write(b"%x\r\n" % len(CONTENT) + CONTENT[:after])
        if after == len(CONTENT):
            handler.wfile.write(b"\r\n0\r\n\r\n")

    return behave


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*script: Behaviour) -> Server:
        servers.append(Server(list(script)))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for one in servers:
        one.released.set()
        one.shutdown()
        one.server_close()


def get(server: Server, directory: Path, **options: Any) -> Path:
    return fetch(server.url, directory, **{"timeout": 20, "tries": 3, "pause": 0.01, **options})


def error_message(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as refused:
        act()
    message = str(refused.value)
    assert "\n" not in message
    return message


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("sha256", [None, SUM, SUM.upper()])
def test_a_file_comes_whole_and_only_once(server, tmp_path, sha256):
    web = server(serve)
    for _ in range(2):
        path = get(web, tmp_path / "new" / "cache", sha256=sha256)
        assert path.read_bytes() == CONTENT
        assert path.name == "de-en.tgz"
    assert len(web.requests) == 1
    assert files(tmp_path) == ["de-en.tgz"]


def test_files_of_one_name_do_not_meet(server, tmp_path):
    one, two = server(serve), server(serve)
    two.content = b"other"
    assert get(one, tmp_path).read_bytes() == CONTENT
    assert get(two, tmp_path).read_bytes() == b"other"
    assert get(one, tmp_path).read_bytes() == CONTENT


# --- what passes -----------------------------------------------------------------------------------------------------


def test_what_was_cut_off_is_gone_on_with(server, tmp_path):
    web = server(cut_off(300_000), cut_off(200_000), serve)
    assert get(web, tmp_path).read_bytes() == CONTENT
    assert web.ranges() == [None, "bytes=300000-", "bytes=500000-"]
    assert [request.get("if-range") for request in web.requests] == [None, '"one"', '"one"']


def test_a_stall_is_given_up_after_the_timeout(server, tmp_path):
    web = server(stall(400_000), serve)
    started = time.monotonic()
    assert get(web, tmp_path, timeout=2).read_bytes() == CONTENT
    assert 2 <= time.monotonic() - started < 15
    assert web.ranges()[:2] == [None, "bytes=400000-"]


def test_a_server_that_is_ill_is_asked_again(server, tmp_path):
    web = server(status(500), status(503), serve)
    assert get(web, tmp_path, sha256=SUM).read_bytes() == CONTENT
    assert len(web.requests) == 3


def test_a_later_call_goes_on(server, tmp_path):
    web = server(cut_off(300_000), status(404), serve)
    error_message(lambda: get(web, tmp_path))
    assert files(tmp_path) == ["de-en.tgz.part", "de-en.tgz.part.json"]
    assert get(web, tmp_path).read_bytes() == CONTENT
    assert web.ranges() == [None, "bytes=300000-", "bytes=300000-"]
    assert files(tmp_path) == ["de-en.tgz"]


def test_progress_is_no_failure(server, tmp_path):
    """Ten cut-offs, two tries: each connection brings something new."""
    web = server(*[cut_off(95_000)] * 10, serve)
    assert get(web, tmp_path, tries=2).read_bytes() == CONTENT
    assert len(web.requests) == 11


@pytest.mark.parametrize("sha256", [None, SUM])
def test_a_server_without_ranges_starts_again(server, tmp_path, sha256):
    web = server(ignore_range(600_000), ignore_range(600_000), ignore_range())
    assert get(web, tmp_path, sha256=sha256).read_bytes() == CONTENT
    # Without a tag only a checksum can tell whether the file is still the same.
    assert web.ranges() == [None, *["bytes=600000-" if sha256 else None] * 2]


def test_a_file_that_changed_meanwhile_is_taken_anew(server, tmp_path):
    new = CONTENT[::-1][:800_000]

    def change(handler: Handler) -> None:
        handler.server.content, handler.server.tag = new, '"two"'
        serve(handler)

    web = server(cut_off(500_000), change)
    assert get(web, tmp_path).read_bytes() == new
    assert web.ranges() == [None, "bytes=500000-"]


def test_a_part_longer_than_the_file_is_taken_anew(server, tmp_path):
    web = server(cut_off(500_000), status(404), serve)
    error_message(lambda: get(web, tmp_path))
    web.content = CONTENT[:100]
    assert get(web, tmp_path).read_bytes() == CONTENT[:100]


@pytest.mark.parametrize(
    ("tag", "date", "sent"),
    [('W/"weak"', None, None), ('W/"weak"', formatdate(0, usegmt=True), formatdate(0, usegmt=True))],
)
def test_a_weak_tag_vouches_for_nothing(server, tmp_path, tag, date, sent):
    def cut(handler: Handler) -> None:
        handler.wfile.write(handler.start(tag, **({"Last_Modified": date} if date else {}))[:1000])

    web = server(cut, serve)
    assert get(web, tmp_path).read_bytes() == CONTENT
    assert web.requests[1].get("if-range") == sent


def test_redirections_are_followed(server, tmp_path):
    target = server(cut_off(10), serve)
    web = server(redirect(target.url))
    assert get(web, tmp_path).read_bytes() == CONTENT
    assert target.ranges() == [None, "bytes=10-"]


@pytest.mark.parametrize("behaviour", [without_length, chunked(len(CONTENT))])
def test_a_server_need_not_say_the_length(server, tmp_path, behaviour):
    assert get(server(behaviour), tmp_path).read_bytes() == CONTENT


def test_a_cut_in_chunks_is_seen(server, tmp_path):
    web = server(chunked(400_000), chunked(len(CONTENT)))
    assert get(web, tmp_path).read_bytes() == CONTENT
    assert len(web.requests) == 2


# --- what does not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_final(server, tmp_path, code):
    web = server(status(code))
    message = error_message(lambda: get(web, tmp_path))
    assert web.url in message
    assert str(code) in message
    assert len(web.requests) == 1
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (ignore_range(700_000), "cuts off at 700,000 of 1,000,000"),
        (chunked(10), "cuts off"),
        (stall(0), "stalls"),
        (status(503), "503"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "without response"),
        (lambda handler: handler.headers_for(206, 10), "without saying which"),
        (lambda handler: handler.headers_for(206, 10, Content_Range="bytes 5-14/15"), "skips to byte 5"),
    ],
)
def test_a_server_that_never_gets_further_is_given_up(server, tmp_path, behaviour, reason):
    web = server(behaviour)
    message = error_message(lambda: get(web, tmp_path, timeout=0.5 if reason == "stalls" else 20))
    assert reason in message
    assert "3 times in a row" in message
    assert len(web.requests) <= 4
    assert "de-en.tgz" not in files(tmp_path)


def test_a_wrong_file_is_refused_with_both_sums_and_nothing_is_lost(server, tmp_path):
    web = server(serve)
    wrong = "0" * 64
    message = error_message(lambda: get(web, tmp_path, sha256=wrong))
    assert SUM in message
    assert wrong in message
    assert files(tmp_path) == ["de-en.tgz.part", "de-en.tgz.part.json"]
    # The checksum was wrong, not the file: nothing is downloaded again.
    assert get(web, tmp_path, sha256=SUM).read_bytes() == CONTENT
    assert len(web.requests) == 1


def test_a_wrong_file_is_downloaded_again_when_asked_again(server, tmp_path):
    web = server(serve)
    web.content = b"<html>maintenance</html>"
    error_message(lambda: get(web, tmp_path, sha256=SUM))
    web.content, web.tag = CONTENT, '"two"'
    assert get(web, tmp_path, sha256=SUM).read_bytes() == CONTENT


def test_a_part_of_another_file_is_found_by_the_checksum_and_not_kept_for_ever(server, tmp_path):
    """A server without tags changes the file between two connections."""
    old = bytes(1_000_000)
    untagged = ignore_range(500_000)

    def rest(handler: Handler) -> None:
        handler.headers_for(206, 500_000, Content_Range="bytes 500000-999999/1000000")
        handler.wfile.write(old[500_000:])

    web = server(untagged, rest, serve)
    assert SUM in error_message(lambda: get(web, tmp_path, sha256=SUM))
    assert get(web, tmp_path, sha256=SUM).read_bytes() == CONTENT


def test_a_file_that_is_there_and_wrong_is_left_to_the_user(server, tmp_path):
    web = server(serve)
    path = get(web, tmp_path)
    message = error_message(lambda: get(web, tmp_path, sha256="0" * 64))
    assert "delete it" in message
    assert str(path) in message
    assert path.read_bytes() == CONTENT
    assert len(web.requests) == 1


def test_no_link_in_the_cache_is_written_through(server, tmp_path):
    web, cache, mine = server(serve), tmp_path / "cache", tmp_path / "mine"
    folder = cache / hashlib.sha256(web.url.encode()).hexdigest()[:16]
    folder.mkdir(parents=True)
    mine.write_text("mine")
    (folder / "de-en.tgz.part").symlink_to(mine)
    wanted = r"de-en\.tgz\.part: is a link, and a download would be written to where it leads"
    assert re.search(wanted, error_message(lambda: get(web, cache)))
    assert mine.read_text() == "mine"
    (folder / "de-en.tgz.part").unlink()
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert f"{folder}: is a link" in error_message(lambda: get(web, cache))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_no_network(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.tgz"
        message = error_message(lambda: fetch(url, tmp_path, tries=2, pause=0.01))
    assert "refused" in message
    assert "give its path" in message
    assert files(tmp_path) == []


@pytest.mark.parametrize("url", ["ftp://h/x", "file:///etc/passwd", "x.tgz", "http:///x", "s3://b/x"])
def test_only_web_addresses(tmp_path, url):
    assert "http://" in error_message(lambda: fetch(url, tmp_path))


@pytest.mark.parametrize("path", ["", "/", "/a/", "/a/..", "/a/%2e%2e", "/a%2f", f"/{'x' * 300}"])
def test_an_address_must_name_a_file(tmp_path, path):
    assert "no file" in error_message(lambda: fetch(f"http://127.0.0.1:9{path}", tmp_path))


def test_a_redirection_leads_to_no_local_file(server, tmp_path):
    for target in ("file:///etc/passwd", "ftp://127.0.0.1:9/x"):
        error_message(lambda target=target: get(server(redirect(target)), tmp_path, tries=1))
    assert files(tmp_path) == []


def test_secrets_in_an_address_are_not_shown(server, tmp_path):
    web = server(status(404))
    message = error_message(lambda: fetch(f"{web.url}?token=secret", tmp_path))
    assert "secret" not in message


@pytest.mark.parametrize("of", ["u:geheim", "geheim", "u:ge/heim", "u:ge heim", "u:geheim:1", "u:[geheim", "u:@geheim"])
def test_an_address_with_credentials_is_refused_at_once(tmp_path, of):
    message = error_message(lambda: fetch(f"https://{of}@127.0.0.1:9/de-en.tgz", tmp_path))
    assert message.endswith(": give a path, or an http:// or https:// address without user and password")
    assert "ge" not in message.partition(": give ")[0]
    assert "heim" not in message


@pytest.mark.parametrize("host", ["[::1", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_without_a_host_is_refused_at_once(tmp_path, host):
    assert "an http://" in error_message(lambda: fetch(f"http://{host}/x.tgz", tmp_path))


def test_a_directory_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be written" in error_message(lambda: get(server(serve), tmp_path / "file"))


def test_a_full_disk(server, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(download._Download, "_opened", lambda self, version, start: Full())
    assert "no space is left" in error_message(lambda: get(server(serve), tmp_path))


def test_two_processes_do_not_write_the_same_part(server, tmp_path):
    def slow(handler: Handler) -> None:
        content = handler.start()
        handler.wfile.write(content[:500_000])
        handler.wfile.flush()
        time.sleep(0.1)
        handler.wfile.write(content[500_000:])

    web = server(slow)
    spawned = [multiprocessing.get_context("spawn").Process(target=fetch, args=(web.url, tmp_path)) for _ in range(2)]
    for process in spawned:
        process.start()
    for process in spawned:
        process.join(60)
    assert [process.exitcode for process in spawned] == [0, 0]
    assert len(web.requests) == 1
    assert get(web, tmp_path).read_bytes() == CONTENT


def test_progress_says_what_comes(server, tmp_path, capsys):
    get(server(serve), tmp_path)
    assert "download de-en.tgz  1,000,000/1,000,000 bytes  100%" in capsys.readouterr().err.replace(
        "1.00M", "1,000,000"
    )


@pytest.mark.parametrize("note", ["", "[]", "3", '{"validator": 1, "size": null}', '{"other": 1}', "[" * 100_000])
def test_a_note_that_is_damaged_begins_the_download_anew(server, tmp_path, note):
    web = server(cut_off(300_000), status(404), serve)
    error_message(lambda: get(web, tmp_path))
    (path,) = tmp_path.rglob("*.part.json")
    path.write_text(note)
    assert get(web, tmp_path).read_bytes() == CONTENT
    assert web.ranges() == [None, "bytes=300000-", None]
