"""Parallel text from files: two line-aligned text files, or one TSV; plain or `.gz`; local paths or URIs (`s3://`).

Lines end at a line feed only, so that the separators of Unicode inside a sentence (U+2028, U+0085) cannot shift one
side against the other. Everything is streamed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import zip_longest

import pyarrow as pa
from pyarrow import fs

from bertkd_ray.core.errors import UserError

_BOM = b"\xef\xbb\xbf"


@contextmanager
def open_bytes(path: str) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """A file's bytes to read, those of a `.gz` file decompressed; `path` is a local path or a URI (`s3://`, `gs://`).

    Raises UserError for a missing or unreadable file, a directory, and, while it is read, damaged gzip data.
    """
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(_open(path))
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; correct the path") from error
        except IsADirectoryError as error:
            raise UserError(f"{path}: is a directory; name a file in it") from error
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{path}: cannot be read ({_one_line(error)}); check the path and its permissions"
            ) from error
        if not path.endswith(".gz"):
            yield raw
            return
        unzipped = stack.enter_context(gzip.GzipFile(fileobj=raw, mode="rb"))
        try:
            yield unzipped
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(
                f"{path}: truncated or damaged gzip data ({_one_line(error)}); copy the file again"
            ) from error


def read_lines(path: str) -> Iterator[str]:
    """The lines of a UTF-8 text file, without line ends (`\\n`, `\\r\\n`) and without a byte order mark at its start.

    Raises UserError for what `open_bytes` refuses, for an empty file, and for invalid UTF-8 (line, and byte from 0).
    """
    number = 0
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            has_bom = number == 1 and line.startswith(_BOM)
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}:{number}: not UTF-8 (byte {error.start} of the line, {error.reason}); convert it to UTF-8"
                ) from error
            yield text[has_bom:].removesuffix("\n").removesuffix("\r")
    if number == 0:
        raise UserError(f"{path}: the file is empty; give a file with one sentence a line")


def read_text_pairs(src_path: str, tgt_path: str) -> Iterator[tuple[str, str]]:
    """(source, target) of two line-aligned files; the position of a pair is its line's.

    Raises UserError as `read_lines`, and, after the last pair, if the files differ in their number of lines.
    """
    src_count = tgt_count = 0
    for src, tgt in zip_longest(read_lines(src_path), read_lines(tgt_path)):
        src_count += src is not None
        tgt_count += tgt is not None
        if src is not None and tgt is not None:
            yield src, tgt
    if src_count != tgt_count:
        raise UserError(
            f"{src_path} has {src_count} lines and {tgt_path} has {tgt_count}; line-aligned files have equally many"
        )


def read_tsv(path: str, src_column: int = 0, tgt_column: int = 1) -> Iterator[tuple[str, str]]:
    """(source, target) of a tab-separated file without a header; columns are counted from 0, others are ignored.

    Raises UserError as `read_lines`, and for a line without these columns. Not supported: quoting, tabs in sentences.
    """
    needed = max(src_column, tgt_column) + 1
    for number, line in enumerate(read_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) < needed:
            raise UserError(f"{path}:{number}: {len(columns)} tab-separated columns where {needed} are needed")
        yield columns[src_column], columns[tgt_column]


def content_hash(path: str) -> str:
    """SHA-256 of the content, in hexadecimal; a file and its `.gz` have the same. Raises UserError as `open_bytes`."""
    with open_bytes(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open(path: str) -> io.BufferedReader:
    if "://" not in path:
        return open(path, "rb")
    filesystem, inner_path = fs.FileSystem.from_uri(path)
    kind = filesystem.get_file_info(inner_path).type
    if kind == fs.FileType.NotFound:
        raise FileNotFoundError(path)
    if kind == fs.FileType.Directory:
        raise IsADirectoryError(path)
    return io.BufferedReader(filesystem.open_input_stream(inner_path, compression=None))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
