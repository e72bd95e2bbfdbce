"""BERT's segmentation of text, as spans of the text itself.

BERT's pieces are normalised (an uncased BERT lower-cases and strips accents), so text cannot be rebuilt from them. Here
a piece is taken as the *surface* it covers, by its offsets: surfaces partition the text, nothing is lost, and each has
the id of BERT's piece behind it. Segmentation is local to words between white space, so a corpus is segmented by its
unique words.

    "Männer's"  →  ▁Män ##ner ' s

`▁` starts a whitespace word, `##` continues a BERT word, a bare surface starts a BERT word without white space before.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from tokenizers import Regex, Tokenizer, models, normalizers

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.bert_tokenizer import CONTINUATION, MAX_WORD_LETTERS, SUPPORTED, BertTokenizer

WORD_START = "▁"

# Both sets are closed by Unicode's stability policy: the characters str.split() splits at, which include those BERT and
# the `tokenizers` library take for white space, and the control characters (category Cc) that are not white space.
_WHITE_SPACE = "\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
CONTROL = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"

_SEGMENT_BATCH = 10_000  # words; bounds the memory of the encodings alive at once
_LINE_WORDS = 64  # words that are given to BERT's tokenizer as one text
_SCANNED_CODE_POINTS = 0x40000  # planes 0 to 3: no character of a later plane is punctuation or CJK
_Span = tuple[int, int, int]  # start, end, BERT id


@lru_cache
def normalizer(*, lowercase: bool = False, dotted_i: bool = False) -> normalizers.Normalizer:
    """The normaliser that `normalise` applies and the student's tokenizer carries: one object, so that they agree."""
    steps: list[normalizers.Normalizer] = [
        normalizers.Replace(Regex(f"[{CONTROL}]"), ""),
        normalizers.Replace(WORD_START, "_"),
        normalizers.NFC(),
    ]
    if dotted_i:
        steps += [normalizers.Replace("I", "ı"), normalizers.Replace("İ", "i")]
    if lowercase:
        steps += [normalizers.Lowercase(), normalizers.NFC()]
    steps += [normalizers.Replace(Regex(f"[{_WHITE_SPACE}]+"), " "), normalizers.Strip()]
    return normalizers.Sequence(steps)


def normalise(text: str, *, lowercase: bool = False, dotted_i: bool = False) -> str:
    """The form of a line that every later stage sees, and that decoding gives back.

    Control characters (category Cc) that are not white space are removed, Unicode NFC is taken (again after
    lower-casing), a run of white space becomes one space, both ends are stripped. A literal `▁` (U+2581), which marks
    word starts in tokens, becomes `_`. Lower-casing is by character, without context (no final sigma); dotted_i: I
    becomes ı and İ becomes i first, as in Turkish. Idempotent.
    """
    return normalizer(lowercase=lowercase, dotted_i=dotted_i).normalize_str(text)


def is_plain(line: str) -> bool:
    """Whether a cheap test shows that `normalise` leaves the line as it is; False leaves it open.

    Printable text holds no control characters, no white space but spaces, and no character that this Python's tables do
    not know yet and `tokenizers` may.
    """
    return (
        line.isprintable()
        and WORD_START not in line
        and "  " not in line
        and line[:1] != " "
        and line[-1:] != " "
        and unicodedata.is_normalized("NFC", line)
    )


def lowercased(line: str) -> str:
    """`normalise(line, lowercase=True)` of a plain line, fast where it is ASCII or lower-case already."""
    lowered = line.lower()
    return lowered if line.isascii() or lowered == line else normalise(line, lowercase=True)


class Piece(NamedTuple):
    """A surface: `token` is the surface with its mark (`▁x`, `##x` or bare), `bert_id` the id of BERT's piece."""

    token: str
    bert_id: int


