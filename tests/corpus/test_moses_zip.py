"""OPUS's Moses archives: which files, and what is refused of an archive."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from bertkd_ray.config.corpus import SplitFiles
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.moses_zip import moses_zip_hash, read_moses_zip
from bertkd_ray.corpus.readers import MAX_LINE_BYTES
from tests.corpus.test_readers import error_message, pairs_of

MEMBERS = {
    "README": "words\n",
    "Books.de-en.de": "eins\u2028eins\nzwei\r\n",
    "Books.de-en.en": "one\ntwo\n",
    "Books.de-en.ids": "1\t1\n2\t2\n",
    "__MACOSX/._Books.de-en.en": "\0",
}
PAIRS = [("eins\u2028eins", "one"), ("zwei", "two")]


def write(path: Path, members: dict[str, str], packing: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return str(path)


def refused(path: str, src: str = "de", tgt: str = "en") -> str:
    message = error_message(read_moses_zip(path, src, tgt))
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def with_zip64_end(data: bytes, directory_bytes: int | None = None) -> bytes:
    """An archive whose last record leaves counts and sizes to ZIP64 records before it (APPNOTE 4.3.14 to 4.3.16)."""
    count, size, offset = struct.unpack("<HII", data[-12:-2])
    size = size if directory_bytes is None else directory_bytes
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(data) - 22, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:-22] + record + locator + end


def test_an_archive_of_programs_that_always_write_zip64(tmp_path):
    path = tmp_path / "books.zip"
    data = Path(write(path, MEMBERS)).read_bytes()
    path.write_bytes(with_zip64_end(data))
    assert pairs_of(read_moses_zip(str(path), "de", "en")) == PAIRS
    path.write_bytes(with_zip64_end(data, directory_bytes=2**20 + 1))
    assert refused(str(path)).startswith("has over 1,000 files")


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_files_of_two_languages_are_read(tmp_path: Path, packing: int, scheme: str) -> None:
    path = scheme + write(tmp_path / "a.zip", MEMBERS, packing)
    assert pairs_of(read_moses_zip(path, "de", "en")) == PAIRS
    assert pairs_of(read_moses_zip(path, "eng", "deu")) == [(tgt, src) for src, tgt in PAIRS]
    assert [src for src, _ in pairs_of(read_moses_zip(path, "de", "de"))] == [src for src, _ in PAIRS]


def test_regions_and_scripts_in_endings(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {"x.en": "a\n", "x.zh_CN": "汉\n", "x.zh_TW": "漢\n"})
    assert pairs_of(read_moses_zip(path, "en", "zh-cn")) == [("a", "汉")]
    assert refused(path, "en", "zh") == (
        "several files in zh among x.zh_CN, x.zh_TW; name the ending in src_column or tgt_column"
    )
    path = write(tmp_path / "b.zip", {"x.pt": "a\n", "x.pt_BR": "b\n"})
    assert pairs_of(read_moses_zip(path, "pt", "pt_br")) == [("a", "b")]


def test_the_hash_is_of_the_two_texts(tmp_path: Path) -> None:
    one = moses_zip_hash(write(tmp_path / "a.zip", MEMBERS), "de", "en")
    more = {"LICENSE": "mine", **{name.replace("Books", "x"): text for name, text in MEMBERS.items()}}
    assert one == moses_zip_hash(write(tmp_path / "b.zip", more, zipfile.ZIP_STORED), "de", "en")
    digests = (hashlib.sha256(MEMBERS[f"Books.de-en.{tag}"].encode()).digest() for tag in ("de", "en"))
    assert one == hashlib.sha256(b"".join(digests)).hexdigest()
    assert one != moses_zip_hash(write(tmp_path / "c.zip", {**MEMBERS, "Books.de-en.en": "1\n2\n"}), "de", "en")


def test_names_that_lead_out_of_the_archive_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in" / "a.zip", {"../../up.de": "a\n", "/etc/up.en": "b\n"})
    assert pairs_of(read_moses_zip(path, "de", "en")) == [("a", "b")]
    assert [file.name for file in tmp_path.rglob("*")] == ["in", "a.zip"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"x.de": "a\n"}, "no file in en among x.de; name the ending in src_column or tgt_column"),
        ({"a/x.de": "", "b/x.de": "", "x.en": "a\n"}, "several files in de among a/x.de, b/x.de; name"),
        ({"x.de": "", "x.en": "a\n"}, "x.de: the file is empty; give a file with one sentence a line"),
        ({"x.de": "a\nb\n", "x.en": "a\n"}, "de has 2 lines and "),
        ({f"{n}.txt": "" for n in range(1001)}, "has over 1,000 files; give a Moses archive of OPUS"),
    ],
)  # fmt: skip
def test_archives_of_another_kind(tmp_path: Path, members: dict[str, str], said: str) -> None:
    assert refused(write(tmp_path / "a.zip", members)).startswith(said)


def test_text_that_is_not_utf8_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.de", b"a\nb\xff\n")
        archive.writestr("x.en", b"a\nb\n")
    assert refused(str(path)).startswith("x.de:2: not UTF-8 (byte 1 of the line")


def test_damaged_archives_and_other_files(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    whole = Path(write(path, {"x.de": "a b c d e\n" * 1000, "x.en": "f\n" * 1000}, zipfile.ZIP_STORED)).read_bytes()
    for damaged in (b"", b"text\n", whole[: len(whole) // 2], whole.replace(b"a b c d e", b"a b c d x", 1)):
        path.write_bytes(damaged)
        assert refused(str(path)).startswith("truncated, damaged or no ZIP archive (")
    path.unlink()
    assert refused(str(path)).startswith("no such file")
    os.mkfifo(path)
    assert refused(str(path)).startswith("a pipe or device, which cannot be read a second time")


def test_declared_sizes_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    text = "a\n" * 50
    content = Path(write(path, {"x.de": text, "x.en": text}, zipfile.ZIP_DEFLATED)).read_bytes()
    size = len(text).to_bytes(4, "little")
    assert content.count(size) >= 4
    path.write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    assert refused(str(path)).startswith("truncated, damaged or no ZIP archive (")


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packing_and_encryption_are_refused(tmp_path: Path, packing: int) -> None:
    said = "Books.de-en.de is encrypted, or not packed by deflate; pack it again"
    assert refused(write(tmp_path / "a.zip", MEMBERS, packing)) == said
    content = bytearray(Path(write(tmp_path / "b.zip", MEMBERS)).read_bytes())
    start = 0
    while (start := content.find(b"PK\x01\x02", start)) >= 0:
        content[start + 8] |= 1
        start += 4
    (tmp_path / "b.zip").write_bytes(content)
    assert refused(str(tmp_path / "b.zip")) == said


def test_a_line_over_the_limit_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.zip", {"x.de": "0" * (8 * MAX_LINE_BYTES) + "\na\n", "x.en": "b\nc\n"})
    assert pairs_of(read_moses_zip(path, "de", "en")) == [("", "b"), ("a", "c")]
    assert "x.de: lines over 262,144 bytes are read as empty ones: 1" in capsys.readouterr().err


def test_an_archive_of_which_a_byte_has_changed_is_read_right_or_refused(tmp_path):
    data = Path(write(tmp_path / "a.zip", MEMBERS)).read_bytes()
    start = data.index(b"PK\1\2")
    for at in range(start, len(data)):
        for value in (0, data[at] ^ 1, 255):
            (tmp_path / "b.zip").write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            try:
                found = pairs_of(read_moses_zip(str(tmp_path / "b.zip"), "de", "en"))
            except UserError:
                continue
            assert found == PAIRS


def test_an_ending_that_is_no_language(tmp_path):
    path = write(tmp_path / "a.zip", {"x.ze_en-ze_zh.ze_en": "one\n", "x.ze_en-ze_zh.ze_zh": "\u4e00\n"})
    assert pairs_of(read_moses_zip(path, "ze_en", "ze_zh")) == [("one", "\u4e00")]
    files = {"moses_zip": path, "src_column": "ze_en", "tgt_column": "ze_zh"}
    assert SplitFiles.model_validate(files).columns("en", "zh") == ("ze_en", "ze_zh")
    with pytest.raises(ValidationError, match=r"src_column: .* tags of languages"):
        SplitFiles.model_validate({**files, "src_column": "../en"})
