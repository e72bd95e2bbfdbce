"""IWSLT14 German-English as papers have it since MIXER (Ranzato et al., 2016) and fairseq's `prepare-iwslt14.sh`.

The archive `de-en.tgz` holds TED talks with tags. Of `train.tags.de-en.*`, lines with `<url>`, `<talkid>` or
`<keywords>` are dropped and the tags `<title>` and `<description>` stripped; of the `.xml` files, the `<seg>` elements
are taken and `’` becomes `'` (the training text is written with `'`). Lines are tokenised as Moses does; training pairs
are kept with 1 to 175 tokens a side and a ratio of at most 1.5 (`clean-corpus-n.perl`); then all is lower-cased. Every
23rd kept pair is valid, and five development and test sets are the test set.

Not supported: other language pairs, and the BPE that ends the original recipe (the student has its own tokens).
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from xml.sax.saxutils import unescape

import pyarrow as pa
from pyarrow import fs

from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.corpus.moses import lower, tokenise
from bertkd_ray.corpus.readers import blocks_of, byte_lines, locate, open_bytes

LANGUAGES = ("de", "en")
EXPECTED_PAIRS: Mapping[str, int] = {"train": 160_239, "valid": 7_283, "test": 6_750}
"""Pairs by split that the recipe gives on the original archive; fairseq's figures."""

_TRAIN = "train.tags.de-en"
_TEST_SETS = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
_VALID_EVERY = 23
_MAX_TOKENS = 175
_MAX_RATIO = 1.5
_MAX_WORD_LETTERS = 1000

_DROPPED = re.compile("<url>|<talkid>|<keywords>")
_STRIPPED = re.compile("</?(?:title|description)>")
_SEGMENT = "<seg id"
_SEGMENT_TAGS = re.compile(r'<seg id="[0-9]*">\s*|\s*</seg>\s*')
_MAX_MEMBER_BYTES = 1 << 30
_XML_QUOTES = {"&apos;": "'", "&quot;": '"'}


def read_iwslt14(path: str, split: str, *, src_lang: str, tgt_lang: str, text: str) -> Iterator[tuple[str, str]]:
    """(source, target) of a split, streamed.

    path: the archive, or the folder it unpacks to (or the one that holds it); local or a URI. split: train, valid or
    test. src_lang, tgt_lang: `de` and `en` in either order; the pairs are the same. text: `paper` gives Moses tokens
    with their escapes, lower-cased; `raw` gives the lines of exactly the same pairs before tokenising, XML's five
    entities undone.
    Raises UserError for other languages, a file that is missing or there twice, an archive that is damaged or none,
    text that is not UTF-8, and sides with different numbers of lines.
    """
    if {src_lang, tgt_lang} != set(LANGUAGES):
        raise UserError(
            f"corpus.src_lang, corpus.tgt_lang: IWSLT14 is read in de and en, not {src_lang} and {tgt_lang}; "
            "set them to de and en, in either order"
        )
    languages = (src_lang, tgt_lang)
    if split == "test":
        for test_set in _TEST_SETS:
            names = [f"IWSLT14.{test_set}.de-en.{language}.xml" for language in languages]
            for lines in _aligned(names, [_segments(path, name) for name in names]):
                yield _in_form(lines, _tokenise(lines, languages) if text == "paper" else lines, text)
        return
    if split not in EXPECTED_PAIRS:
        raise ValueError(f"no split {split!r}")
    for number, pair in enumerate(_kept_pairs(path, languages, text), start=1):
        if (number % _VALID_EVERY == 0) == (split == "valid"):
            yield pair


def archive_hash(path: str) -> str:
    """SHA-256 over the files used, in hexadecimal; an archive and its unpacked folder have the same.

    Raises UserError for a missing file, and for an archive that is damaged or none: a truncated one never passes.
    """
    names = [f"{_TRAIN}.{language}" for language in LANGUAGES]
    names += [f"IWSLT14.{test_set}.de-en.{language}.xml" for test_set in _TEST_SETS for language in LANGUAGES]
    digests = {name: hashlib.sha256() for name in names}
    for name, block in _blocks(path, names):
        digests[name].update(block)
    return hashlib.sha256("".join(f"{name} {digests[name].hexdigest()}\n" for name in names).encode()).hexdigest()


