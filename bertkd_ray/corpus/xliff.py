"""Translation units from XLIFF 1.0 to 1.2 and 2.0 to 2.2, streamed in bounded memory.

Markup and placeholders stay as they are written: `Press <g id="1">OK</g>`. Marks of segments, terms and comments
(`mrk`, `sm`, `em`) are none and are dropped, their text kept.
"""

from collections import Counter
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa

from bertkd_ray.config.languages import covers
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.readers import MAX_LINE_BYTES, tables_of
from bertkd_ray.corpus.xml_stream import BoundedText, parse_xml

_MARKS = frozenset(("mrk", "sm", "em"))
_CODES = frozenset(("bpt", "ept", "ph", "it"))  # of 1.x, whose content is that of the original format
_UNITS = frozenset(("trans-unit", "segment"))
_TRANSLATE = frozenset(("file", "group", "unit", "trans-unit"))  # elements that may forbid it
_ALTERNATIVES = "alt-trans"
_PASSED_OVER = frozenset(
    (_ALTERNATIVES, "seg-source", "ignorable", "header", "bin-unit", "originalData", "notes", "note")
)
_XML = "/XML/1998/namespace"
_MOST_PAIRS_NAMED, _LONGEST_TAG = 20, 100


def read_xliff(
    path: str, src_tag: str, tgt_tag: str, left_out: Counter[str], *, approved: bool = False
) -> Iterator[pa.Table]:
    """The pairs of source and target, in the order of the file: of 1.x a unit, of 2.x a segment.

    src_tag, tgt_tag: BCP 47 tags that the languages of the file begin with; a file in the other direction is read
    backwards. Where the tags are the same, the pairs are of each source with itself, with a target or without.
    approved: only targets that are approved (1.x) or final (2.x). left_out: counts what is not read: `untranslated` (no
    target, or an empty one), `unfinished` (its state is `new`, `initial` or `needs-…`), `not_approved`,
    `not_to_translate` (`translate="no"`, on the unit or around it), `alternatives` (`alt-trans`, matches),
    `other_languages` (units of files in others). A text over `MAX_LINE_BYTES` is an empty one.

    Raises UserError as `parse_xml`, and where every unit is in other languages.
    """
    return tables_of(_pairs(path, _TranslationUnits(src_tag, tgt_tag, approved, left_out)))


def _pairs(path: str, units: "_TranslationUnits") -> Iterator[tuple[str, str]]:
    for _ in parse_xml(path, "xliff", units, namespaces=True):
        yield from units.take()
    if units.too_long:
        log(f"warning: {path}: texts over {MAX_LINE_BYTES:,} bytes are read as empty: {units.too_long}")
    if not units.any_suitable:
        languages = ", ".join(f"{src or 'none'} to {tgt or 'none'}" for src, tgt in units.languages) or "none"
        raise UserError(
            f"{path}: no file in it is from {units.wanted[0]} to {units.wanted[1]}; it has {languages}; correct "
            "src_lang and tgt_lang, or name the tags in src_column and tgt_column"
        )


