"""Pairs written in the forms of translation files, by string formatting alone."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

Pairs = Iterable[tuple[str, str]]


def write_tmx(path: Path, pairs: Pairs, *, src: str = "de", tgt: str = "en") -> Path:
    """A translation memory with a unit a pair."""

    def variant(tag: str, text: str) -> str:
        return f'<tuv xml:lang="{tag}"><seg>{escape(text)}</seg></tuv>'

    units = "".join(f"<tu>{variant(src, a)}{variant(tgt, b)}</tu>\n" for a, b in pairs)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<tmx version="1.4"><header srclang="*all*"/><body>\n'
    path.write_text(f"{head}{units}</body></tmx>\n", encoding="utf-8")
    return path


def write_moses_zip(path: Path, pairs: Pairs, *, src: str = "de", tgt: str = "en") -> Path:
    """An archive with a file a language."""
    sides = zip(*pairs, strict=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for tag, lines in zip((src, tgt), sides, strict=True):
            archive.writestr(f"x.{src}-{tgt}.{tag}", "".join(f"{line}\n" for line in lines))
    return path


def write_xliff(path: Path, pairs: Pairs, *, src: str = "de", tgt: str = "en") -> Path:
    """An XLIFF file of version 1.2 with a unit a pair."""
    head = f'<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file source-language="{src}"'
    units = (f"<source>{escape(a)}</source><target>{escape(b)}</target>" for a, b in pairs)
    body = "".join(f'<trans-unit id="{number}">{unit}</trans-unit>\n' for number, unit in enumerate(units))
    path.write_text(f'{head} target-language="{tgt}"><body>\n{body}</body></file></xliff>\n', encoding="utf-8")
    return path


def write_po(path: Path, pairs: Pairs, *, language: str = "en") -> Path:
    """A catalogue with a message a pair, each under a context of its own."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    head = f'msgid ""\nmsgstr "Language: {language}\\n"\n'
    messages = (f'msgctxt "{number}"\nmsgid {quoted(a)}\nmsgstr {quoted(b)}\n' for number, (a, b) in enumerate(pairs))
    path.write_text("\n".join([head, *messages]), encoding="utf-8")
    return path


WRITERS: dict[str, Callable[[Path, Pairs], dict[str, Any]]] = {
    "moses_zip": lambda path, pairs: {"moses_zip": str(write_moses_zip(path, pairs))},
    "po": lambda path, pairs: {"po": str(write_po(path, pairs))},
    "tmx": lambda path, pairs: {"tmx": str(write_tmx(path, pairs))},
    "xliff": lambda path, pairs: {"xliff": str(write_xliff(path, pairs))},
}
"""By form: writes pairs into a file, and gives the keys of a source that read them."""
