"""Sentence pairs from the message catalogues of gettext (PO), streamed.

The singular stands with the form for one and the plural with the form for many, which the catalogue's `Plural-Forms`
choose. Markup and placeholders (`<b>`, `%s`, `{name}`) stay, like any other text; contexts (`msgctxt`) are none.
"""

import gettext
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from bertkd_ray.config.languages import covers
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.corpus.readers import MAX_LINE_BYTES, blocks_of, byte_lines, open_bytes, tables_of
from bertkd_ray.corpus.xml_stream import BoundedText

_KEYWORD = re.compile(r"(msgctxt|msgid|msgid_plural|msgstr|msgstr\[\d{1,3}\])[ \t]*(\".*)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*')
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CHARSET = re.compile(rb"\n\"Content-Type:[^\n]*charset=([\w-]+)")
_PLURAL = re.compile(r"plural\s*=\s*([^;\n]+)")
_LANGUAGE = re.compile(r"^Language:[ \t]*([\w@-]+)", re.MULTILINE)
_GERMANIC = "n != 1"
_ONE, _MANY = 1, 100


def read_po(path: str, src_tag: str, tgt_tag: str, left_out: Counter[str]) -> Iterator[pa.Table]:
    """The pairs of a catalogue, in the order of the file: its messages, in the source language, and translations.

    src_tag, tgt_tag: BCP 47 tags. Where the catalogue names its language, translations are in that one; if it is the
    source's, messages are the target. Where the tags are the same, the pairs are of each message with itself.
    left_out: counts what is not read: `fuzzy`, `untranslated`, `obsolete` entries, and `other_plurals`, the forms for
    neither one nor many. A text over `MAX_LINE_BYTES` is an empty one.

    Raises UserError for what `open_bytes` refuses, what is no catalogue (by file and line), text that is not in the
    encoding that it names, and another language.
    """
    return tables_of(_Catalogue(path, src_tag, tgt_tag, left_out).pairs())


@dataclass
class _Entry:
    """The parts of a message."""

    line: int
    fuzzy: bool
    texts: dict[str, str | None] = field(default_factory=dict)
    """By keyword; None for one that is too long."""


class _Catalogue:
    """A catalogue as it is read."""

    def __init__(self, path: str, src_tag: str, tgt_tag: str, left_out: Counter[str]) -> None:
        self._path, self._src_tag, self._tgt_tag, self._left_out = path, src_tag, tgt_tag, left_out
        self._one, self._many = "msgstr[0]", "msgstr[1]"
        self._is_reversed = False
        self._too_long = 0

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(source, target) of every translated message."""
        for entry in self._entries():
            texts = {key: self._bounded(text) for key, text in entry.texts.items() if key != "msgctxt"}
            if "msgid" not in texts or not ({"msgstr", "msgstr[0]"} & texts.keys()):
                raise self._error(entry.line, "an entry without msgid or msgstr; complete or remove it")
            if entry.texts["msgid"] == "" and "msgctxt" not in entry.texts:
                self._read_header(entry.line, texts.get("msgstr", ""))
            elif self._src_tag == self._tgt_tag:
                yield from ((texts[key],) * 2 for key in ("msgid", "msgid_plural") if key in texts)
            else:
                yield from self._translations(entry, texts)
        if self._too_long:
            log(f"warning: {self._path}: texts over {MAX_LINE_BYTES:,} bytes are read as empty: {self._too_long}")

    def _translations(self, entry: _Entry, texts: dict[str, str]) -> Iterator[tuple[str, str]]:
        if entry.fuzzy:
            self._left_out["fuzzy"] += 1
            return
        both = {"msgid": self._one, "msgid_plural": self._many} if "msgid_plural" in texts else {"msgid": "msgstr"}
        pairs = [(texts[message], texts[form]) for message, form in both.items() if texts.get(form)]
        others = texts.keys() - both.keys() - {*both.values()}
        self._left_out += Counter(other_plurals=len(others), untranslated=len(both) - len(pairs))  # none of 0
        yield from ((tgt, src) for src, tgt in pairs) if self._is_reversed else pairs

    def _bounded(self, text: str | None) -> str:
        self._too_long += text is None
        return text or ""

    def _read_header(self, line: int, header: str) -> None:
        """Language and forms of the plural; the charset was read with the text."""
        plural = match[1] if (match := _PLURAL.search(header)) else _GERMANIC
        try:
            form = gettext.c2py(plural)
            self._one, self._many = f"msgstr[{form(_ONE)}]", f"msgstr[{form(_MANY)}]"
        except (ValueError, ArithmeticError, RecursionError) as error:
            reason = f"Plural-Forms that cannot be read ({one_line(error)[:100]}); correct the header"
            raise self._error(line, reason) from None
        language = match[1] if (match := _LANGUAGE.search(header)) else ""
        if not language or covers(self._tgt_tag, language) or self._src_tag == self._tgt_tag:
            return
        if not covers(self._src_tag, language):
            reason = f"the catalogue is in {language}, not in {self._tgt_tag}; correct tgt_lang, or set tgt_column"
            raise self._error(line, reason)
        self._is_reversed = True

    def _entries(self) -> Iterator[_Entry]:
        """The entries, each when it is complete."""
        entry: _Entry | None = None
        key, text, is_fuzzy = "", BoundedText(), False
        for number, line in self._lines():
            keyword = _KEYWORD.fullmatch(line)
            new = keyword is not None and keyword[1] in ("msgctxt", "msgid")
            if entry is not None and "msgstr" in key and (new or line.startswith("#")):
                entry.texts[key] = text.take()
                yield entry
                entry, key = None, ""
            if line.startswith("#"):
                is_obsolete = line.startswith("#~")
                self._left_out.update(["obsolete"] if is_obsolete and line[2:].lstrip().startswith("msgid ") else ())
                is_flagged = line.startswith("#,") and "fuzzy" in re.split(r"[,\s]+", line)
                is_fuzzy = not is_obsolete and (is_fuzzy or is_flagged)
                continue
            if keyword is not None:
                if entry is not None:
                    entry.texts[key] = text.take()
                elif new:
                    entry, is_fuzzy = _Entry(number, is_fuzzy), False
                key = keyword[1]
            string = _STRING.fullmatch(keyword[2] if keyword is not None else line)
            if entry is None or string is None or (keyword is not None and key in entry.texts):
                raise self._error(number, "no line of a catalogue where it stands; correct it")
            text.add(_ESCAPE.sub(_unescaped, string[1]))
        if entry is not None:
            entry.texts[key] = text.take()
            yield entry

    def _lines(self) -> Iterator[tuple[int, str]]:
        """The lines that are not empty, with their numbers, in the encoding that the header names."""
        any_line = False
        with open_bytes(self._path) as stream:
            named = _CHARSET.search(stream.peek())  # type: ignore[attr-defined] # every stream can
            charset = named[1].decode() if named and named[1] != b"CHARSET" else "utf-8"
            for number, raw in enumerate(byte_lines(blocks_of(stream)), start=1):
                any_line = True
                if raw is None:
                    raise self._error(number, f"a line over {MAX_LINE_BYTES:,} bytes; wrap or remove it")
                try:
                    line = raw.decode(charset).strip(" \t\r")
                except (UnicodeError, LookupError) as error:
                    reason = f"not in {charset}, which the header names or means ({one_line(error)[:100]})"
                    raise self._error(number, f"{reason}; correct the header or convert the file") from None
                if line := line.removeprefix("\ufeff") if number == 1 else line:
                    yield number, line
        if not any_line:
            raise UserError(f"{self._path}: the file is empty; give a catalogue")

    def _error(self, line: int, reason: str) -> UserError:
        return UserError(f"{self._path}:{line}: {reason}")


def _unescaped(escape: re.Match[str]) -> str:
    hexadecimal, octal, letter = escape.groups()
    if letter is not None:
        return _ESCAPED.get(letter, letter)
    return chr(int(hexadecimal, 16) if hexadecimal else int(octal, 8) % 256)