class _TranslationUnits:
    """The units of a document, as its elements come."""

    def __init__(self, src_tag: str, tgt_tag: str, approved: bool, left_out: Counter[str]) -> None:
        self.wanted = src_tag, tgt_tag
        self.languages: dict[tuple[str, str], None] = {}
        """Source and target of the files of the document, of the first that were seen."""
        self.any_suitable = False
        self.too_long = 0
        self._is_monolingual = src_tag == tgt_tag
        self._approved, self._left_out = approved, left_out
        self._ready: list[tuple[str, str]] = []
        self._core: str | None = None  # the namespace of the document, with the space behind it
        self._direction = 0  # 1 or -1, and 0 for other languages
        self._translate = [True]  # of the elements around
        self._passed_over = 0  # depth inside alternatives and foreign elements
        self._unit: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._has_segments = False  # as 2.x
        self._open = ""  # source or target, while it is read
        self._inline: list[str] = []  # elements within it; of marks the name is empty
        self._codes = 0
        self._is_tag_open = False  # ">" or "/>" is still to come
        self._text = BoundedText()

    def take(self) -> list[tuple[str, str]]:
        """The pairs of the units that ended since the last call."""
        ready, self._ready = self._ready, []
        return ready

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        local = name.rpartition(" ")[2]
        if self._passed_over:
            self._passed_over += 1
            self._left_out.update(["alternatives"] if ":matches:" in name and local == "match" else ())
        elif self._open:
            self._start_inline(local, attributes)
        elif self._core is None:
            self._core = name.removesuffix("xliff")
            self._begin_file(attributes.get("srcLang"), attributes.get("trgLang"))
        elif name != self._core + local or local in _PASSED_OVER:
            self._passed_over = 1
            self._left_out.update(["alternatives"] if local == _ALTERNATIVES else ())
        else:
            self._start_structure(local, attributes)

    def end(self, name: str) -> None:
        """An element ends."""
        local = name.rpartition(" ")[2]
        if self._passed_over:
            self._passed_over -= 1
        elif self._inline:
            self._end_inline()
        elif local == self._open:
            text = self._text.take()
            self.too_long += text is None
            self._texts[local] = text or ""
            self._open = ""
        else:
            if local in _UNITS:
                self._end_unit()
            if local in _TRANSLATE:
                self._translate.pop()

    def text(self, data: str) -> None:
        """Text, perhaps of a source or target."""
        if self._open and not self._passed_over:
            self._close_tag(">")
            self._text.add(escape(data) if self._codes else data)

    def _begin_file(self, src: str | None, tgt: str | None) -> None:
        """What a file in the document is translated from and to; an absent target is that which is asked for."""
        if src is None:
            return
        src, tgt = src[:_LONGEST_TAG], tgt and tgt[:_LONGEST_TAG]
        wanted_src, wanted_tgt = self.wanted
        forwards = covers(wanted_src, src) and (self._is_monolingual or not tgt or covers(wanted_tgt, tgt))
        backwards = tgt is not None and covers(wanted_src, tgt) and (self._is_monolingual or covers(wanted_tgt, src))
        self._direction = 1 if forwards else -1 if backwards else 0
        self.any_suitable |= bool(self._direction)
        if len(self.languages) < _MOST_PAIRS_NAMED:
            self.languages[src, tgt or ""] = None

    def _start_structure(self, local: str, attributes: dict[str, str]) -> None:
        if local in _TRANSLATE:
            translate = attributes.get("translate")
            self._translate.append(self._translate[-1] if translate is None else translate != "no")
        if local == "file":
            self._begin_file(attributes.get("source-language"), attributes.get("target-language"))
        elif local in _UNITS:
            self._unit, self._texts, self._has_segments = attributes, {}, local == "segment"
        elif local in ("source", "target"):
            self._open = local
            if local == "target" and "state" in attributes:
                self._unit = {**self._unit, "state": attributes["state"]}

    def _start_inline(self, local: str, attributes: dict[str, str]) -> None:
        self._close_tag(">")
        self._inline.append("" if local in _MARKS else local)
        self._codes += local in _CODES
        if local not in _MARKS:
            self._text.add(f"<{local}{''.join(map(_attribute, attributes.items()))}")
            self._is_tag_open = True

    def _end_inline(self) -> None:
        local = self._inline.pop()
        self._codes -= local in _CODES
        if self._is_tag_open and local:
            self._close_tag("/>")
        elif local:
            self._text.add(f"</{local}>")

    def _close_tag(self, end: str) -> None:
        if self._is_tag_open:
            self._text.add(end)
            self._is_tag_open = False

    def _end_unit(self) -> None:
        source, target = self._texts.get("source", ""), self._texts.get("target", "")
        reason = self._reason(target)
        if reason is not None:
            self._left_out[reason] += 1
            return
        pair = (source, target) if self._direction > 0 else (target, source)
        self._ready.append((pair[0], pair[0]) if self._is_monolingual else pair)

    def _reason(self, target: str) -> str | None:
        """Why a unit is left out, None where it is not."""
        state = self._unit.get("state", "")
        if not self._direction:
            return "other_languages"
        if not self._translate[-1]:
            return "not_to_translate"
        if self._is_monolingual and self._direction > 0:
            return None
        if not target.strip():
            return "untranslated"
        if state in ("new", "initial") or state.startswith("needs-"):
            return "unfinished"
        is_approved = self._unit.get("approved", "yes" if self._has_segments and state == "final" else "no") == "yes"
        return "not_approved" if self._approved and not is_approved else None


def _attribute(item: tuple[str, str]) -> str:
    uri, _, name = item[0].rpartition(" ")
    return f" {'xml:' if uri.endswith(_XML) else ''}{name}={quoteattr(item[1])}"
