from __future__ import annotations

import pytest

from bertkd_ray.core.redaction import redacted


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
        ("/plain/path?a=b", "/plain/path?a=b"),
        ("C & x=1", "C & x=1"),
    ],
)
def test_a_uri(uri, shown):
    assert redacted(uri) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    "password", ["pa/ss", "pa+ss/w", "pa@ss", "p@a/s@s", "pa?ss", "pa#ss", "12/34", "pa:ss", "p%2Fss", "[ss"]
)
def test_a_password_that_should_have_been_escaped(password):
    assert redacted(f"s3://AKIAKEY:{password}@bucket/x") == "s3://***@bucket/x"


def test_every_uri_of_a_text():
    text = """cp s3://a:b@x/y 'gs://c@z?token=d' {"uri": "http://e:f@h/?sig=g", "n": 1} <ftp://i:j@k>"""
    shown = """cp s3://***@x/y 'gs://***@z?token=***' {"uri": "http://***@h/?sig=***", "n": 1} <ftp://***@k>"""
    assert redacted(text) == shown


def test_secrets_that_a_library_repeats():
    uri = "s3://KEY:s%2Fcret@bucket/x?session_token=abcdef&scheme=http"
    said = "s/cret, s%2Fcret and abcdef were sent over http for KEY"
    assert redacted(said, secrets_of=uri) == "***, *** and *** were sent over http for KEY"
    assert redacted("token@x", secrets_of="https://token@x") == "***@x"
    # Parts of words are no secrets.
    assert redacted("a b", secrets_of="https://u:a@x") == "a b"
