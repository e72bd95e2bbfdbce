"""Sentence pairs from text: line-aligned files, TSV and JSON Lines; plain or packed; local paths or URIs (`s3://`).

What packed a file is told by its first bytes: gzip, zstd, xz and bzip2 are read. Lines end at a line feed only, so that
the separators of Unicode inside a sentence (U+2028, U+0085) cannot shift one side against the other. Everything is
streamed, a block of lines at a time, and given as tables with the string columns `src` and `tgt`.
"""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice, zip_longest
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.core.redaction import redacted
from bertkd_ray.core.timeouts import call_with_timeout
from bertkd_ray.corpus.alignment_drift import drift_line

PAIRS = pa.schema([("src", pa.string()), ("tgt", pa.string())])
"""The schema of the tables, of any length, that every reader yields."""
MAX_LINE_BYTES = 1 << 18
"""A longer line, of no use to any model, is read as an empty one."""

_BOM = b"\xef\xbb\xbf"
_BLOCK_LINES = 4096
_BUFFER_BYTES = 1 << 18
_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON_NAMES = {dict: "an object", list: "a list", bool: "a truth value", type(None): "null"}


class _MultiStream(io.RawIOBase):
    """The streams of a bzip2 or xz file, with zeros behind any of them.

    `bz2.open` and `lzma.open` take a damaged stream behind the first one for its end, without a word.
    """

    def __init__(self, new: Callable[[], Any], packed: IO[bytes]) -> None:
        self._new, self._packed, self._stream = new, packed, new()

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes; none at the end of the last stream, and EOFError where that is cut off."""
        unpacked = b""
        while not unpacked:
            if self._stream.eof:
                data = self._stream.unused_data.lstrip(b"\0")
                while not data and (block := self._packed.read(_BUFFER_BYTES)):
                    data = block.lstrip(b"\0")
                if not data:
                    return b""
                self._stream = self._new()
            else:
                data = self._packed.read(_BUFFER_BYTES) if self._stream.needs_input else b""
                if self._stream.needs_input and not data:
                    raise EOFError("the last stream has no end")
            unpacked = self._stream.decompress(data, size)
        return unpacked


_ZSTD = "zstd", partial(pa.CompressedInputStream, compression="zstd")
# The first bytes of what is read, and of what is not.
_PACKED: dict[bytes, tuple[str, Callable[[Any], Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"\x28\xb5\x2f\xfd": _ZSTD,
    b"\x50\x2a\x4d\x18": _ZSTD,  # by pzstd
    b"\xfd7zXZ\x00": ("xz", partial(_MultiStream, partial(lzma.LZMADecompressor, lzma.FORMAT_XZ))),
    b"BZh": ("bzip2", partial(_MultiStream, bz2.BZ2Decompressor)),
}
_NOT_READ = {
    b"PK\x03\x04": "a ZIP archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\x04\x22\x4d\x18": "packed by LZ4",
    b"\x1f\x9d": "packed by compress",
    b"PAR1": "a Parquet file",
}


@contextmanager
def open_bytes(path: str, *, once: bool = False) -> Iterator[IO[bytes]]:
    """A file's bytes to read, unpacked if they are packed; a local path or a URI (`s3://`, `gs://`).

    once: whether a pipe or a device, which cannot be read again, will do. Raises UserError for a missing or unreadable
    file, a directory, what no reader knows (ZIP, …) and, while it is read, for damaged data and a storage that fails.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(_open(path, once))
        raw = stack.enter_context(io.BufferedReader(_Checked(opened, path), _BUFFER_BYTES))
        first = raw.peek()
        for magic, (kind, unpack) in _PACKED.items():
            if first.startswith(magic):
                unpacked = stack.enter_context(unpack(raw))
                yield stack.enter_context(io.BufferedReader(_Checked(unpacked, path, kind), _BUFFER_BYTES))
                return
        if what := next((what for magic, what in _NOT_READ.items() if first.startswith(magic)), None):
            raise UserError(f"{path}: is {what}, not text; unpack it, or pack the text with gzip, bzip2, xz or zstd")
        yield raw


def read_lines(path: str) -> Iterator[str]:
    """The lines of a UTF-8 text file, without line ends (`\\n`, `\\r\\n`) and without a byte order mark at its start.

    A line over `MAX_LINE_BYTES` is read as an empty one. Raises UserError for what `open_bytes` refuses, for an empty
    file, and for invalid UTF-8 (line, and byte from 0).
    """
    return _lines(_line_blocks(path))


