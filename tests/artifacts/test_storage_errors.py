from __future__ import annotations

import errno
import re
import sqlite3
import tempfile
from pathlib import Path

import pytest

from bertkd_ray.artifacts.storage_errors import as_reported, free_space, scratch_directory, storage_errno, storage_error
from bertkd_ray.core.errors import StorageError, UserError
from tests.helpers.full_disk import mount_failure, run_with_disk

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FULL, errno.ENOSPC),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
        (OSError(errno.EROFS, "Read-only file system"), errno.EROFS),
        (PermissionError(errno.EACCES, "Permission denied"), errno.EACCES),
        (OSError(errno.EIO, "Input/output error"), errno.EIO),
        (OSError("AWS Error ACCESS_DENIED during PutObject operation: Access Denied"), errno.EACCES),
        (sqlite3.OperationalError("database or disk is full"), errno.ENOSPC),
        (sqlite3.OperationalError("attempt to write a readonly database"), errno.EROFS),
        (RuntimeError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), None),
        (ValueError("os error 280"), None),
    ],
)
def test_storage_errors_are_known_by_number_and_by_message(error, number):
    assert storage_errno(error) == number


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FULL, r"No space left on device; [\d.,]+ ([KMGTP]i)?B free\); make room"),
        (OSError(errno.EDQUOT, "…"), r"Disk quota exceeded\); make room"),
        (OSError(errno.EROFS, "…"), r"Read-only file system\); allow it"),
        (OSError(errno.EIO, "…"), r"Input/output error\); mend it"),
        (
            OSError("AWS Error ACCESS_DENIED\n during PutObject"),
            r"AWS Error ACCESS_DENIED during PutObject\); allow it",
        ),
        (OSError("curlCode: 28, Timeout"), r"curlCode: 28, Timeout\); mend it"),
    ],
)
def test_the_line_of_an_error(tmp_path, error, said):
    told = str(storage_error("storage: s3://a:b@c", "written", error, str(tmp_path)))
    assert re.fullmatch(
        rf"storage: s3://\*\*\*@c cannot be written \({said} and run the same command, which goes on from there", told
    ), told


def test_the_room_of_what_is_not_there_yet(tmp_path):
    assert free_space(str(tmp_path / "a" / "b")) == free_space(str(tmp_path))


def test_what_a_command_reports():
    user, full = UserError("x: y"), StorageError("storage: full")
    assert as_reported(user) is user
    assert as_reported(ValueError("x")) is None
    assert as_reported(FileNotFoundError(errno.ENOENT, "No such file")) is None
    # What could not even be noted is not what is told.
    note = sqlite3.OperationalError("database or disk is full")
    note.__context__ = full
    assert as_reported(note) is full
    # An error of another kind is, whatever came before it.
    bug = ValueError("x")
    bug.__context__ = full
    assert as_reported(bug) is None


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (OSError(errno.ENOSPC, "x", "/a/file"), "/a/file"),
        (RuntimeError("pages of text\nOSError: [Errno 28] No space left on device"), "{tmp} (TMPDIR) or the storage"),
        (RuntimeError("(sqlite3.OperationalError) disk is full"), "tracking.uri: the database of the runs"),
    ],
)
def test_an_error_that_has_no_line_yet(error, place):
    told = str(as_reported(error))
    assert told.startswith(f"{place.format(tmp=tempfile.gettempdir())} cannot be written (No space left on device")
    assert told.endswith("; make room and run the same command, which goes on from there")


REFUSAL = "When reading 'a/b': AWS Error ACCESS_DENIED during GetObject operation: HTTP status 403"


@pytest.mark.parametrize("error", [OSError(REFUSAL), RuntimeError(f"pages\nOSError: {REFUSAL}")])
def test_a_buckets_refusal_is_not_blamed_on_this_machine(error):
    with pytest.raises(type(error)) as raised, scratch_directory("x-"):
        raise error
    told = str(as_reported(raised.value))
    assert told.startswith("a bucket (of the storage, or of the corpus) cannot be used (")
    assert REFUSAL in told
    assert told.endswith("; allow it and run the same command, which goes on from there")


def test_a_scratch_directory_ends_with_its_block():
    with scratch_directory("x-") as directory:
        (directory / "file").write_bytes(b"x")
    assert not directory.exists()
    with pytest.raises(ValueError, match=r"^mine$"), scratch_directory("x-") as directory:
        raise ValueError("mine")
    assert not directory.exists()
    with pytest.raises(StorageError, match=r"^the storage's$"), scratch_directory("x-"):
        raise StorageError("the storage's")


def test_no_temporary_directory_at_all(monkeypatch):
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with (
        pytest.raises(StorageError, match=r"^No usable temporary .*; make room, or set TMPDIR"),
        scratch_directory("x"),
    ):
        pytest.fail("there is none")


WRITERS = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from bertkd_ray.core.errors import StorageError
from bertkd_ray.artifacts.storage_errors import scratch_directory

MEGABYTES = {"a": torch.zeros(2_000_000)}
for write in (
    lambda path: torch.save(MEGABYTES, path),
    lambda path: save_file(MEGABYTES, path),
    lambda path: path.write_bytes(bytes(8_000_000)),
):
    try:
        with scratch_directory("x-") as directory:
            write(directory / "file")
    except StorageError as error:
        print(error)
print(list(Path(sys.argv[1]).iterdir()))
"""


@pytest.mark.skipif(bool(mount_failure()), reason=mount_failure())
def test_a_full_temporary_directory_is_told_whoever_writes(tmp_path):
    """torch's own error says no more than that positions differ."""
    disk, script = tmp_path / "disk", tmp_path / "writers.py"
    script.write_text(WRITERS)
    done = run_with_disk(f"$PYTHON {script} {disk}", disk, 2, TMPDIR=str(disk), PYTHONPATH=str(Path.cwd()))
    *told, left = done.stdout.splitlines()
    assert len(told) == 3, done.stderr
    for line in told:
        assert line.startswith(f"temporary directory: {disk} (TMPDIR) cannot be written (")
        assert re.search(r"[Nn]o space left on device.*; [\d.]+ ([KM]i)?B free\); make room and run the same", line)
    assert left == "[]"
