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


WRITERS: dict[str, Callable[[Path, Pairs], dict[str, Any]]] = {
    "moses_zip": lambda path, pairs: {"moses_zip": str(write_moses_zip(path, pairs))},
    "tmx": lambda path, pairs: {"tmx": str(write_tmx(path, pairs))},
}
"""By form: writes pairs into a file, and gives the keys of a source that read them."""