def check_counts(pairs: Mapping[str, int]) -> str | None:
    """The warning if the pairs read of train, valid and test are not the original archive's, else None.

    pairs: as `read_iwslt14` gives them, before any other cleaning. A corpus with less than half of the original's
    training pairs is taken for an excerpt made on purpose.
    """
    is_original = all(pairs[split] == count for split, count in EXPECTED_PAIRS.items())
    if is_original or pairs["train"] < EXPECTED_PAIRS["train"] // 2:
        return None
    counts = " / ".join(f"{pairs[split]:,}" for split in EXPECTED_PAIRS)
    expected = " / ".join(f"{count:,}" for count in EXPECTED_PAIRS.values())
    return (
        f"IWSLT14 has {counts} pairs in train / valid / test, where the recipe gives {expected} on the original "
        "archive; scores will not be comparable with published ones"
    )


def _kept_pairs(path: str, languages: tuple[str, str], text: str) -> Iterator[tuple[str, str]]:
    names = [f"{_TRAIN}.{language}" for language in languages]
    sides = [(_STRIPPED.sub("", line) for line in _lines(path, name) if not _DROPPED.search(line)) for name in names]
    for lines in _aligned(names, sides):
        tokens = _tokenise(lines, languages)
        if _is_kept(*tokens):
            yield _in_form(lines, tokens, text)


def _segments(path: str, name: str) -> Iterator[str]:
    return (_SEGMENT_TAGS.sub("", line).replace("’", "'") for line in _lines(path, name) if _SEGMENT in line)


def _tokenise(lines: tuple[str, str], languages: tuple[str, str]) -> tuple[str, str]:
    return tokenise(lines[0], languages[0]), tokenise(lines[1], languages[1])


def _is_kept(src: str, tgt: str) -> bool:
    """Whether `clean-corpus-n.perl -ratio 1.5 ... 1 175` keeps a tokenised pair."""
    src_words, tgt_words = src.split(), tgt.split()
    shorter, longer = sorted((len(src_words), len(tgt_words)))
    return (
        shorter >= 1
        and longer <= _MAX_TOKENS
        and longer / shorter <= _MAX_RATIO
        and max(map(len, src_words + tgt_words)) <= _MAX_WORD_LETTERS
    )


def _in_form(lines: tuple[str, str], tokens: tuple[str, str], text: str) -> tuple[str, str]:
    if text == "paper":
        return lower(tokens[0]), lower(tokens[1])
    return unescape(lines[0], _XML_QUOTES).strip(), unescape(lines[1], _XML_QUOTES).strip()


def _aligned(names: list[str], sides: Sequence[Iterable[str]]) -> Iterator[tuple[str, str]]:
    counts = [0, 0]
    for src, tgt in zip_longest(*sides):
        counts[0] += src is not None
        counts[1] += tgt is not None
        if src is not None and tgt is not None:
            yield src, tgt
    if counts[0] != counts[1]:
        raise UserError(
            f"{names[0]} has {counts[0]} lines of text and {names[1]} has {counts[1]}; get the archive again"
        )


# --- files: an archive's members are read from the stream and never written anywhere ---------------------------------


def _lines(path: str, name: str) -> Iterator[str]:
    lines = byte_lines(block for _, block in _blocks(path, [name]))
    for number, line in enumerate(lines, start=1):
        try:
            yield (line or b"").decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: {name}:{number}: not UTF-8 ({error.reason}); get the archive again") from error


def _blocks(path: str, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """What is in some of the files, a block at a time, with the file's name; of an archive in the order it has them."""
    folder = next((folder for folder in (f"{path}/de-en", path) if _is_directory(folder)), None)
    if folder is not None:
        for name in names:
            with open_bytes(f"{folder}/{name}") as stream:
                yield from ((name, block) for block in blocks_of(stream))
        return
    missing = list(names)
    with open_bytes(path) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    if member.size > _MAX_MEMBER_BYTES:
                        raise UserError(f"{path}: {member.name} has {member.size:,} bytes; give the archive of IWSLT14")
                    name = os.path.basename(member.name)
                    content = archive.extractfile(member) if member.isfile() and name in names else None
                    if content is not None:
                        if name not in missing:
                            raise UserError(f"{path}: holds {name} twice; get it again")
                        yield from ((name, block) for block in blocks_of(content))
                        missing.remove(name)
            for _ in blocks_of(stream):  # the checksum of what packed it stands behind the last member
                pass
        except tarfile.TarError as error:
            reason = f"truncated, damaged or no .tgz archive ({one_line(error)})"
            raise UserError(f"{path}: {reason}; get it again") from error
    if missing:
        raise UserError(f"{path}: holds no {missing[0]}; give the de-en.tgz of IWSLT14 or the folder it unpacks to")


def _is_directory(path: str) -> bool:
    try:
        return bool(locate(path)[2] == fs.FileType.Directory)
    except (OSError, pa.ArrowException):
        return False  # opening it as a file says what is wrong