def read_text_pairs(src_path: str, tgt_path: str) -> Iterator[pa.Table]:
    """The pairs of two line-aligned files; the position of a pair is its line's.

    Raises UserError as `read_lines`, and, after the last pair, if the files differ in their number of lines, with the
    line after which they drift apart where that can be told.
    """
    return aligned_pairs(src_path, partial(_line_blocks, src_path), tgt_path, partial(_line_blocks, tgt_path))


def aligned_pairs(
    src_name: str,
    src_blocks: Callable[[], Iterator[pa.StringArray]],
    tgt_name: str,
    tgt_blocks: Callable[[], Iterator[pa.StringArray]],
) -> Iterator[pa.Table]:
    """The pairs of two sides that are aligned by line, each given as what reads its `line_blocks` from the start.

    Raises UserError, naming the sides, if they differ in their number of lines.
    """
    src_count = tgt_count = 0
    none = pa.array([], pa.string())
    for src, tgt in zip_longest(src_blocks(), tgt_blocks(), fillvalue=none):
        src_count += len(src)
        tgt_count += len(tgt)
        shorter = min(len(src), len(tgt))
        if shorter:
            yield pa.table([side[:shorter].fill_null("") for side in (src, tgt)], schema=PAIRS)
    if src_count != tgt_count:
        # Read again from the start: what tells where they part is of no use to files that are aligned.
        line = drift_line(_lines(src_blocks()), _lines(tgt_blocks()))
        where = "" if line is None else f", and these seem to drift apart after about line {line}"
        raise UserError(
            f"{src_name} has {src_count} lines and {tgt_name} has {tgt_count}; "
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
    """The pairs of a file with a JSON object a line; a dot in a name leads into an object, unless a key has it.

    Raises UserError as `read_lines`, and for a line that is not a JSON object, lacks a column or holds no text there.
    """

    def pair(number: int, line: str) -> tuple[str, str]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({one_line(error)}); give one object a line") from None
        where = f"{path}:{number}"
        return _json_text(record, src_column, where), _json_text(record, tgt_column, where)

    return _parsed(path, pair)


def tables_of(pairs: Iterable[tuple[str, str]]) -> Iterator[pa.Table]:
    """Tables of pairs that come one by one."""
    stream = iter(pairs)
    while block := list(islice(stream, _BLOCK_LINES)):
        yield pa.table([list(side) for side in zip(*block, strict=True)], schema=PAIRS)


def content_hash(path: str) -> str:
    """SHA-256 of the content, in hexadecimal; a file and its `.gz` have the same. Raises UserError as `open_bytes`."""
    with open_bytes(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type] # every stream reads into


def stored_hash(path: str) -> str:
    """SHA-256 of a file's bytes as they are stored, packed or not. Raises UserError as `open_bytes`."""
    with _open(path, once=False) as opened, io.BufferedReader(_Checked(opened, path), _BUFFER_BYTES) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def open_stored(path: str) -> Iterator[IO[bytes]]:
    """A file's bytes as they are stored, packed or not, which can be sought. Raises UserError as `open_bytes`."""
    with (
        _open(path, once=False, seekable=True) as opened,
        io.BufferedReader(_Checked(opened, path), _BUFFER_BYTES) as stream,
    ):
        yield stream


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


class _Checked(io.RawIOBase):
    """What a stream gives; data that cannot be read or unpacked raise UserError, whoever reads."""

    def __init__(self, stream: IO[bytes], path: str, kind: str | None = None) -> None:
        """kind: what packed the data."""
        self._stream, self._path, self._kind = stream, path, kind

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._kind is None and self._stream.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except (EOFError, OSError, lzma.LZMAError, zlib.error, pa.ArrowException) as error:
            if self._kind is None:
                raise unreadable_error(self._path, error) from error
            if "too much memory" in str(error):
                reason = "its zstd data have a long window, which is not read; pack it again without --long"
                raise UserError(f"{self._path}: {reason}") from None
            reason = f"truncated or damaged {self._kind} data ({one_line(error)})"
            raise UserError(f"{self._path}: {reason}; copy the file again") from error
        buffer[: len(data)] = data
        return len(data)


def blocks_of(stream: IO[bytes]) -> Iterator[bytes]:
    """All that a stream gives, in blocks."""
    return iter(partial(stream.read, _BUFFER_BYTES), b"")


def byte_lines(blocks: Iterable[bytes]) -> Iterator[bytes | None]:
    """The lines of a file in blocks, without line feeds; None for one over `MAX_LINE_BYTES`."""
    begun, size = b"", 0
    for block in blocks:
        *ended, unfinished = block.split(b"\n")
        if ended:
            yield begun + ended[0] if size + len(ended[0]) <= MAX_LINE_BYTES else None
            yield from ended[1:]
            begun, size = b"", 0
        size += len(unfinished)
        # Of a line that is too long its length alone is remembered.
        begun = begun + unfinished if size <= MAX_LINE_BYTES else b""
    if size:
        yield begun if size <= MAX_LINE_BYTES else None


def _line_blocks(path: str) -> Iterator[pa.StringArray]:
    with open_bytes(path) as stream:
        if stream.peek()[257:262] == b"ustar":  # type: ignore[attr-defined]
            raise UserError(f"{path}: is a tar archive, not text; unpack it")
        yield from line_blocks(stream, path)


def line_blocks(stream: IO[bytes], name: str) -> Iterator[pa.StringArray]:
    """The lines of a stream of text, many at a time, null where too long.

    name: what errors call it. Raises UserError as `read_lines`.
    """
    first, too_long = 1, 0
    every = byte_lines(blocks_of(stream))
    while lines := list(islice(every, _BLOCK_LINES)):
        bare = [line and line.removesuffix(b"\r") for line in lines]
        if first == 1 and bare[0]:
            bare[0] = bare[0].removeprefix(_BOM)
        try:
            block = pa.array(bare, pa.binary()).cast(pa.string())  # checks UTF-8 faster than Python decodes it
        except pa.ArrowInvalid:
            raise not_utf8_error(name, first, [(line or b"") + b"\n" for line in lines]) from None
        yield block
        first += len(lines)
        too_long += block.null_count
    if first == 1:
        raise UserError(f"{name}: the file is empty; give a file with one sentence a line")
    if too_long:
        log(f"warning: {name}: lines over {MAX_LINE_BYTES:,} bytes are read as empty ones: {too_long}")


def _lines(blocks: Iterator[pa.StringArray]) -> Iterator[str]:
    return (line or "" for block in blocks for line in block.to_pylist())


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
    lines = enumerate((line for block in _line_blocks(path) for line in block.to_pylist()), start=1)
    return tables_of(("", "") if line is None else pair(number, line) for number, line in lines)


def _json_text(record: Any, column: str, where: str) -> str:
    value, rest = record, column
    while rest:
        if not isinstance(value, dict):
            raise UserError(f"{where}: {column} leads into {_json_name(value)}; give an object")
        key, _, below = (rest, "", "") if rest in value else rest.partition(".")
        if key not in value:
            raise UserError(f"{where}: no {column} here, only {', '.join(value) or 'an empty object'}; name a key")
        value, rest = value[key], below
    if not isinstance(value, str):
        raise UserError(f"{where}: {column} is {_json_name(value)}; give text")
    if not value.isascii() and _SURROGATE.search(value):
        raise UserError(f"{where}: {column} holds half a surrogate pair, which is no character; mend the line")
    return value


def _json_name(value: Any) -> str:
    return _JSON_NAMES.get(type(value), "a number" if isinstance(value, int | float) else "text")


def _open(path: str, once: bool, *, seekable: bool = False) -> IO[bytes]:
    try:
        if "://" in path:
            return call_with_timeout(lambda: _open_uri(path, seekable))
        if not once and not (stat.S_ISREG(mode := os.stat(path).st_mode) or stat.S_ISDIR(mode)):
            raise UserError(f"{path}: a pipe or device, which cannot be read a second time; write the text into a file")
        return open(path, "rb", buffering=0)
    except (OSError, pa.ArrowException) as error:
        raise unreadable_error(path, error) from error


def _open_uri(path: str, seekable: bool) -> Any:
    filesystem, inner_path, kind = locate(path)
    if kind == fs.FileType.NotFound:
        raise FileNotFoundError(path)
    if kind == fs.FileType.Directory:
        raise IsADirectoryError(path)
    if seekable:
        return filesystem.open_input_file(inner_path)
    return filesystem.open_input_stream(inner_path, compression=None)
