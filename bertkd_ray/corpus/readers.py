"""Sentence pairs from text: line-aligned files, TSV and JSON Lines; plain, `.gz` or `.zst`; local paths or URIs (`s3://`).

Lines end at a line feed only, so that the separators of Unicode inside a sentence (U+2028, U+0085) cannot shift one
side against the other. Everything is streamed, a block of lines at a time, and given as tables with the string columns
`src` and `tgt`.
"""

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice, zip_longest
from typing import IO, Any, cast

import pyarrow as pa
from pyarrow import fs

from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.core.redaction import redacted
from bertkd_ray.core.timeouts import call_with_timeout
from bertkd_ray.corpus.alignment_drift import drift_line

PAIRS = pa.schema([("src", pa.string()), ("tgt", pa.string())])
"""The schema of the tables, of any length, that every reader yields."""

_BOM = b"\xef\xbb\xbf"
_BLOCK_LINES = 4096
_BUFFER_BYTES = 1 << 18
_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON_NAMES = {dict: "an object", list: "a list", bool: "a truth value", type(None): "null"}


@contextmanager
def open_bytes(path: str) -> Iterator[IO[bytes]]:
    """A file's bytes to read, those of `.gz` and `.zst` files decompressed; a local path or a URI (`s3://`, `gs://`).

    Raises UserError for a missing or unreadable file, a directory, and, while it is read, damaged compressed data.
    """
    with ExitStack() as stack:
        raw = stack.enter_context(_open(path))
        if path.endswith(".zst"):
            yield stack.enter_context(io.BufferedReader(_Zstd(raw, path), _BUFFER_BYTES))
        elif not path.endswith(".gz"):
            yield raw
        else:
            try:
                yield cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw, mode="rb")))
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise UserError(_damaged(path, "gzip", error)) from error


def read_lines(path: str) -> Iterator[str]:
    """The lines of a UTF-8 text file, without line ends (`\\n`, `\\r\\n`) and without a byte order mark at its start.

    Raises UserError for what `open_bytes` refuses, for an empty file, and for invalid UTF-8 (line, and byte from 0).
    """
    for block in _line_blocks(path):
        yield from block.to_pylist()


def read_text_pairs(src_path: str, tgt_path: str) -> Iterator[pa.Table]:
    """The pairs of two line-aligned files; the position of a pair is its line's.

    Raises UserError as `read_lines`, and, after the last pair, if the files differ in their number of lines, with the
    line after which they drift apart where that can be told.
    """
    src_count = tgt_count = 0
    none = pa.array([], pa.string())
    for src, tgt in zip_longest(_line_blocks(src_path), _line_blocks(tgt_path), fillvalue=none):
        src_count += len(src)
        tgt_count += len(tgt)
        shorter = min(len(src), len(tgt))
        if shorter:
            yield pa.table([src[:shorter], tgt[:shorter]], schema=PAIRS)
    if src_count != tgt_count:
        # Read again from the start: what tells where they part is of no use to files that are aligned.
        line = drift_line(read_lines(src_path), read_lines(tgt_path))
        where = "" if line is None else f", and these seem to drift apart after about line {line}"
        raise UserError(
            f"{src_path} has {src_count} lines and {tgt_path} has {tgt_count}; "
            f"line-aligned files have equally many{where}"
        )


def read_tsv(path: str, src_column: int = 0, tgt_column: int = 1) -> Iterator[pa.Table]:
    """The pairs of a tab-separated file without a header; columns are counted from 0, others are ignored.

    Raises UserError as `read_lines`, and for a line without these columns. Not supported: quoting, tabs in sentences.
    """
    needed = max(src_column, tgt_column) + 1

    def pair(number: int, line: str) -> tuple[str, str]:
        columns = line.split("\t")
        if len(columns) < needed:
            raise UserError(f"{path}:{number}: {len(columns)} tab-separated columns where {needed} are needed")
        return columns[src_column], columns[tgt_column]

    return _parsed(path, pair)


def read_jsonl(path: str, src_column: str = "src", tgt_column: str = "tgt") -> Iterator[pa.Table]:
    """The pairs of a file with a JSON object a line; a dot in a column's name leads into an object.

    Raises UserError as `read_lines`, and for a line that is not a JSON object, lacks a column or holds no text there.
    """
    columns = [(column, column.split(".")) for column in (src_column, tgt_column)]

    def pair(number: int, line: str) -> tuple[str, str]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({one_line(error)}); give one object a line") from None
        src, tgt = (_json_text(record, column, keys, f"{path}:{number}") for column, keys in columns)
        return src, tgt

    return _parsed(path, pair)


