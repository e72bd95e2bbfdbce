from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bertkd_ray.core.redaction import has_credentials, redacted


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:pa%40ss@host:5000/x", "https://***@host:5000/x"),
        ("https://token@host/x", "https://***@host/x"),
        ("postgresql://u:p@host/db?password=p&sslmode=x#f", "postgresql://***@host/db?password=***&sslmode=***#f"),
        ("s3://KEY:secret@bucket/path?version=x", "s3://***@bucket/path?version=***"),
        (
            "s3://KEY:secret@bucket/x?scheme=http&endpoint_override=host:9000&region=eu&session_token=t",
            "s3://***@bucket/x?scheme=http&endpoint_override=host:9000&region=eu&session_token=***",
        ),
        ("s3://bucket/x?endpoint_override=u:p@host", "s3://bucket/x?endpoint_override=***"),
        ("s3://bucket/x?endpoint_override=u:p%40host", "s3://bucket/x?endpoint_override=***"),
        ("sqlite:////data/me@home/mlflow.db", "sqlite:////data/me@home/mlflow.db"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("http://[::1]:8265/jobs", "http://[::1]:8265/jobs"),
        ("https://host/x#access_token=abcdef", "https://host/x#***"),
        ("s3://bucket/x?token=ab#cdef", "s3://bucket/x?token=***#***"),
        ("https://host/#/experiments/7", "https://host/#/experiments/7"),
        ("https://host/page.html#section", "https://host/page.html#section"),
        ("/plain/path?a=b", "/plain/path?a=b"),
        ("C & x=1", "C & x=1"),
    ],
)
def test_a_uri(uri, shown):
    assert redacted(uri) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    "password",
    [
        "pa/ss",
        "pa+ss/w",
        "pa@ss",
        "p@a/s@s",
        "pa?ss",
        "pa#ss",
        "12/34",
        "pa:ss",
        "p%2Fss",
        "[ss",
        "pa ss",
        'p"s',
        "p's",
        "<p>",
        'p a@s"s',
    ],
)
def test_a_password_that_should_have_been_escaped(password):
    assert redacted(f"s3://AKIAKEY:{password}@bucket/x") == "s3://***@bucket/x"


def test_every_uri_of_a_text():
    text = """cp s3://a:b@x/y 'gs://c@z?token=d' {"uri": "http://e:f@h/?sig=g", "n": 1} <ftp://i:j@k>"""
    shown = """cp s3://***@x/y 'gs://***@z?token=***' {"uri": "http://***@h/?sig=***", "n": 1} <ftp://***@k>"""
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000 is down, ask admin@example.org",
        "s3://bucket: cannot be read; ask admin@example.org",
        "('http://host:80', 'a@b')",
    ],
)
def test_what_is_no_password_is_shown(text):
    assert redacted(text) == text


def test_a_traceback_shows_no_credentials():
    script = """
import sys, threading
from bertkd_ray.core.redaction import redacted_stream
sys.stderr = redacted_stream(sys.stderr)
def fail(): raise OSError("http://user:pa55word@host/x does not answer")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
try:
    fail()
except OSError as error:
    raise ValueError("https://user:the other@host") from error
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.count("Traceback") == 3
    # The lines of the source are no text of ours.
    assert ended.stderr.count("http://***@host/x does not answer") == 2
    assert ended.stderr.endswith("ValueError: https://***@host\n")


def test_secrets_that_a_library_repeats():
    uri = "s3://KEY:s%2Fcret@bucket/x?session_token=abcdef&scheme=http"
    said = "s/cret, s%2Fcret and abcdef were sent over http for KEY"
    assert redacted(said, secrets_of=uri) == "***, *** and *** were sent over http for KEY"
    assert redacted("token@x", secrets_of="https://token@x") == "***@x"
    # Parts of words are no secrets.
    assert redacted("a b", secrets_of="https://u:a@x") == "a b"


@pytest.mark.parametrize(
    "text",
    [
        "uri: https://bob:pa$$w0rd1@host",
        "uri: https://bob:pa{w0rd@host",
        "uri: s3://AKIA:se/cret@bucket",
        "uri: 'https://bob:a b@host'",
        "uri: https://ghp_0123@host",
        "storage: s3://bucket/x?access_key=A&secret_key=B",
        "archive: https://host/x.tgz?sig=abc",
        '{"uri": "https:\\/\\/bob:pw@host"}',
    ],
)
def test_credentials_of_an_address_are_known(text):
    assert has_credentials(text)


@pytest.mark.parametrize(
    "text",
    [
        "uri: https://${USER}:${PASSWORD:?set it}@host",
        "uri: postgresql://mlflow:${PASSWORD}@host/mlflow",
        "git+ssh://git@github.com/a/b",
        "https://registry.example/@scope/name",
        "https://host/x?raw=true",
        "https://host:8080/x; write to a@b.example",
        "s3://bucket/x?region=eu",
    ],
)
def test_an_address_without_a_secret_has_no_credentials(text):
    assert not has_credentials(text)


def test_a_path_that_was_an_address_shows_no_password():
    assert redacted(str(Path("s3://AKIA:hunter2@bucket/p.html"))) == "s3:/***@bucket/p.html"
    assert redacted("copy me@host:/data/x@y to C:/Users/me") == "copy me@host:/data/x@y to C:/Users/me"
