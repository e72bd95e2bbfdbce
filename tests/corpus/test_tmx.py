"""Translation memories: what is text of a segment, which languages, several variants, and what is never read."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from bertkd_ray.corpus.readers import MAX_LINE_BYTES
from bertkd_ray.corpus.tmx import read_tmx
from tests.corpus.test_readers import error_message, pairs_of

HEAD = '<tmx version="1.4">\n<header srclang="*all*"/>\n<body>\n'
SEGMENTS = [
    ("Press <ph x='1'>&lt;b></ph>OK<ph x='2'/> to go on.", "Press OK to go on."),
    ("a <bpt i='1'>{\\b </bpt>b<ept i='1'>}</ept> c", "a b c"),
    ("a <hi>b <hi>c</hi></hi> d", "a b c d"),
    ("a<it pos='begin'>x</it> b<ut>y</ut> c", "a b c"),
    ("see<ph>fn{<sub>a footnote with a <ph>code</ph></sub>}</ph> here", "see here"),
    ("<![CDATA[a < b]]> &amp; &#252;&#x1F600; &lt;br&gt;", "a < b & ü😀 <br>"),
    ("one<!-- no --> <?pi x?>two", "one two"),
    ("", ""),
]


def unit(*texts: tuple[str, str]) -> str:
    return "<tu>" + "".join(f'<tuv xml:lang="{tag}"><seg>{text}</seg></tuv>\n' for tag, text in texts) + "</tu>\n"


def write(path: Path, *units: str, head: str = HEAD) -> str:
    path.write_text(f"{head}{''.join(units)}</body></tmx>\n", encoding="utf-8")
    return str(path)


def read(path: str, src: str = "de", tgt: str = "en", **options: str) -> tuple[list[tuple[str, str]], dict[str, int]]:
    left_out: Counter[str] = Counter()
    return pairs_of(read_tmx(path, src, tgt, left_out, **options)), dict(left_out)


def refused(path: str, src: str = "de", tgt: str = "en") -> str:
    message = error_message(read_tmx(path, src, tgt, Counter()))
    assert message.startswith(f"{path}:")
    return message.removeprefix(f"{path}:").strip()


@pytest.mark.parametrize(("segment", "text"), SEGMENTS)
def test_text_is_kept_and_codes_are_dropped(tmp_path: Path, segment: str, text: str) -> None:
    pairs, left_out = read(write(tmp_path / "a.tmx", unit(("de", segment), ("en", "x"))))
    assert pairs == [(text, "x")]
    assert left_out == ({"sub_flows": 1} if "<sub>" in segment else {})


def test_of_several_variants_all_in_order_or_the_first(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tmx",
        unit(("en-GB", "lift"), ("de-DE", "Aufzug"), ("EN_us", "elevator"), ("fr", "ascenseur"), ("de-AT", "Lift")),
        unit(("de", "nur deutsch"), ("fr", "rien")),
        unit(("eng", "one"), ("ger-CH", "eins")),
    )
    every = [("Aufzug", "lift"), ("Aufzug", "elevator"), ("Lift", "lift"), ("Lift", "elevator"), ("eins", "one")]
    assert read(path) == (every, {"no_translation": 1})
    first = {"no_translation": 1, "other_variants": 2}
    assert read(path, variants="first") == ([("Aufzug", "lift"), ("eins", "one")], first)
    assert read(path, "en", "de")[0][:2] == [("lift", "Aufzug"), ("lift", "Lift")]
    assert read(path, "de-AT", "en-US") == ([("Lift", "elevator")], {"no_translation": 2})
    # Monolingual text: every text of the language, with a translation or without.
    assert [src for src, _ in read(path, "de", "de")[0]] == ["Aufzug", "Lift", "nur deutsch", "eins"]


def test_a_flood_of_variants_is_bounded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tmx", unit(*[("de", "a")] * 103, ("en", "b")))
    assert read(path) == ([("a", "b")] * 100, {"other_variants": 3})


def test_languages_match_by_whole_subtags(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tmx", unit(("den", "Slave"), ("de", "a"), ("enm", "Middle English"), ("en", "b")))
    assert read(path)[0] == [("a", "b")]


def test_the_attribute_of_older_versions(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tmx", unit(("de", "a"), ("en", "b")).replace("xml:lang", "lang"))
    assert read(path)[0] == [("a", "b")]


def test_two_scripts_on_one_side_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(
        tmp_path / "a.tmx", unit(("en", "a"), ("zh-CN", "汉"), ("zh-Hant-HK", "漢")), unit(("en", "b"), ("zh", "字"))
    )
    assert read(path, "en", "zh")[0] == [("a", "汉"), ("a", "漢"), ("b", "字")]
    said = f"warning: {path}: zh stands for zh-CN, zh-Hant-HK, in different scripts; name one in src_column, tgt_column"
    assert said in capsys.readouterr().err
    assert read(path, "en", "zh-CN")[0] == [("a", "汉")]
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "iso-8859-1", "windows-1252"]
)
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_encodings_and_packing(tmp_path: Path, encoding: str, packed: str) -> None:
    declared = encoding.removesuffix("-sig").replace("16-", "16")
    text = f'<?xml version="1.0" encoding="{declared}"?>\n{HEAD}{unit(("de", "Grüße"), ("en", "café"))}</body></tmx>'
    pack = {".gz": gzip.compress, ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True)}.get(packed, bytes)
    (tmp_path / f"a.tmx{packed}").write_bytes(pack(text.encode(encoding)))
    for scheme in ("", "file://"):
        assert read(f"{scheme}{tmp_path}/a.tmx{packed}")[0] == [("Grüße", "café")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_half_a_surrogate_pair_is_refused_and_a_whole_one_read(tmp_path: Path, encoding: str) -> None:
    document = f"{HEAD}{unit(('de', 'vor@nach'), ('en', '😀'))}</body></tmx>".encode(encoding)
    (tmp_path / "a.tmx").write_bytes(document)
    assert read(str(tmp_path / "a.tmx"))[0] == [("vor@nach", "😀")]
    half = "\ud83d".encode(encoding, "surrogatepass")[-2:]
    (tmp_path / "a.tmx").write_bytes(document.replace("@".encode(encoding)[-2:], half))
    assert "not valid UTF-16" in refused(str(tmp_path / "a.tmx"))


def test_a_doctype_is_passed_over_and_never_loaded(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tmx14.dtd")  # would block whoever opens it
    doctype = '<!DOCTYPE tmx SYSTEM "tmx14.dtd" [\n<!ELEMENT x ANY>\n]>\n'
    path = write(tmp_path / "a.tmx", unit(("de", "a &amp; b"), ("en", "c")), head=doctype + HEAD)
    assert read(path)[0] == [("a & b", "c")]


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">\n' for n in range(1, 10))


@pytest.mark.parametrize(
    ("doctype", "segment", "said"),
    [
        (f'<!DOCTYPE tmx [\n<!ENTITY l0 "ha">\n{LAUGHS}]>\n', "&l9;", "2: declares the entity l0"),
        ('<!DOCTYPE tmx [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n', "&x;", "1: declares the entity x"),
        ('<!DOCTYPE tmx [<!ENTITY % x SYSTEM "http://127.0.0.1:9/">%x;]>\n', "", "1: declares the entity x"),
        ('<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n', "&uuml;", "5: the entity uuml is declared elsewhere"),
        ("", "&uuml;", "4: not well-formed XML (undefined entity)"),
    ],
)
def test_entities_are_refused(tmp_path: Path, doctype: str, segment: str, said: str) -> None:
    path = write(tmp_path / "a.tmx", unit(("de", segment), ("en", "x")), head=doctype + HEAD)
    assert refused(path).startswith(said)


GOOD = unit(("de", "a"), ("en", "b"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty; give a document"),
        (b"a\tb\n", "1: not well-formed XML (syntax error); write the file again"),
        (f"{HEAD}{GOOD}<tu><tuv></tu>".encode(), "7: not well-formed XML (mismatched tag)"),
        (f"{HEAD}{GOOD}".encode(), "7: not well-formed XML (no element found)"),
        (f"{HEAD}\n\xff".encode("latin-1"), "5: not well-formed XML (not well-formed (invalid token))"),
        (f"{HEAD}&#0;".encode(), "4: not well-formed XML (reference to invalid character number)"),
        (b'<?xml version="1.0"?>\n<xliff/>', "2: the document is <xliff>, not <tmx>; name its form"),
        (b'<?xml version="1.0" encoding="UTF-16"?><tmx/>', "1: not well-formed XML (encoding specified in XML decl"),
        (b'<?xml version="1.0" encoding="gbk"?><tmx/>', "1: an encoding that is not read (multi-byte"),
        (b'<?xml version="1.0" encoding="none"?><tmx/>', "1: an encoding that is not read (unknown encoding: none);"),
        (b"<tmx>" + b"<a>" * 300, "1: elements lie more than 256 deep"),
        (f"{HEAD}</body></tmx>".encode(), "no unit is in de and en; its languages: none; correct src_lang"),
        (
            f"{HEAD}{unit(('fr', 'a'), ('en-GB', 'b'))}{unit(('en-GB', 'c'))}</body></tmx>".encode(),
            "no unit is in de and en; its languages: en-GB (2), fr (1); correct src_lang and tgt_lang, or name",
        ),
        (b"PK\x03\x04", "is a ZIP archive, not text;"),
    ],
)  # fmt: skip
def test_what_is_no_translation_memory(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.tmx").write_bytes(content)
    assert refused(str(tmp_path / "a.tmx")).startswith(said)


def test_pipes_and_absent_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refused(str(tmp_path / "pipe")).startswith("a pipe or device, which cannot be read a second time")
    assert refused(str(tmp_path / "none")).startswith("no such file")
    assert refused(str(tmp_path)).startswith("is a directory")


def test_a_segment_over_the_limit_is_empty_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longest = "ü" * (MAX_LINE_BYTES // 2)
    path = write(tmp_path / "a.tmx", unit(("de", longest), ("en", f"{longest}x")), unit(("de", "a"), ("en", "b")))
    assert read(path)[0] == [(longest, ""), ("a", "b")]
    assert f"warning: {path}: segments over 262,144 bytes are read as empty: 1" in capsys.readouterr().err


def test_a_tag_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"<tmx x='")
        for _ in range(40):
            file.write(b"y" * (1 << 20))
    assert refused(str(path)).startswith("1: a tag, comment or declaration over 1,048,576 bytes")


def test_names_without_end_do_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx"
    for elements in (
        "".join(f"<n{number}/>" for number in range(1001)),
        "".join(f'<n a{number}="x"/>' for number in range(1001)),
        f"<{'n' * 1001}/>",
    ):
        path.write_text(f"<tmx>{elements}</tmx>")
        assert refused(str(path)).startswith(
            "1: over 1,000 names of elements, or a very long one; write the file again"
        )
    path.write_text(f'<tmx><body><tu><tuv xml:lang="{"x" * 1000}"><seg>a</seg></tuv></tu></body></tmx>')
    assert f"its languages: {'x' * 100} (1);" in refused(str(path))


def test_the_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(HEAD.encode())
        for number in range(40):
            file.write(unit(("de", f"{number} " * 500), ("en", f"{number} " * 500)).encode() * 150)
        file.write(b"</body></tmx>")
    tracemalloc.start()
    rows = sum(len(table) for table in read_tmx(str(path), "de", "en", Counter()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 6000
    assert peak < 24 << 20  # of 17 MB of text and as much again in the tables of Arrow, 4096 pairs at a time
