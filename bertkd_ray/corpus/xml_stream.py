"""XML read as a stream of elements and text, in bounded memory, for the readers of translation files.

Nothing that a document names is loaded. A DOCTYPE is passed over; a document that declares entities, or uses any but
XML's five, is refused, so none can grow or fetch anything.
"""

import codecs
from collections.abc import Iterator
from itertools import chain
from typing import Protocol
from xml.parsers import expat

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.readers import MAX_LINE_BYTES, blocks_of, open_bytes

_MAX_TOKEN_BYTES = 1 << 20  # of a tag, a comment or a declaration, which the parser holds as a whole
_MAX_DEPTH = 256
_MOST_NAMES, _LONGEST_NAME = 1000, 1000  # of elements and attributes, which the parser never forgets


class ElementHandler(Protocol):
    """What a reader does with the elements of a document, in their order."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""

    def end(self, name: str) -> None:
        """An element ends."""

    def text(self, data: str) -> None:
        """Text inside the element that began last and has not ended, perhaps a part of it."""


class BoundedText:
    """Text that comes in parts; of one over `MAX_LINE_BYTES` nothing is kept."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._characters = 0

    def add(self, data: str) -> None:
        """Another part."""
        self._characters += len(data)
        if self._characters <= MAX_LINE_BYTES:
            self._parts.append(data)
        else:
            self._parts.clear()

    def take(self) -> str | None:
        """The text, None where it was too long; the next one begins."""
        text, characters = "".join(self._parts), self._characters
        self._parts, self._characters = [], 0
        if characters > MAX_LINE_BYTES or len(text.encode()) > MAX_LINE_BYTES:
            return None
        return text


def parse_xml(path: str, root: str, handler: ElementHandler, *, namespaces: bool = False) -> Iterator[None]:
    """Hands the elements of a document to a reader, and yields after every block of it.

    path: a local path or a URI, perhaps packed. root: name of the outermost element. namespaces: whether elements are
    named by their namespace's URI, a space and their name; otherwise by their name without its prefix, and attributes
    as they are written. Encodings: UTF-8, UTF-16, and those of one byte a character.

    Raises UserError for what `open_bytes` refuses, an empty file, what is not well-formed (by file and line), another
    outermost element, entities other than XML's five, tags over 1 MiB, elements within elements over 256 deep, and over
    1,000 names of elements and attributes.
    """
    with open_bytes(path) as stream:
        blocks = blocks_of(stream)
        yield from _parsed(path, root, handler, next(blocks, b""), blocks, namespaces)


def _parsed(
    path: str, root: str, handler: ElementHandler, first: bytes, blocks: Iterator[bytes], namespaces: bool
) -> Iterator[None]:
    utf_16 = _utf_16(first)
    parser = expat.ParserCreate("utf-8" if utf_16 else None, " " if namespaces else None)
    parser.buffer_text = True
    depth, names = 0, set[str]()

    def refuse(reason: str) -> UserError:
        return UserError(f"{path}:{parser.CurrentLineNumber}: {reason}")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        name = name if namespaces else name.rpartition(":")[2]
        if depth == 0 and name.rpartition(" ")[2] != root:
            raise refuse(f"the document is <{name.rpartition(' ')[2][:50]}>, not <{root}>; name its form")
        depth += 1
        if depth > _MAX_DEPTH:
            raise refuse(f"elements lie more than {_MAX_DEPTH} deep; write the file again")
        if name not in names or not names.issuperset(attributes):
            names.update((name, *attributes))
            if len(names) > _MOST_NAMES or max(map(len, (name, *attributes))) > _LONGEST_NAME:
                raise refuse(f"over {_MOST_NAMES:,} names of elements, or a very long one; write the file again")
        handler.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        handler.end(name if namespaces else name.rpartition(":")[2])

    def declared(name: str, *_: object) -> None:
        raise refuse(f"declares the entity {name[:50]}, and entities are not read; write its text in its place")

    def skipped(name: str, *_: object) -> None:
        raise refuse(f"the entity {name[:50]} is declared elsewhere, which is not read; write its text in its place")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, handler.text
    parser.EntityDeclHandler, parser.SkippedEntityHandler = declared, skipped
    if not first:
        raise UserError(f"{path}: the file is empty; give a document")
    decoder, read = codecs.getincrementaldecoder(utf_16)() if utf_16 else None, 0
    try:
        for block in chain([first], blocks, [b""]):
            # The parser itself takes half a surrogate pair and the letter behind it for one character.
            encoded = decoder.decode(block, final=not block).encode() if decoder else block
            parser.Parse(encoded, not block)
            read += len(encoded)
            if read - parser.CurrentByteIndex > _MAX_TOKEN_BYTES:
                raise refuse(f"a tag, comment or declaration over {_MAX_TOKEN_BYTES:,} bytes; write the file again")
            yield
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise UserError(f"{path}:{error.lineno}: not well-formed XML ({reason}); write the file again") from None
    except UnicodeDecodeError as error:
        raise refuse(f"not valid UTF-16 ({error.reason}); convert the file to UTF-8") from None
    except (ValueError, LookupError) as error:
        raise UserError(f"{path}:1: an encoding that is not read ({error}); convert the file to UTF-8") from None


def _utf_16(first: bytes) -> str:
    """The codec of a document in UTF-16, by its mark or its first character `<` (XML 1.0, F.1); else empty."""
    if first[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    return {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(first[:2], "")
