"""A small archive in the formats of IWSLT14's `de-en.tgz`: tagged training text, test sets as XML, and a README."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

Pair = tuple[str, str]
TEST_SETS = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
_NAMES = {"de": "german", "en": "english"}
_ANIMALS = (("Hund", "dog"), ("Vogel", "bird"), ("Fisch", "fish"), ("Wal", "whale"), ("Bär", "bear"))
_PLACES = (("im Garten", "in the garden"), ("am Fluss", "by the river"), ("in Köln", "in Cologne"), ("hier", "here"))
_TIMES = (("heute", "today"), ("oft", "often"), ("nie", "never"))


def sentence_pairs(count: int, first: int = 0) -> list[Pair]:
    """Pairs that cleaning keeps, all different up to 60 in a row."""
    pairs = []
    for number in range(first, first + count):
        (animal_de, animal_en), (place_de, place_en) = _ANIMALS[number % 5], _PLACES[number % 4]
        time_de, time_en = _TIMES[number % 3]
        pairs.append(
            (f"Der {animal_de} schläft {time_de} {place_de}.", f"The {animal_en} {time_en} sleeps {place_en}.")
        )
    return pairs


def write_archive(
    directory: Path, talks: Sequence[Sequence[Pair]], test_sets: Sequence[Sequence[Pair]], *, archive: bool = True
) -> Path:
    """Writes the folder `de-en` and beside it `de-en.tgz`; gives the archive, or the folder.

    talks: a talk's title, its description, then its lines. test_sets: the segments of the five sets, one talk each.
    The pairs stand in the files as given: what is XML there (`&amp;`) must be written so.
    """
    folder = directory / "de-en"
    folder.mkdir(parents=True)
    (folder / "README").write_text("WIT3: https://wit3.fbk.eu\n", encoding="utf-8")
    for side, language in enumerate(("de", "en")):
        _write(folder / f"train.tags.de-en.{language}", _training_lines(talks, side))
        for name, segments in zip(TEST_SETS, test_sets, strict=True):
            lines = _xml_lines(name, [pair[side] for pair in segments], language)
            _write(folder / f"IWSLT14.{name}.de-en.{language}.xml", lines)
    if not archive:
        return folder
    with tarfile.open(directory / "de-en.tgz", "w:gz") as tar:
        tar.add(folder, "de-en")
    return directory / "de-en.tgz"


def write_small_archive(directory: Path, *, train: int = 115, test: int = 3, archive: bool = True) -> Path:
    """An archive of plain sentences: `train` lines that are kept in talks of 20, `test` segments in each test set."""
    lines = sentence_pairs(train)
    talks = [lines[start : start + 20] for start in range(0, train, 20)]
    return write_archive(directory, talks, [sentence_pairs(test, 7 * index) for index in range(5)], archive=archive)


def _write(path: Path, lines: list[str]) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def _training_lines(talks: Sequence[Sequence[Pair]], side: int) -> list[str]:
    lines = []
    for number, talk in enumerate(talks, start=1):
        title, description, *text = (pair[side] for pair in talk)
        lines += [
            f"<url>http://www.ted.com/talks/lang/de/talk_{number}.html</url>",
            "<keywords>talks, animals, sleep</keywords>",
            f"<talkid>{number}</talkid>",
            f"<title>{title}</title>",
            f"<description>{description}</description>",
            *text,
        ]
    return lines


def _xml_lines(name: str, segments: list[str], language: str) -> list[str]:
    kind = "srcset" if language == "de" else "refset"
    setid = escape(f"iwslt2014-{name}")
    return [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<mteval>",
        f'<{kind} setid="{setid}" srclang="german" trglang="english">',
        f'<doc docid="535" genre="lectures" lang="{_NAMES[language]}">',
        "<url>http://www.ted.com/talks/x.html</url>",
        "<description>What is no segment</description>",
        "<keywords>talks</keywords>",
        "<talkid>535</talkid>",
        "<title>Of no segment either</title>",
        *(f'<seg id="{number}"> {segment} </seg>' for number, segment in enumerate(segments, start=1)),
        "</doc>",
        f"</{kind}>",
        "</mteval>",
    ]