class Segmenter:
    """Segments whitespace words into the surfaces of BERT's pieces."""

    def __init__(self, bert: BertTokenizer) -> None:
        self.special_ids = bert.special_ids
        self.tokenizer = bert.tokenizer
        self.isolated = isolated_characters(bert.tokenizer)
        self._split = re.compile(split_pattern(self.isolated))
        self._is_isolated = re.compile(f"[{self.isolated}]")

    def segment(self, words: Sequence[str]) -> Iterator[list[tuple[str, int]]]:
        """The pieces of every word, each as its token and BERT id; the words are normalised and hold no white space.

        The surfaces partition the word. Pieces that cover the same characters (decomposed ones, as Hangul under accent
        stripping) are one surface with the first piece's id. Characters no piece covers (format characters, stripped
        marks) belong to the surface before, at the start to the one after. A BERT word that is [UNK] is cut into
        characters (`character_id`). A surface never crosses the student's split (`split_pattern`).
        """
        for begin in range(0, len(words), _SEGMENT_BATCH):
            batch = words[begin : begin + _SEGMENT_BATCH]
            # Segmentation is local to words, and one text of many takes half the time of as many texts.
            lines = [batch[start : start + _LINE_WORDS] for start in range(0, len(batch), _LINE_WORDS)]
            encodings = self.tokenizer.encode_batch([" ".join(line) for line in lines], add_special_tokens=False)
            for line, encoding in zip(lines, encodings, strict=True):
                ids, offsets = encoding.ids, encoding.offsets
                start = at = 0
                for word in line:
                    end, first = start + len(word), at
                    while at < len(ids) and offsets[at][0] < end:
                        at += 1
                    pieces = self._aligned_pieces(word, start, ids[first:at], offsets[first:at])
                    yield self._merged_pieces(word) if pieces is None else pieces
                    start = end + 1

    def is_isolated(self, character: str) -> bool:
        """Whether BERT makes the character a word of its own (punctuation, CJK)."""
        return self._is_isolated.fullmatch(character) is not None

    def character_id(self, character: str, *, continues: bool) -> int:
        """The id of BERT's piece for one character in its role, after BERT's normalisation; else that of [UNK].

        Where normalisation decomposes the character (Hangul), the first part counts, as for merged pieces.
        """
        normal = character
        if self.tokenizer.normalizer is not None:
            normal = self.tokenizer.normalizer.normalize_str(character).strip()
        for candidate in filter(None, (normal, normal[:1])):
            bert_id = self.tokenizer.token_to_id(CONTINUATION + candidate if continues else candidate)
            if bert_id is not None:
                return bert_id
        return self.special_ids.unk

    def _aligned_pieces(
        self, word: str, first: int, ids: Sequence[int], offsets: Sequence[tuple[int, int]]
    ) -> list[tuple[str, int]] | None:
        """The pieces of a word that BERT's pieces partition, each match of the split by itself, or None.

        offsets: what the pieces cover, of a text in which the word stands from `first` on.
        """
        marks = {0: WORD_START}
        if len(word) > MAX_WORD_LETTERS or self._is_isolated.search(word):
            marks = {match.start(): "" for match in self._split.finditer(word)} | marks
        pieces, at, marked = [], first, 0
        for bert_id, (start, end) in zip(ids, offsets, strict=True):
            if start != at or end <= start or bert_id == self.special_ids.unk:
                return None
            mark = marks.get(start - first)
            if mark is None:
                mark = CONTINUATION
            else:
                marked += 1
            pieces.append((mark + word[start - first : end - first], bert_id))
            at = end
        return pieces if at == first + len(word) and marked == len(marks) else None

    def _merged_pieces(self, word: str) -> list[tuple[str, int]]:
        encoding = self.tokenizer.encode(word, add_special_tokens=False)
        # In order: overlapping pieces merged, pieces that cover nothing left out.
        spans: list[_Span] = []
        for bert_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if spans and start < spans[-1][1]:
                first_start, first_end, first_id = spans[-1]
                spans[-1] = (first_start, max(first_end, end), first_id)
            elif start < end:
                spans.append((start, end, bert_id))
        pieces: list[tuple[str, int]] = []
        first = last = 0
        for match in self._split.finditer(word):
            start, end = match.span()
            while first < len(spans) and spans[first][1] <= start:
                first += 1
            last = max(first, last)
            while last < len(spans) and spans[last][0] < end:
                last += 1
            # A span that reaches into the next match is looked at there again.
            pieces += self._split_pieces(word, start, end, "" if start else WORD_START, spans[first:last])
        return pieces

    def _split_pieces(
        self, word: str, start: int, end: int, start_mark: str, spans: list[_Span]
    ) -> list[tuple[str, int]]:
        """The pieces of word[start:end], which the spans meet: the first carries `start_mark`, the others `##`."""
        inside = [(max(first, start), last, bert_id) for first, last, bert_id in spans]
        starts: list[tuple[int, int]] = []
        for first, last, bert_id in inside or [(start, end, self.special_ids.unk)]:
            if bert_id == self.special_ids.unk:
                span = range(first, min(last, end))
                starts += [(at, self.character_id(word[at], continues=at > start)) for at in span]
            else:
                starts.append((first, bert_id))
        starts[0] = (start, starts[0][1])
        marks = [start_mark] + [CONTINUATION] * (len(starts) - 1)
        ends = [at for at, _ in starts[1:]] + [end]
        return [(mark + word[at:stop], bert_id) for mark, (at, bert_id), stop in zip(marks, starts, ends, strict=True)]


