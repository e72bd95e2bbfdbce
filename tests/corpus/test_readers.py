from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
import threading
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import readers
from bertkd_ray.corpus.readers import (
    MAX_LINE_BYTES,
    PAIRS,
    content_hash,
    open_bytes,
    read_jsonl,
    read_lines,
    read_text_pairs,
    read_tsv,
    tables_of,
)

COMPRESS = {".gz": gzip.compress, ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True)}
NAMES = ["a.txt", "a.txt.gz", "a.txt.zst"]


def write(path: Path, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(COMPRESS.get(path.suffix, bytes)(data))
    return str(path)


def pairs_of(tables: Iterable[pa.Table]) -> list[tuple[str, str]]:
    read = list(tables)
    assert all(table.schema.equals(PAIRS) for table in read)
    return [(row["src"], row["tgt"]) for table in read for row in table.to_pylist()]


def error_message(lines: object) -> str:
    with pytest.raises(UserError) as refused:
        list(lines)  # type: ignore[call-overload]
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_lines_end_at_line_feeds_alone(tmp_path: Path, name: str, scheme: str) -> None:
    inside = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh"
    path = write(tmp_path / name, f"\ufeffone\r\n\n{inside}\n \r\r\n\ufefflast")
    assert list(read_lines(scheme + path)) == ["one", "", inside, " \r", "\ufefflast"]


def test_a_final_line_feed_ends_the_last_line(tmp_path: Path) -> None:
    assert list(read_lines(write(tmp_path / "a", "x\ny\n"))) == ["x", "y"]
    assert list(read_lines(write(tmp_path / "b", "\n"))) == [""]


def test_pairs_of_two_files(tmp_path: Path) -> None:
    src, tgt = write(tmp_path / "a.de", "eins\nzwei\r\n\n"), write(tmp_path / "a.en.gz", "one\ntwo\nthree")
    assert pairs_of(read_text_pairs(src, tgt)) == [("eins", "one"), ("zwei", "two"), ("", "three")]


@pytest.mark.parametrize(("src_lines", "tgt_lines"), [(3, 5), (5, 3), (1, 2)])
def test_files_of_different_length_are_refused_with_both_counts(tmp_path: Path, src_lines: int, tgt_lines: int) -> None:
    src, tgt = write(tmp_path / "a.de", "x\n" * src_lines), write(tmp_path / "a.en", "y\n" * tgt_lines)
    tables = read_text_pairs(src, tgt)
    assert pairs_of([next(tables)]) == [("x", "y")] * min(src_lines, tgt_lines)
    message = error_message(tables)
    assert f"{src} has {src_lines} lines" in message
    assert f"{tgt} has {tgt_lines}" in message


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.tsv.zst"])
def test_tsv(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "7\teins\tone\r\n8\t\ttwo\textra\n")
    assert pairs_of(read_tsv(path, 1, 2)) == [("eins", "one"), ("", "two")]
    assert pairs_of(read_tsv(path, 2, 0)) == [("one", "7"), ("two", "8")]
    assert pairs_of(read_tsv(path)) == [("7", "eins"), ("8", "")]


def test_a_tsv_line_without_the_columns_is_refused_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\tb\nonly one\n")
    assert error_message(read_tsv(path)).startswith(f"{path}:2: 1 tab-separated columns where 2 are needed")
    assert error_message(read_tsv(path, 0, 2)).startswith(f"{path}:1: 2 tab-separated columns where 3 are needed")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_missing_files_and_directories_are_refused(tmp_path: Path, scheme: str) -> None:
    missing = f"{scheme}{tmp_path}/absent.txt"
    assert error_message(read_lines(missing)).startswith(f"{missing}: no such file")
    assert error_message(read_lines(f"{scheme}{tmp_path}")).startswith(f"{scheme}{tmp_path}: is a directory")


def test_unreadable_paths_are_refused(tmp_path: Path) -> None:
    too_long = str(tmp_path / ("x" * 300))
    assert error_message(read_lines(too_long)).startswith(f"{too_long}: cannot be read (")
    file_as_directory = write(tmp_path / "file", "x") + "/below"
    assert error_message(read_lines(file_as_directory)).startswith(f"{file_as_directory}: cannot be read (")
    assert error_message(read_lines("nosuchscheme://bucket/x")).startswith("nosuchscheme://bucket/x: cannot be read (")


@pytest.mark.parametrize("name", NAMES)
def test_empty_files_are_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "")
    assert error_message(read_lines(path)).startswith(f"{path}: the file is empty")
    assert error_message(read_text_pairs(path, write(tmp_path / "b", "x\n"))).startswith(f"{path}: the file is empty")


@pytest.mark.parametrize("name", NAMES)
def test_invalid_utf8_is_refused_by_line_and_byte(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"ok\n\xc3\xbcx\xfc\n")
    assert error_message(read_lines(path)).startswith(f"{path}:2: not UTF-8 (byte 3 of the line, invalid start byte)")


def test_utf16_is_refused_at_the_first_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "ein Satz\n".encode("utf-16"))
    assert error_message(read_lines(path)).startswith(f"{path}:1: not UTF-8 (byte 0 of the line")


