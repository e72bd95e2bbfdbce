from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.readers import (
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