def tables_of(pairs: Iterable[tuple[str, str]]) -> Iterator[pa.Table]:
    """Tables of pairs that come one by one."""
    stream = iter(pairs)
    while block := list(islice(stream, _BLOCK_LINES)):
        src, tgt = zip(*block, strict=True)
        yield pa.table([list(src), list(tgt)], schema=PAIRS)


def content_hash(path: str) -> str:
    """SHA-256 of the content, in hexadecimal; a file and its `.gz` have the same. Raises UserError as `open_bytes`."""
    with open_bytes(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type] # every stream reads into


def locate(path: str) -> tuple[fs.FileSystem, str, fs.FileType]:
    """The filesystem of a local path or a URI, the path in it, and what is there."""
    filesystem, inner_path = fs.FileSystem.from_uri(path) if "://" in path else (fs.LocalFileSystem(), path)
    inner_path = inner_path.rstrip("/") or "/"
    return filesystem, inner_path, filesystem.get_file_info(inner_path).type


def unreadable_error(path: str, error: Exception) -> UserError:
    """The error for a file that cannot be opened."""
    display_path = redacted(path)
    if isinstance(error, FileNotFoundError):
        return UserError(f"{display_path}: no such file; correct the path")
    if isinstance(error, IsADirectoryError):
        return UserError(f"{display_path}: is a directory; name a file in it")
    message = redacted(one_line(error), secrets_of=path)
    return UserError(f"{display_path}: cannot be read ({message}); check the path and its permissions")


class _Zstd(io.RawIOBase):
    """Decompressed bytes; damaged data raise UserError, whoever reads."""

    def __init__(self, raw: IO[bytes], path: str) -> None:
        self._stream, self._path = pa.CompressedInputStream(raw, "zstd"), path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except OSError as error:
            raise UserError(_damaged(self._path, "zstd", error)) from error
        buffer[: len(data)] = data
        return len(data)


def _damaged(path: str, kind: str, error: Exception) -> str:
    return f"{path}: truncated or damaged {kind} data ({one_line(error)}); copy the file again"


def _line_blocks(path: str) -> Iterator[pa.StringArray]:
    """The lines of a file, many at a time: Arrow checks their UTF-8 faster than Python decodes them."""
    first = 1
    with open_bytes(path) as stream:
        while lines := list(islice(stream, _BLOCK_LINES)):
            bare = [line.removesuffix(b"\n").removesuffix(b"\r") for line in lines]
            if first == 1:
                bare[0] = bare[0].removeprefix(_BOM)
            try:
                yield pa.array(bare, pa.binary()).cast(pa.string())
            except pa.ArrowInvalid:
                raise not_utf8_error(path, first, lines) from None
            first += len(lines)
    if first == 1:
        raise UserError(f"{path}: the file is empty; give a file with one sentence a line")


def not_utf8_error(path: str, first: int, lines: list[bytes]) -> UserError:
    """The error for lines of a file of which one is not UTF-8; first: the number of the first line."""
    for number, line in enumerate(lines, start=first):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            where = f"{path}:{number}: not UTF-8 (byte {error.start} of the line, {error.reason})"
            return UserError(f"{where}; convert it to UTF-8")
    raise AssertionError("Arrow refuses what Python reads as UTF-8")


def _parsed(path: str, pair: Callable[[int, str], tuple[str, str]]) -> Iterator[pa.Table]:
    return tables_of(pair(number, line) for number, line in enumerate(read_lines(path), start=1))


def _json_text(record: Any, column: str, keys: list[str], where: str) -> str:
    value = record
    for key in keys:
        if not isinstance(value, dict):
            raise UserError(f"{where}: {column} leads into {_json_name(value)}; give an object")
        if key not in value:
            raise UserError(f"{where}: no {column} here, only {', '.join(value) or 'an empty object'}; name a key")
        value = value[key]
    if not isinstance(value, str):
        raise UserError(f"{where}: {column} is {_json_name(value)}; give text")
    if not value.isascii() and _SURROGATE.search(value):
        raise UserError(f"{where}: {column} holds half a surrogate pair, which is no character; mend the line")
    return value


def _json_name(value: Any) -> str:
    return _JSON_NAMES.get(type(value), "a number" if isinstance(value, int | float) else "text")


def _open(path: str) -> IO[bytes]:
    try:
        if "://" not in path:
            return open(path, "rb", buffering=_BUFFER_BYTES)
        return call_with_timeout(lambda: _open_uri(path))
    except (OSError, pa.ArrowException) as error:
        raise unreadable_error(path, error) from error


def _open_uri(path: str) -> IO[bytes]:
    filesystem, inner_path, kind = locate(path)
    if kind == fs.FileType.NotFound:
        raise FileNotFoundError(path)
    if kind == fs.FileType.Directory:
        raise IsADirectoryError(path)
    return io.BufferedReader(filesystem.open_input_stream(inner_path, compression=None), _BUFFER_BYTES)
