"""Translation of text line by line: a line for a line, in order, while the input still comes.

Lines are read in windows, and a window is translated as one batch. A line that is longer than the model has learned to
read is cut at the ends of its sentences, and a sentence that is still too long between words; the translations are
joined again. Memory is that of a window and of its longest line.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tokenizers import Tokenizer

from bertkd_ray.config.section import Section
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.languages import UNSPACED
from bertkd_ray.core.ragged import Ragged, offsets_of
from bertkd_ray.corpus.moses import escape_moses, from_raw, from_tokens, to_raw
from bertkd_ray.corpus.readers import not_utf8_error
from bertkd_ray.corpus.segmentation import WORD_START
from bertkd_ray.corpus.text_form import TextForm
from bertkd_ray.corpus.tokenizer import decode, encode
from bertkd_ray.translation.engines import Engine

_READ_BYTES = 1 << 16
_WINDOW_LINES = 1024
_BOM = b"\xef\xbb\xbf"
_SENTENCE_END = re.compile(
    r"""
    # a full stop not after an initial or a number; every run begins once, so that the search is linear
    (?: (?<!\.) (?: (?<!\b\w) (?<!\d) \. (?!\.) | \.{2,}+ ) | (?<![!?…؟۔।։።]) [!?…؟۔।։።]++ )
    ["'”’»›“)\]]* \s+
    | [。！？｡]+ [」』”’）]*
    """,
    re.VERBOSE,
)


class LineSettings(Section):
    """The settings by which a model translates lines; exports carry them as `translation.json`."""

    src_lang: str | None = None
    """Language of the source, ISO 639."""
    tgt_lang: str | None = None
    """Language of the target, ISO 639."""
    text: Literal["raw", "moses", "paper"] = "raw"
    """The form of text the model reads and writes, as `corpus.text`; lines are raw text unless `tokenised`."""
    max_tokens: int = Field(150, ge=1)
    """Source tokens above which a line is cut: the longest that the model saw in training."""
    positions: int = Field(512, ge=2)
    """Position embeddings of the model: tokens a side, `</s>` included."""
    beam: int = Field(5, ge=1)
    """Beam size; 1 is greedy."""
    length_penalty: float = Field(0.6, ge=0)
    """Exponent of the GNMT penalty."""

    @property
    def form(self) -> TextForm:
        """What the model reads and writes, languages that are not known by their defaults."""
        return TextForm(**self.model_dump(include={"text", "src_lang", "tgt_lang"}, exclude_none=True))


def line_windows(read: Callable[[int], bytes], name: str) -> Iterator[list[str]]:
    """Windows of whole lines, without their ends (`\\n`, `\\r\\n`), each as soon as it has been read.

    read: gives what is there, at most so many bytes, waits only where nothing is, and ends with b"" (`os.read`). name:
    of the input, in messages. Raises UserError for a line that is not UTF-8, after the windows before it.
    """
    number = 1
    for lines in _byte_lines(read):
        if number == 1:
            lines[0] = lines[0].removeprefix(_BOM)
        for start in range(0, len(lines), _WINDOW_LINES):
            window = lines[start : start + _WINDOW_LINES]
            yield _decoded(window, name, number)
            number += len(window)


def _byte_lines(read: Callable[[int], bytes]) -> Iterator[list[bytes]]:
    """The lines that every read completes."""
    begun: list[bytes] = []
    while chunk := read(_READ_BYTES):
        *ended, unfinished = chunk.split(b"\n")
        if ended:
            ended[0] = b"".join([*begun, ended[0]])
            begun.clear()
            yield ended
        begun.append(unfinished)
    if last := b"".join(begun):
        yield [last]


def _decoded(lines: list[bytes], name: str, first: int) -> list[str]:
    try:
        return [line.removesuffix(b"\r").decode("utf-8") for line in lines]
    except UnicodeDecodeError:
        raise not_utf8_error(name, first, lines) from None


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space between them; joined they give all of it but white space.

    A sentence ends after `.`, `!`, `?` and their like, closing quotes included, where white space and anything but a
    lower-case letter follow (Chinese and Japanese ends need neither). A full stop after a number or a single letter
    ends none. Not supported: lists of abbreviations; languages that mark no ends (Thai, Lao, Khmer).
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if not _goes_on(text, match.end())]
    parts = [text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [part for part in parts if part]


def _goes_on(text: str, end: int) -> bool:
    return text[end - 1].isspace() and text[end : end + 1].islower()


class LineTranslator:
    """Translates windows of lines with an engine; the tokenizer is the student's.

    tokenised: lines are Moses tokens with their escapes, in and out, as the files of a Moses corpus; else they are raw
    text. Raises UserError where the model's corpus is raw text.
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, settings: LineSettings, *, tokenised: bool = False
    ) -> None:
        if tokenised and settings.form.is_raw:
            raise UserError("--tokenised: this model was trained on raw text, not on Moses tokens; leave it out")
        self._engine, self._tokenizer, self._form, self._tokenised = engine, tokenizer, settings.form, tokenised
        self._longest = min(settings.max_tokens, engine.positions - 1)
        self._glue = "" if self._form.tgt_lang in UNSPACED else " "
        self._begins_word = np.zeros(tokenizer.get_vocab_size(), dtype=bool)
        self._begins_word[[i for token, i in tokenizer.get_vocab().items() if token.startswith(WORD_START)]] = True

    def translate(self, lines: Sequence[str]) -> list[str]:
        """A line for every line; an empty one, or one of white space alone, gives an empty line."""
        if not lines:
            return []
        pieces = self._pieces(lines)
        flat = [ids for of_line in pieces for ids in of_line]
        src = Ragged(np.concatenate(flat), offsets_of(np.array([len(ids) for ids in flat], dtype=np.int64)))
        texts = decode(self._tokenizer, self._engine.translate(src))
        written = self._written(texts)
        ends = list(accumulate(map(len, pieces)))
        joined = zip([0, *ends[:-1]], ends, strict=True)
        return [self._glue.join(filter(None, written[start:end])) for start, end in joined]

    def _pieces(self, lines: Sequence[str]) -> list[list[NDArray[np.integer]]]:
        """The token ids of every line, cut where they are too many; at least one piece a line."""
        return [
            [ids] if len(ids) <= self._longest else self._pieces_of(line)
            for line, ids in zip(lines, self._rows(lines), strict=True)
        ]

    def _pieces_of(self, line: str) -> list[NDArray[np.integer]]:
        return [piece for sentence in self._rows(sentences(line)) for piece in self._split(sentence)]

    def _rows(self, texts: Sequence[str]) -> list[NDArray[np.integer]]:
        ids = encode(self._tokenizer, self._read(texts))
        return [ids.values[ids.offsets[i] : ids.offsets[i + 1]] for i in range(len(ids))]

    def _read(self, texts: Sequence[str]) -> list[str]:
        """Lines as the model's corpus has them."""
        if self._tokenised:
            return from_tokens(texts, self._form.text)
        return from_raw(texts, self._form.text, self._form.src_lang)

    def _written(self, texts: Sequence[str]) -> list[str]:
        """Translations in the form of the lines, from the model's form."""
        if self._tokenised:
            return [escape_moses(text) for text in texts]
        return to_raw(texts, self._form.text, self._form.tgt_lang)

    def _split(self, ids: NDArray[np.integer]) -> Iterator[NDArray[np.integer]]:
        """Pieces of nearly equal length, cut before a word where one begins in the last half of a piece."""
        while len(ids) > self._longest:
            size = math.ceil(len(ids) / math.ceil(len(ids) / self._longest))
            words = np.flatnonzero(self._begins_word[ids[size // 2 + 1 : size + 1]])
            end = size // 2 + 1 + int(words[-1]) if len(words) else size
            yield ids[:end]
            ids = ids[end:]
        yield ids


def translate_stream(
    translator: LineTranslator, windows: Iterator[list[str]], write: Callable[[bytes], Any], flush: Callable[[], None]
) -> int:
    """Writes the translation of every window as soon as it is there; the number of lines."""
    count = 0
    for lines in windows:
        write("".join(f"{line}\n" for line in translator.translate(lines)).encode())
        flush()
        count += len(lines)
    return count
