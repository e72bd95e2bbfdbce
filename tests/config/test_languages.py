"""Codes of languages: every one by its shortest, and what is none."""

import pytest

from bertkd_ray.config.languages import CHINESE, UNSPACED, file_ending, is_language_code, language_code

CODES = {
    "de": ["de", "deu", "ger", "DE", "de-AT", "deu_Latn"],
    "zh": ["zh", "zho", "chi", "cmn", "zh-TW", "zho_Hans", "zho_TW"],
    "ja": ["jpn", "jpn_Jpan"],
    "ko": ["kor", "kor_Hang"],
    "en": ["eng"],
    "fr": ["fra", "fre"],
    "ar": ["ara", "arb"],
    "lv": ["lav", "lvs"],
    "no": ["nor"],
    "nb": ["nob"],
    "yue": ["yue", "yue_Hant"],
    "nds": ["nds"],
    "iw": ["iw"],
    "xx": ["xx"],
}


@pytest.mark.parametrize(("code", "language"), [(code, name) for code, names in CODES.items() for name in names])
def test_a_language_by_its_shortest_code(code, language):
    assert language_code(language) == code


@pytest.mark.parametrize("code", ["de", "deu", "ger", "zho", "yue", "lzh", "nds", "no", "sh", "iw", "qaa", "qtz"])
def test_codes_of_languages(code):
    assert is_language_code(code)


@pytest.mark.parametrize("code", ["", "xx", "qua1", "DE", "German", "zho_Hans", "zh-TW", "egn", "qzz", "d", "#", "#A"])
def test_what_is_no_code_of_a_language(code):
    assert not is_language_code(code)


def test_what_is_known_of_a_language_stands_under_its_shortest_code():
    assert {language_code(code) for code in UNSPACED} == UNSPACED
    assert all(is_language_code(code) for code in UNSPACED)
    assert CHINESE <= UNSPACED


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("train.en.gz", "en"),
        ("s3://bucket/train.de.zst?endpoint_override=host:9000", "de"),
        ("why?not/train.tsv", "tsv"),
        ("train", ""),
    ],
)
def test_the_ending_of_a_file(path, ending):
    assert file_ending(path) == ending
