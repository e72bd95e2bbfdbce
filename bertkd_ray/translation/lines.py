"""Translation of text line by line: a line for a line, in order, while the input still comes.

Lines are read in windows, and a window is translated as one batch. A line that is longer than the model has learned to
read is cut at the ends of its sentences, and a sentence that is still too long between words; the translations are
joined again. Memory is that of a window and of its longest line.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tokenizers import Tokenizer

from bertkd_ray.config.languages import UNSPACED
from bertkd_ray.config.section import Section
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged, offsets_of
from bertkd_ray.corpus.moses import escape_moses, from_raw, from_tokens, to_raw
from bertkd_ray.corpus.readers import not_utf8_error
from bertkd_ray.corpus.segmentation import WORD_START
from bertkd_ray.corpus.text_form import TextForm
from bertkd_ray.corpus.tokenizer import decode, encode

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
    """The settings by which a model translates lines; exports carry them as `translation.json`, whose defaults stay."""

    src_lang: str | None = None
    """Language of the source, ISO 639."""
    tgt_lang: str | None = None
    """Language of the target, ISO 639."""
    text: Literal["raw", "moses", "paper"] = "raw"
    """The form of text the model reads and writes, as `corpus.text`; lines are raw text unless `tokenised`."""
    max_tokens: int = Field(150, ge=1, le=10**6)
    """Source tokens above which a line is cut: the longest that the model saw in training."""
    positions: int = Field(512, ge=2, le=10**6)
    """Position embeddings of the model: tokens a side, `</s>` included."""
    beam: int = Field(5, ge=1, le=1000)
    """Beam size; 1 is greedy."""
    length_penalty: float = Field(0.6, ge=0, le=10)
    """Exponent of the GNMT penalty."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """Precision of a model of PyTorch, as the configuration's key; auto: bf16 where the hardware multiplies it."""

    @property
    def form(self) -> TextForm:
        """What the model reads and writes, languages that are not known by their defaults."""
        return TextForm(**self.model_dump(include={"text", "src_lang", "tgt_lang"}, exclude_none=True))


class Engine(Protocol):
    """A model with its search."""

    def translate(self, src: Ragged) -> list[list[int]]:
        """The best translation of every row, without special tokens; that of an empty row is empty.

        src: source tokens without special tokens, at most `LineSettings.positions` - 1 a row.
        """
        ...


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
            try:
                decoded = [line.removesuffix(b"\r").decode("utf-8") for line in window]
            except UnicodeDecodeError:
                raise not_utf8_error(name, number, window) from None
            yield decoded
            number += len(window)


def _byte_lines(read: Callable[[int], bytes]) -> Iterator[list[bytes]]:
    """The lines that every read completes."""
    begun: list[bytes] = []
    while data := read(_READ_BYTES):
        *ended, unfinished = data.split(b"\n")
        if ended:
            ended[0] = b"".join([*begun, ended[0]])
            begun.clear()
            yield ended
        begun.append(unfinished)
    if last := b"".join(begun):
        yield [last]


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space between them; joined they give all of it but white space.

    A sentence ends after `.`, `!`, `?` and their like, closing quotes included, where white space and anything but a
    lower-case letter follow (Chinese and Japanese ends need neither). A full stop after a number or a single letter
    ends none. Not supported: lists of abbreviations; languages that mark no ends (Thai, Lao, Khmer).
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    ends = [end for end in ends if not (text[end - 1].isspace() and text[end : end + 1].islower())]
    parts = [text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [part for part in parts if part]


class LineTranslator:
    """Translates windows of lines with an engine; the tokenizer is the student's.

    tokenised: lines are Moses tokens with their escapes, in and out, as the files of a Moses corpus; else they are raw
    text. Raises UserError where the model's corpus is raw text.
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, settings: LineSettings, *, tokenised: bool = False
    ) -> None:
        if tokenised and settings.text == "raw":
            raise UserError("--tokenised: this model was trained on raw text, not on Moses tokens; leave it out")
        self._engine, self._tokenizer, self._form, self._tokenised = engine, tokenizer, settings.form, tokenised
        self._longest = min(settings.max_tokens, settings.positions - 1)
        self._glue = "" if self._form.tgt_lang in UNSPACED and not tokenised else " "
        self._begins_word = np.zeros(tokenizer.get_vocab_size(), dtype=bool)
        self._begins_word[[i for token, i in tokenizer.get_vocab().items() if token.startswith(WORD_START)]] = True

    def translate(self, lines: Sequence[str]) -> list[str]:
        """A line for every line; an empty one, or one of white space alone, gives an empty line."""
        if not lines:
            return []
        segments = []
        for line, ids in zip(lines, self._rows(lines), strict=True):
            rows = [ids] if len(ids) <= self._longest else self._rows(sentences(line))
            segments.append([segment for row in rows for segment in self._split(row)])
        flat = [ids for of_line in segments for ids in of_line]
        src = Ragged(np.concatenate(flat), offsets_of(np.array([len(ids) for ids in flat], dtype=np.int64)))
        texts = decode(self._tokenizer, self._engine.translate(src))
        form = self._form
        written = map(escape_moses, texts) if self._tokenised else iter(to_raw(texts, form.text, form.tgt_lang))
        return [self._glue.join(filter(None, islice(written, len(of_line)))) for of_line in segments]

    def _rows(self, texts: Sequence[str]) -> list[NDArray[np.integer]]:
        """The token ids of texts, which are brought into the form of the model's corpus."""
        form = self._form
        read = from_tokens(texts, form.text) if self._tokenised else from_raw(texts, form.text, form.src_lang)
        ids = encode(self._tokenizer, read)
        return [ids.row(i) for i in range(len(ids))]

    def _split(self, ids: NDArray[np.integer]) -> Iterator[NDArray[np.integer]]:
        """Segments of nearly equal length, split before a word where one begins in the last half of a segment."""
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