def test_damaged_gzip_data_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"Satz {number}\n" for number in range(5000)).encode())
    path = tmp_path / "a.gz"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for data in (whole[:-9], whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(data)
        assert error_message(read_lines(str(path))).startswith(f"{path}: truncated or damaged gzip data")


def test_damaged_zstd_data_are_refused(tmp_path: Path) -> None:
    whole = COMPRESS[".zst"]("".join(f"Satz {number}\n" for number in range(5000)).encode())
    path = tmp_path / "a.zst"
    for data in (whole[:-9], whole[: len(whole) // 2]):
        path.write_bytes(data)
        assert error_message(read_lines(str(path))).startswith(f"{path}: truncated or damaged zstd data")


@pytest.mark.parametrize("kind", ["gzip", "zstd", "bzip2", "xz"])
def test_no_stream_behind_the_first_is_lost(tmp_path: Path, kind: str) -> None:
    pack = {"gzip": gzip.compress, "zstd": COMPRESS[".zst"], "bzip2": bz2.compress, "xz": lzma.compress}[kind]
    first, second = (pack(f"Satz {number}\n".encode() * 1000) for number in range(2))
    path, lines = tmp_path / "a", ["Satz 0"] * 1000 + ["Satz 1"] * 1000
    for padding in (0, 8) if kind != "zstd" else (0,):
        path.write_bytes(first + bytes(padding) + second + bytes(padding))
        assert list(read_lines(str(path))) == lines
    for bit in range(24):  # what follows in gzip and bzip2 has bits that change no text
        flipped = bytearray(second)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(first + flipped)
        assert error_message(read_lines(str(path))).startswith(f"{path}: truncated or damaged {kind} data"), bit
    for rest in (b"x", b"no stream", second[:3], second[:-1]):
        path.write_bytes(first + rest)
        assert error_message(read_lines(str(path))).startswith(f"{path}: truncated or damaged {kind} data"), rest


@pytest.mark.parametrize("count", [4095, 4096, 4097, 10_000])
def test_lines_are_numbered_across_blocks(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "a", "".join(f"{number}\n" for number in range(count)))
    assert list(read_lines(path)) == [str(number) for number in range(count)]
    src, tgt = path, write(tmp_path / "b.gz", "".join(f"{number}\r\n" for number in range(count)))
    assert pairs_of(read_text_pairs(src, tgt)) == [(str(number), str(number)) for number in range(count)]
    (tmp_path / "a").write_bytes(b"x\n" * count + b"\xff\n")
    assert error_message(read_lines(path)).startswith(f"{path}:{count + 1}: not UTF-8 (byte 0 of the line")
    assert f"{src} has {count + 1} lines" in error_message(
        read_text_pairs(write(tmp_path / "a", "x\n" * (count + 1)), tgt)
    )


def test_the_byte_order_mark_does_not_shift_what_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a", b"\xef\xbb\xbfx\xff\n")
    assert error_message(read_lines(path)).startswith(f"{path}:1: not UTF-8 (byte 4 of the line")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_jsonl(tmp_path: Path, name: str) -> None:
    records = [
        {"src": "ein\u2028s", "tgt": "one", "translation": {"de": "a", "en": "b"}, "n": 1},
        {"tgt": "", "src": "😀", "translation": {"en": "d", "de": "c", "fr": "x"}},
    ]
    path = write(tmp_path / name, "".join(json.dumps(record) + "\n" for record in records))
    assert pairs_of(read_jsonl(path)) == [("ein\u2028s", "one"), ("😀", "")]
    assert pairs_of(read_jsonl(path, "translation.de", "translation.en")) == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"src": "x", "tgt": "y"', "not JSON (Expecting ',' delimiter"),
        ("", "not JSON (Expecting value"),
        ("[" * 100_000, "not JSON (maximum recursion depth"),
        ('["x", "y"]', "src leads into a list; give an object"),
        ("3", "src leads into a number; give an object"),
        ('{"src": "x", "target": "y"}', "no tgt here, only src, target; name a key"),
        ("{}", "no src here, only an empty object"),
        ('{"src": "x", "tgt": 1.5}', "tgt is a number; give text"),
        ('{"src": "x", "tgt": true}', "tgt is a truth value; give text"),
        ('{"src": null, "tgt": "y"}', "src is null; give text"),
        ('{"src": {"de": "x"}, "tgt": "y"}', "src is an object; give text"),
        ('{"src": "\\ud800", "tgt": "y"}', "src holds half a surrogate pair"),
    ],
)
def test_a_json_line_that_is_no_pair_is_refused_by_line(tmp_path: Path, line: str, said: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"src": "x", "tgt": "y"}}\n{line}\n{{}}\n')
    assert error_message(read_jsonl(path)).startswith(f"{path}:2: {said}")


def test_a_way_into_text_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"src": "x", "tgt": "y"}\n')
    assert error_message(read_jsonl(path, "src.de", "tgt")).startswith(
        f"{path}:1: src.de leads into text; give an object"
    )


