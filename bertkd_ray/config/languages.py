"""Codes of languages (ISO 639), and what is known of how a language is written."""

import re
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath

_TABLE = Path(__file__).with_name("iso639.txt")
# Of old data sets; withdrawn, or never in the standard.
_WITHDRAWN = frozenset(("bh", "in", "iw", "ji", "jw", "mo"))
_LOCAL_USE = ("qaa", "qtz")

_CHINESE = "zh cdo cjy cnp cpx csp czh czo gan hak hsn ltc lzh mnp nan och wuu yue"
_OTHERS = "ja ojp ryu th nod sou tts lo khb kkh tdd aho km okz my obr rki mnw omx shn bo adx khg otb xct dz txg"
CHINESE = frozenset(_CHINESE.split())
"""The Chinese languages, old ones too, written in Chinese characters."""
UNSPACED = CHINESE.union(_OTHERS.split())
"""Languages written without spaces between words."""

_CHINESE_SCRIPTS = dict.fromkeys(("cn", "sg", "my"), "hans") | dict.fromkeys(("tw", "hk", "mo"), "hant")
_PACKED = (".gz", ".zst", ".xz", ".bz2")

DOTTED_I = frozenset(["tr", "az", "crh", "gag"])
"""Languages in which i with a dot and i without are two letters, as capitals too."""


def language_code(language: str) -> str:
    """The shortest code of a language, that of ISO 639-1 where it has one: `de` for `deu` and `ger`, `zh` for `zho`.

    language: a code of ISO 639-1, 639-2 or 639-3; region and script behind it are left out (`zh-TW`, `zho_Hans`). A
    code that is not known stays as it is.
    """
    code = language.replace("_", "-").partition("-")[0].lower()
    return _codes().get(code, code)


def is_language_code(code: str) -> bool:
    """Whether this is a code of ISO 639-1, 639-2 or 639-3 in lower case, one for local use, or one of old data sets."""
    return code in _codes() or code in _WITHDRAWN or (len(code) == 3 and _LOCAL_USE[0] <= code <= _LOCAL_USE[1])


@lru_cache(1024)
def language_range(tag: str) -> tuple[str, ...]:
    """The subtags of a BCP 47 tag, in lower case, the language by its shortest code: zh, hant, tw for `zho_Hant_TW`."""
    language, *others = tag.replace("_", "-").lower().split("-")
    return language_code(language), *others


def is_tag(text: str, *, any_name: bool = False) -> bool:
    """Whether this is a language's tag of BCP 47; any_name: or of its form, as OPUS's `ze_zh`, which is no language."""
    if any_name:
        return re.fullmatch(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*", text) is not None
    language = language_range(text)[0]
    return is_language_code(language) or language in ("x", "i")


def covers(wanted: str, tag: str) -> bool:
    """Whether a BCP 47 tag begins with the subtags of another (basic filtering, RFC 4647): `en-GB` with `en`."""
    subtags = language_range(wanted)
    return language_range(tag)[: len(subtags)] == subtags


def script_of(tag: str) -> str:
    """The script that a BCP 47 tag names, as `hant`; of Chinese the region's where it names none; empty for others."""
    language, *others = language_range(tag)
    scripts = [subtag for subtag in others if len(subtag) == 4 and subtag.isalpha()]
    if language == "zh" and not scripts:
        scripts = [_CHINESE_SCRIPTS[subtag] for subtag in others if subtag in _CHINESE_SCRIPTS]
    return scripts[0] if scripts else ""


def file_ending(path: str) -> str:
    """What a file's name ends with, before the ending of what packed it: `en` of `train.en.gz`; empty without one.

    path: a path or a storage URI.
    """
    name = PurePosixPath(path.partition("?")[0] if "://" in path else path)
    return (name.with_suffix("") if name.suffix in _PACKED else name).suffix[1:]


@cache
def _codes() -> dict[str, str]:
    """Every code, with the shortest one of its language."""
    lines = [line.split() for line in _TABLE.read_text(encoding="ascii").splitlines() if not line.startswith("#")]
    shortest = {code: codes[0] for codes in lines if len(codes[0]) == 2 for code in codes}
    return shortest | {code: code for codes in lines if len(codes[0]) == 3 for code in codes}
