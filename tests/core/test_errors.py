from __future__ import annotations

import pickle

import pytest

from bertkd_ray.core.errors import ReportedError, StorageError, UserError, one_line


@pytest.mark.parametrize(("kind", "code"), [(ReportedError, 1), (StorageError, 1), (UserError, 2)])
def test_an_error_has_an_exit_code_and_shows_no_credentials(kind, code):
    error = kind("s3://key:secret@bucket/x: closed")
    assert error.exit_code == code
    # Ray sends it from a worker to the driver so.
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert (type(one), str(one)) == (kind, "s3://***@bucket/x: closed")


def test_an_error_commands_no_terminal():
    error = UserError("a key \x1b]0;title\x07, a name \x9b1m and \r a return\n\tand a line")
    assert str(error) == "a key \\x1b]0;title\\x07, a name \\x9b1m and \\r a return\n\tand a line"


def test_one_line():
    assert one_line(ValueError(" a\n  b ")) == "a b"
    assert one_line(ValueError()) == "ValueError"