def test_pairs_become_tables() -> None:
    pairs = [(str(number), "x") for number in range(5000)]
    tables = list(tables_of(iter(pairs)))
    assert [len(table) for table in tables] == [4096, 904]
    assert list(chain.from_iterable(pairs_of([table]) for table in tables)) == pairs
    assert list(tables_of([])) == []


def test_reading_may_stop_early(tmp_path: Path) -> None:
    lines = read_lines(write(tmp_path / "a.gz", "x\n" * 10))
    assert next(lines) == "x"
    lines.close()  # type: ignore[attr-defined]


def test_open_bytes_closes_the_file(tmp_path: Path) -> None:
    with open_bytes(write(tmp_path / "a.gz", "text")) as stream:
        assert stream.read() == b"text"
    assert stream.closed


def test_content_hash_is_of_the_text_not_of_its_compression(tmp_path: Path) -> None:
    text = "Sätze\n" * 1000
    plain = write(tmp_path / "a.txt", text)
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert content_hash(plain) == expected
    assert content_hash(f"file://{plain}") == expected
    assert content_hash(write(tmp_path / "a.txt.gz", text)) == expected
    assert content_hash(write(tmp_path / "b.txt", text + "\n")) != expected


# --- what is packed, and what is no file of text ---------------------------------------------------------------------


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, COMPRESS[".zst"], bytes])
@pytest.mark.parametrize("name", ["a.txt", "a.gz", "a.xz", "a.zst"])
def test_first_bytes_say_what_packed_a_file_not_its_name(tmp_path: Path, pack: Callable[[bytes], bytes], name: str):
    path = tmp_path / name
    path.write_bytes(pack(b"eins\nzwei\n"))
    assert list(read_lines(str(path))) == ["eins", "zwei"]
    assert content_hash(str(path)) == hashlib.sha256(b"eins\nzwei\n").hexdigest()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PK\x03\x04", "a ZIP archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"\x04\x22\x4d\x18", "packed by LZ4"),
        (b"PAR1", "a Parquet file"),
    ],
)
def test_what_is_packed_otherwise_is_named(tmp_path: Path, data: bytes, what: str) -> None:
    path = write(tmp_path / "a.txt", data + b"...")
    assert error_message(read_lines(path)) == (
        f"{path}: is {what}, not text; unpack it, or pack the text with gzip, bzip2, xz or zstd"
    )


def test_a_zstd_window_that_is_too_long_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    # A frame that wants a window of 2 GiB, and is empty.
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00")
    assert error_message(read_lines(str(path))).endswith("which is not read; pack it again without --long")


def test_a_pipe_is_refused_at_once_where_it_is_read_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    assert error_message(read_lines(path)).startswith(f"{path}: a pipe or device, which cannot be read a second time")
    assert error_message(read_lines("/dev/null")).startswith("/dev/null: a pipe or device")
    threading.Thread(target=Path(path).write_bytes, args=(b"text",)).start()
    with open_bytes(path, once=True) as stream:
        assert stream.read() == b"text"


def test_a_line_that_is_too_long_is_an_empty_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longest, longer = "x" * MAX_LINE_BYTES, "x" * (5 * MAX_LINE_BYTES + 7)
    path = write(tmp_path / "a", f"{longest}\n{longer}\nend\n{longest}x")
    assert list(read_lines(path)) == [longest, "", "end", ""]
    assert f"{path}: lines over 262,144 bytes are read as empty ones: 2" in capsys.readouterr().err
    other = write(tmp_path / "b", "1\n2\n3\n4\n")
    assert pairs_of(read_text_pairs(path, other)) == [(longest, "1"), ("", "2"), ("end", "3"), ("", "4")]
    rows = write(tmp_path / "c", f"a\tb\n{longer}\tb\n")
    assert pairs_of(read_tsv(rows)) == [("a", "b"), ("", "")]
    objects = write(tmp_path / "d", f'{{"src": "a", "tgt": "b"}}\n{{"src": "{longer}", "tgt": "b"}}\n')
    assert pairs_of(read_jsonl(objects)) == [("a", "b"), ("", "")]


def test_a_storage_that_fails_on_the_way_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == 0:
                return super().read(10)
            raise OSError("HTTP status 503")

    monkeypatch.setattr(readers, "_open", lambda path, once: Failing(b"line\n" * 9))
    assert error_message(read_lines("s3://bucket/a.txt")).startswith(
        "s3://bucket/a.txt: cannot be read (HTTP status 503"
    )


def test_a_key_with_a_dot_goes_before_the_way_into_an_object(tmp_path: Path) -> None:
    rows = [{"text.de": "a", "x": {"text.en": "b"}, "text": {"de": "no"}}]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert pairs_of(read_jsonl(path, "text.de", "x.text.en")) == [("a", "b")]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_archive_is_no_text(tmp_path: Path, mode: str) -> None:
    (tmp_path / "train.de").write_text("ein Satz\n")
    path = str(tmp_path / "train.de.tar")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(tmp_path / "train.de", "train.de")
    assert error_message(read_lines(path)).startswith(f"{path}: is a tar archive, not text; unpack it")
