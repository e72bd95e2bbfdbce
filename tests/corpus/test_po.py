"""Message catalogues: which form stands with which, what is left out, and what is no catalogue."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

from bertkd_ray.corpus.po import read_po
from bertkd_ray.corpus.readers import MAX_LINE_BYTES
from tests.corpus.test_readers import error_message, pairs_of

POLISH = "nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2)"
ARABIC = "nplurals=6; plural=n==0 ? 0 : n==1 ? 1 : n==2 ? 2 : n%100>=3 && n%100<=10 ? 3 : n%100>=11 ? 4 : 5"


def header(language: str = "de", plural: str = "nplurals=2; plural=(n != 1)", charset: str = "UTF-8") -> str:
    lines = f"Language: {language}", f"Content-Type: text/plain; charset={charset}", f"Plural-Forms: {plural};"
    return '# A title\n#, fuzzy\nmsgid ""\nmsgstr ""\n' + "".join(f'"{line}\\n"\n' for line in lines) + "\n"


def read(tmp_path: Path, text: str, src: str = "en", tgt: str = "de") -> tuple[list[tuple[str, str]], dict[str, int]]:
    path = tmp_path / "a.po"
    path.write_text(text, encoding="utf-8")
    left_out: Counter[str] = Counter()
    return pairs_of(read_po(str(path), src, tgt, left_out)), dict(left_out)


CATALOGUE = r"""
#. for translators
#: main.c:12
#, c-format
msgctxt "menu"
msgid "Open <b>%s</b>\n"
msgstr "<b>%s</b> "
"öffnen\t\"jetzt\" \\n"

#| msgid "old"
#, c-format, fuzzy
msgid "Quit"
msgstr "Beenden"
msgid "Save"
msgstr ""
msgid "Help"
msgstr "Hilfe"

#~ msgid "gone"
#~ msgstr "weg"
#, fuzzy
#~ msgid "gone too"
#~ msgstr "auch weg"
"""
PAIRS = [("Open <b>%s</b>\n", '<b>%s</b> öffnen\t"jetzt" \\n'), ("Help", "Hilfe")]
LEFT_OUT = {"fuzzy": 1, "untranslated": 1, "obsolete": 2}


def test_what_is_text_and_what_is_left_out(tmp_path: Path) -> None:
    assert read(tmp_path, header() + CATALOGUE) == (PAIRS, LEFT_OUT)
    assert read(tmp_path, (header() + CATALOGUE).replace("\n", "\r\n")) == (PAIRS, LEFT_OUT)
    assert read(tmp_path, CATALOGUE) == (PAIRS, LEFT_OUT)  # without a header
    assert read(tmp_path, header("de_AT") + CATALOGUE, "de", "en")[0] == [(tgt, src) for src, tgt in PAIRS]
    assert [src for src, _ in read(tmp_path, header() + CATALOGUE, "en", "en")[0]][1:] == ["Quit", "Save", "Help"]


@pytest.mark.parametrize(
    ("language", "plural", "forms", "one", "many"),
    [
        ("de", "nplurals=2; plural=n != 1", 2, 0, 1),
        ("pl", POLISH, 3, 0, 2),
        ("ar", ARABIC, 6, 1, 5),
        ("ja", "nplurals=1; plural=0", 1, 0, 0),
    ],
)
def test_one_and_many(tmp_path: Path, language: str, plural: str, forms: int, one: int, many: int) -> None:
    given = "".join(f'msgstr[{number}] "f{number}"\n' for number in range(forms))
    text = f'{header(language, plural)}msgid "%d file"\nmsgid_plural "%d files"\n{given}'
    left_out = {"other_plurals": forms - 2} if forms > 2 else {}
    assert read(tmp_path, text, "en", language) == ([("%d file", f"f{one}"), ("%d files", f"f{many}")], left_out)


def test_the_encoding_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.po"
    for charset in ("ISO-8859-1", "utf-8", "CP1252"):
        path.write_bytes(gzip.compress((header(charset=charset) + 'msgid "a"\nmsgstr "ü"\n').encode(charset)))
        assert pairs_of(read_po(str(path), "en", "de", Counter())) == [("a", "ü")]
    template = header(charset="CHARSET") + 'msgid "a"\nmsgstr "ü"\n'
    assert read(tmp_path, "\ufeff" + template)[0] == [("a", "ü")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", " the file is empty; give a catalogue"),
        ("hello\n", "1: no line of a catalogue where it stands; correct it"),
        ('msgstr "a"\n', "1: no line of a catalogue"),
        ('msgid "a"\nmsgid "b"\nmsgstr "c"\n', "2: no line of a catalogue"),
        ('msgid "a"\nmsgstr "b" c\n', "2: no line of a catalogue"),
        ('msgid "a\n', "1: no line of a catalogue"),
        ('msgid "a"\n', "1: an entry without msgid or msgstr; complete or remove it"),
        (header("fr"), "3: the catalogue is in fr, not in de; correct tgt_lang, or set tgt_column"),
        (header(plural="nplurals=2; plural=n/0"), "3: Plural-Forms that cannot be read"),
        (header(plural="nplurals=2; plural=__import__('os')"), "3: Plural-Forms that cannot be read"),
        (header(charset="zlib"), "1: not in zlib, which the header names"),
        ('msgid "' + "a" * MAX_LINE_BYTES + '"\n', "1: a line over 262,144 bytes; wrap or remove it"),
    ],
    ids=range(12),
)
def test_what_is_no_catalogue(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.po"
    path.write_text(text)
    assert error_message(read_po(str(path), "en", "de", Counter())).startswith(f"{path}:{said}")


def test_text_in_another_encoding_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.po"
    path.write_bytes((header() + 'msgid "a"\nmsgstr "ü"\n').encode("latin-1"))
    assert error_message(read_po(str(path), "en", "de", Counter())).startswith(f"{path}:10: not in UTF-8, which")


def test_a_long_text_of_many_lines_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'msgid ""\n' + ('"' + "a" * 1000 + '"\n') * 300 + 'msgstr "b"\nmsgid "c"\nmsgstr "d"\n'
    assert read(tmp_path, text)[0] == [("", "b"), ("c", "d")]
    assert "texts over 262,144 bytes are read as empty: 1" in capsys.readouterr().err
