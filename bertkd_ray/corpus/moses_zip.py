"""Sentence pairs from OPUS's Moses archives: a ZIP with a file a language, one sentence a line.

Members are read from the archive as streams and never written anywhere; the sizes that it declares are not believed.
"""

import errno
import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO

import pyarrow as pa

from bertkd_ray.config.languages import covers, language_range
from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.corpus.readers import aligned_pairs, line_blocks, open_stored

_MOST_MEMBERS = 1000
_PACKING = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack a block into any amount of memory
_END_OF_DIRECTORY, _END_OF_ZIP64_DIRECTORY = b"PK\x05\x06", b"PK\x06\x06"
_IN_ZIP64 = 0xFFFFFFFF
"""A size that stands in the other record, which some programs always write."""
_LONGEST_END = 22 + (1 << 16)
_MAX_DIRECTORY_BYTES = 1 << 20


def read_moses_zip(path: str, src_tag: str, tgt_tag: str) -> Iterator[pa.Table]:
    """The pairs of the archive's files in two languages, which are told by the endings of their names (`x.de-en.de`).

    path: a local path or a URI. src_tag, tgt_tag: BCP 47 tags, `de` or `zh_CN`; an ending that begins with the subtags
    will do where none is the very tag. Where the tags are the same, the pairs are of each line with itself.

    Raises UserError as `read_text_pairs`, for what is no ZIP archive, one that is damaged or encrypted, and where no
    file or several are in a language.
    """
    sides = [(f"{path}: {tag}", partial(_member_blocks, path, tag)) for tag in (src_tag, tgt_tag)]
    return aligned_pairs(*sides[0], *sides[1])


def moses_zip_hash(path: str, src_tag: str, tgt_tag: str) -> str:
    """SHA-256 over the contents of the two files that `read_moses_zip` reads, in hexadecimal; raises as it does."""
    total = hashlib.sha256()
    for tag in (src_tag, tgt_tag):
        with _opened(path, tag) as (stream, _):
            total.update(hashlib.file_digest(stream, "sha256").digest())  # type: ignore[arg-type] # it reads into
    return total.hexdigest()


def _member_blocks(path: str, tag: str) -> Iterator[pa.StringArray]:
    with _opened(path, tag) as (stream, name):
        yield from line_blocks(stream, f"{path}: {name}")


@contextmanager
def _opened(path: str, tag: str) -> Iterator[tuple[IO[bytes], str]]:
    """The file of a language, to be read to its end, and its name in the archive."""
    with open_stored(path) as stored:
        try:
            _check_directory(stored, path)
            with zipfile.ZipFile(stored) as archive:
                member = _member(archive, path, tag)
                with archive.open(member) as stream:
                    yield stream, member.filename
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, IndexError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise  # of the storage, not of a place that damage points to
            reason = f"truncated, damaged or no ZIP archive ({one_line(error)})"
            raise UserError(f"{path}: {reason}; get the Moses archive of OPUS again") from error


def _check_directory(stored: IO[bytes], path: str) -> None:
    """Refuses an archive whose directory, which is read as a whole, is larger than that of any corpus."""
    size = stored.seek(0, 2)
    stored.seek(max(0, size - _LONGEST_END))
    end = stored.read(_LONGEST_END)
    start = end.rfind(_END_OF_DIRECTORY)
    if start < 0:
        raise zipfile.BadZipFile("it has no directory")
    directory = int.from_bytes(end[start + 12 : start + 16], "little")
    if directory == _IN_ZIP64 and (start := end.rfind(_END_OF_ZIP64_DIRECTORY)) >= 0:
        directory = int.from_bytes(end[start + 40 : start + 48], "little")
    if directory > _MAX_DIRECTORY_BYTES:
        raise UserError(f"{path}: has over {_MOST_MEMBERS:,} files; give a Moses archive of OPUS, with one a language")


def _member(archive: zipfile.ZipFile, path: str, tag: str) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if not member.is_dir() and not _is_hidden(member)]
    if len(members) > _MOST_MEMBERS:
        raise UserError(f"{path}: has over {_MOST_MEMBERS:,} files; give a Moses archive of OPUS, with one a language")
    endings = [(member, member.filename.rpartition(".")[2]) for member in members]
    suitable = [member for member, ending in endings if language_range(ending) == language_range(tag)]
    suitable = suitable or [member for member, ending in endings if covers(tag, ending)]
    if len(suitable) != 1:
        what = "several files" if suitable else "no file"
        names = ", ".join(member.filename[:80] for member in (suitable or members)[:8]) or "none"
        raise UserError(f"{path}: {what} in {tag} among {names}; name the ending in src_column or tgt_column")
    (member,) = suitable
    if member.flag_bits & 1 or member.compress_type not in _PACKING:
        raise UserError(f"{path}: {member.filename} is encrypted, or not packed by deflate; pack it again")
    return member


def _is_hidden(member: zipfile.ZipInfo) -> bool:
    return member.filename.rpartition("/")[2].startswith(".")
