"""Sentence pairs from translation memories (TMX 1.1 to 1.4b), streamed in bounded memory.

Of a segment the text is kept, that inside `hi` too; the codes of the original format (`bpt`, `ept`, `ph`, `it`, `ut`)
are dropped, with the text of a flow of its own (`sub`) that they may hold, such as a footnote's. `srclang` is of no
account: the languages of the variants say what is what, so files with `srclang="*all*"` are as good.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import product

import pyarrow as pa

from bertkd_ray.config.languages import covers, script_of
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.readers import MAX_LINE_BYTES, tables_of
from bertkd_ray.corpus.xml_stream import BoundedText, parse_xml

MAX_VARIANTS = 100
"""Variants of one language in a unit that are read; others are left out and counted."""
_CODES = frozenset(("bpt", "ept", "ph", "it", "ut"))
_MOST_TAGS, _LONGEST_TAG = 100, 100  # that are remembered, and characters of one
_TAGS_IN_MESSAGE = 8


def read_tmx(
    path: str, src_tag: str, tgt_tag: str, left_out: Counter[str], *, variants: str = "all"
) -> Iterator[pa.Table]:
    """The pairs of a translation memory, in the order of the file.

    src_tag, tgt_tag: BCP 47 tags; each stands for those that begin with its subtags, `en` for `en-GB` and `EN_us`.
    Where they are the same, the pairs are of each of its texts with itself. variants: of a unit with several texts of
    a language `all` pairs every source with every target, `first` takes the first of each. left_out: counts what is not
    read: `no_translation` (units without one of the languages), `other_variants`, `sub_flows`. A segment over
    `MAX_LINE_BYTES` is an empty one.

    Raises UserError as `parse_xml`, and where no unit has both languages. Warns of texts in two scripts on one side.
    """
    units = _Units(src_tag, tgt_tag, variants, left_out)
    return tables_of(_pairs(path, units))


def _pairs(path: str, units: "_Units") -> Iterator[tuple[str, str]]:
    any_pair = False
    for _ in parse_xml(path, "tmx", units):
        for src, tgt in units.take():
            any_pair = True
            yield from zip(src, src, strict=True) if units.is_monolingual else product(src, tgt)
    if not any_pair:
        wanted = " and ".join(dict.fromkeys(units.wanted))
        tags = ", ".join(f"{tag} ({count})" for tag, count in units.tags.most_common(_TAGS_IN_MESSAGE)) or "none"
        raise UserError(
            f"{path}: no unit is in {wanted}; its languages: {tags}; correct src_lang and tgt_lang, or name the tags "
            "in src_column and tgt_column"
        )
    if units.too_long:
        log(f"warning: {path}: segments over {MAX_LINE_BYTES:,} bytes are read as empty: {units.too_long}")
    for wanted in dict.fromkeys(units.wanted):
        scripts = {script: tag for tag in units.tags if covers(wanted, tag) and (script := script_of(tag))}
        if len(scripts) > 1:
            both = ", ".join(sorted(scripts.values()))
            log(
                f"warning: {path}: {wanted} stands for {both}, in different scripts; name one in src_column, tgt_column"
            )


class _Units:
    """The units of a translation memory, as its elements come."""

    def __init__(self, src_tag: str, tgt_tag: str, variants: str, left_out: Counter[str]) -> None:
        self.wanted = src_tag, tgt_tag
        self.is_monolingual = src_tag == tgt_tag
        self.tags: Counter[str] = Counter()
        """Texts by their tag, of the first tags that were seen."""
        self.too_long = 0
        """Segments that were read as empty ones."""
        self._only_first = variants == "first"
        self._left_out = left_out
        self._ready: list[tuple[list[str], list[str]]] = []
        self._sides: tuple[list[str], list[str]] = [], []
        self._side: list[str] | None = None
        self._in_segment, self._codes = False, 0
        self._text = BoundedText()

    def take(self) -> list[tuple[list[str], list[str]]]:
        """The texts of source and target of the units that ended since the last call."""
        ready, self._ready = self._ready, []
        return ready

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        if self._in_segment:
            if self._codes or name in _CODES:
                self._codes += 1
                self._left_out.update(["sub_flows"] if name == "sub" else ())
        elif name == "tu":
            self._sides = [], []
        elif name == "tuv":
            self._side = self._side_of(attributes.get("xml:lang") or attributes.get("lang") or "")
        elif name == "seg" and self._side is not None:
            self._in_segment = True

    def end(self, name: str) -> None:
        """An element ends."""
        if self._codes:
            self._codes -= 1
        elif name == "seg" and self._in_segment:
            self._in_segment = False
            self._add(self._text.take())
        elif name == "tuv":
            self._side = None
        elif name == "tu":
            self._end_unit()

    def text(self, data: str) -> None:
        """Text, perhaps of a segment."""
        if self._in_segment and not self._codes:
            self._text.add(data)

    def _side_of(self, tag: str) -> list[str] | None:
        """The texts that one in this language joins; None where it is in neither."""
        tag = tag[:_LONGEST_TAG]
        if tag in self.tags or len(self.tags) < _MOST_TAGS:
            self.tags[tag or "none given"] += 1
        return next((side for side, wanted in zip(self._sides, self.wanted, strict=True) if covers(wanted, tag)), None)

    def _add(self, text: str | None) -> None:
        assert self._side is not None
        self.too_long += text is None
        if len(self._side) >= (1 if self._only_first else MAX_VARIANTS):
            self._left_out["other_variants"] += 1
        else:
            self._side.append(text or "")

    def _end_unit(self) -> None:
        src, tgt = self._sides
        if src and (tgt or self.is_monolingual):
            self._ready.append(self._sides)
        else:
            self._left_out["no_translation"] += 1
        self._sides = [], []