def split_pattern(isolated: str) -> str:
    """The regular expression of the student's split in a word: one isolated character, or a run of at most 100 others.

    The runs are bounded because WordPiece is quadratic in the length of a word. `isolated` is the inside of a
    character class. Python's `re` and the engine of `tokenizers` read the expression alike.
    """
    return f"[{isolated}]|[^{isolated}]{{1,{MAX_WORD_LETTERS}}}"


def isolated_characters(tokenizer: Tokenizer) -> str:
    """The characters that BERT makes words of their own, as the inside of a regular expression's character class.

    Measured on the tokenizer itself, not taken from a definition, since it depends on `handle_chinese_chars`, on the
    Unicode version of the library, and on normalisation (an uncased BERT turns `≠` into `=`, which is punctuation).
    Raises UserError where there is none.
    """
    # With an empty vocabulary every word is [UNK], and its offsets are the word's.
    bare = Tokenizer(models.WordPiece(vocab={"[UNK]": 0}, unk_token="[UNK]"))
    if tokenizer.normalizer is not None:
        bare.normalizer = tokenizer.normalizer
    bare.pre_tokenizer = tokenizer.pre_tokenizer
    return _isolated_by(bare.to_str())


@lru_cache(maxsize=8)
def _isolated_by(splitter_json: str) -> str:
    characters = [chr(code) for code in range(_SCANNED_CODE_POINTS) if not 0xD800 <= code < 0xE000]
    # Each character stands between two letters, so that a word of exactly its span is the character isolated.
    offsets = set(Tokenizer.from_str(splitter_json).encode("a" + "a".join(characters) + "a").offsets)
    codes = [ord(character) for at, character in enumerate(characters) if (2 * at + 1, 2 * at + 2) in offsets]
    if not codes:
        raise UserError(f"teacher.model: the normaliser of its tokenizer leaves no punctuation; {SUPPORTED}")
    breaks = [0] + [at + 1 for at, (low, high) in enumerate(pairwise(codes)) if high != low + 1] + [len(codes)]
    escaped = [f"\\{chr(code)}" if code < 0x80 else chr(code) for code in codes]
    ranges = [(escaped[first], escaped[last - 1]) for first, last in pairwise(breaks)]
    return "".join(first if first == last else f"{first}-{last}" for first, last in ranges)
