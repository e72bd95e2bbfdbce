from __future__ import annotations

import gzip
import json
import re
import sys
import time
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, normalizers, pre_tokenizers

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.bert_tokenizer import CONTINUATION
from bertkd_ray.corpus.moses import unescape_moses
from bertkd_ray.corpus.segmentation import (
    WORD_START,
    Piece,
    Segmenter,
    is_plain,
    isolated_characters,
    lowercased,
    normalise,
)
from tests.corpus.berts import (
    HAND_VOCABULARY,
    bert_of,
    count_words,
    golden_vocabulary,
    pieces_of_words,
    segmenter_of,
    trained_cased_bert,
)
from tests.helpers.shared_files import data_path, golden_path

UNCASED = segmenter_of(bert_of(HAND_VOCABULARY))
CASED = segmenter_of(bert_of(HAND_VOCABULARY, lowercase=False))
PAD, UNK, CLS, SEP, MASK = range(5)
BERT_ID = {piece: number for number, piece in enumerate(HAND_VOCABULARY)}

TRICKY = (
    "aAbBsſßüÜéıİΣς'-<>#@&_▁=≠≯ \t\n\r\x00\x07\x0b\x1c\x85\xa0\xad"
    "\u0301\u0308\u0345\u200b\u200c\u200d\u2028\u3000\ufeff\ufe0f\ufffd中한가かカسل😀👩½ﬁ²①"
)
TEXT = st.one_of(st.text(TRICKY, max_size=40), st.text(max_size=20))


def tokens(segmenter: Segmenter, word: str) -> list[str]:
    return [piece.token for piece in pieces_of_words(segmenter, [word])[0]]


def pieces(segmenter: Segmenter, word: str) -> list[tuple[str, int]]:
    return [(piece.token, piece.bert_id) for piece in pieces_of_words(segmenter, [word])[0]]


# --- normalise ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" \t ", ""),
        ("  a  b ", "a b"),
        ("a\tb\nc\rd\x0be\x0cf\x1cg\x85h\xa0i\u2028j\u3000k", "a b c d e f g h i j k"),
        ("nul\x00bell\x07esc\x1bc1\x9f", "nulbellescc1"),
        ("e\u0301cole", "\xe9cole"),
        ("e\x00\u0301", "\xe9"),  # what removal brings together is composed
        ("A\u030a \u212b", "\xc5 \xc5"),
        ("soft\xadhyphen zwnj\u200c bom\ufeff \ufffd", "soft\xadhyphen zwnj\u200c bom\ufeff \ufffd"),
        ("▁a x▁y", "_a x_y"),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_normalise_lowercases_by_character_and_composes_again() -> None:
    assert normalise("ÄPFEL Straße ΣΟΦΟΣ", lowercase=True) == "äpfel straße σοφοσ"
    assert normalise("J\u030c", lowercase=True) == "\u01f0"  # J with caron has no capital of its own
    assert normalise("İ", lowercase=True) == "i\u0307"


@settings(max_examples=300, deadline=None)
@given(TEXT, st.booleans())
def test_normalise_is_idempotent_and_leaves_single_spaces(text: str, lowercase: bool) -> None:
    normal = normalise(text, lowercase=lowercase)
    assert normalise(normal, lowercase=lowercase) == normal
    assert normal == " ".join(normal.split())
    assert WORD_START not in normal
    assert not any(unicodedata.category(character) == "Cc" for character in normal)


def test_normalise_handles_every_character() -> None:
    characters = [chr(code) for code in range(0x40000) if not 0xD800 <= code < 0xE000]
    spaces = [character for character in characters if character.isspace()]
    controls = [c for c in characters if unicodedata.category(c) == "Cc" and not c.isspace()]
    others = set(characters) - set(spaces) - set(controls)
    assert len(spaces) == 29
    assert {normalise(f"a{character}a") for character in spaces} == {"a a"}
    assert {normalise(f"a{character}a") for character in controls} == {"aa"}
    assert len(normalise(" ".join(f"a{character}a" for character in others)).split(" ")) == len(others)


def test_a_plain_character_is_left_alone_whatever_stands_beside_it() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    plain = [character for character in characters if is_plain(f"a{character}a")]
    assert 140_000 < len(plain) < len(characters)
    for start in range(0, len(plain), 1000):
        line = "a".join(["", *plain[start : start + 1000], ""])
        assert normalise(line) == line
    kept = [character for character in plain if character.lower() == character]
    for start in range(0, len(kept), 1000):
        line = "a".join(["", *kept[start : start + 1000], ""])
        assert lowercased(line) == line == normalise(line, lowercase=True)
    for line in ("", "a b", "中 文.", "e\u0323\u0302"[:1], "Ünï"):
        assert is_plain(line)
    for line in (" ", " a", "a ", "a  b", "a\tb", "a\xa0b", "e\u0301", "\u0323\u0302\u0323", "▁", "a\x00", "a\u200cb"):
        assert not is_plain(line)


@settings(max_examples=1000, deadline=None)
@given(st.one_of(TEXT, st.text("eo\u0301\u0323\u0302\u0338<=ΣσςİIi \u1100\u1161\u11a8가", max_size=12)))
def test_a_plain_line_is_normal(text: str) -> None:
    for line in (text, normalise(text)):
        if is_plain(line):
            assert normalise(line) == line
            assert lowercased(line) == normalise(line, lowercase=True)


def test_count_words() -> None:
    assert count_words(["a b a", "", "b"]) == Counter({"a": 2, "b": 2})


# --- segment --------------------------------------------------------------------------------------------------------


def test_marks_and_ids() -> None:
    assert pieces(UNCASED, "Männer's") == [
        ("▁Män", BERT_ID["man"]),
        ("##ner", BERT_ID["##ner"]),
        ("'", BERT_ID["'"]),
        ("s", BERT_ID["s"]),
    ]
    assert pieces_of_words(UNCASED, ["man"])[0] == [Piece("▁man", BERT_ID["man"])]
    assert pieces_of_words(UNCASED, []) == []
    assert UNCASED.tokenizer.id_to_token(BERT_ID["##ner"]) == "##ner"


def test_pieces_of_one_character_are_merged_with_the_first_id() -> None:
    assert pieces(UNCASED, "한") == [("▁한", BERT_ID["ᄒ"])]
    assert pieces(UNCASED, "-한!") == [("▁-", BERT_ID["-"]), ("한", BERT_ID["ᄒ"]), ("!", BERT_ID["!"])]


def test_uncovered_characters_go_to_the_surface_before_or_at_the_start_to_the_one_after() -> None:
    assert tokens(UNCASED, "soft\xadly") == ["▁soft\xad", "##ly"]
    assert tokens(UNCASED, "\ufeffsoftly\u200d") == ["▁\ufeffsoft", "##ly\u200d"]
    assert tokens(UNCASED, "er\ufffdst") == ["▁er\ufffd", "##st"]


def test_an_uncovered_character_after_punctuation_starts_the_next_word() -> None:
    # The student isolates the apostrophe alone, so the character cannot belong to it.
    assert pieces(UNCASED, "'\u200bs") == [("▁'", BERT_ID["'"]), ("\u200bs", BERT_ID["s"])]
    assert pieces(UNCASED, "'\u200b") == [("▁'", BERT_ID["'"]), ("\u200b", UNK)]


def test_a_word_no_piece_covers_is_cut_into_unknown_characters() -> None:
    assert pieces(UNCASED, "\u200d\u0301") == [("▁\u200d", UNK), ("##\u0301", UNK)]


def test_an_unknown_word_is_cut_into_characters_with_their_own_pieces() -> None:
    assert pieces(UNCASED, "sab") == [("▁s", BERT_ID["s"]), ("##a", BERT_ID["##a"]), ("##b", BERT_ID["##b"])]
    assert pieces(UNCASED, "xÄb-xb") == [
        ("▁x", UNK),
        ("##Ä", BERT_ID["##a"]),
        ("##b", BERT_ID["##b"]),
        ("-", BERT_ID["-"]),
        ("x", UNK),
        ("##b", BERT_ID["##b"]),
    ]
    assert pieces(CASED, "Ab") == [("▁A", UNK), ("##b", BERT_ID["##b"])]


def test_words_longer_than_100_letters_continue_in_bare_chunks() -> None:
    cut = pieces(UNCASED, "a" * 250)
    assert [token for token, _ in cut] == ["▁a", *["##a"] * 99, "a", *["##a"] * 99, "a", *["##a"] * 49]
    assert {bert_id for _, bert_id in cut} == {BERT_ID["a"], BERT_ID["##a"]}
    assert len(tokens(UNCASED, "a" * 10_000)) == 10_000


def test_a_piece_across_a_chunk_border_is_cut_there() -> None:
    # BERT strips the 98 marks and sees "manner", while the student's chunk of 100 letters ends after them.
    assert pieces(UNCASED, "ma" + "\u0345" * 98 + "nner") == [
        ("▁ma" + "\u0345" * 98, BERT_ID["man"]),
        ("n", BERT_ID["man"]),
        ("##ner", BERT_ID["##ner"]),
    ]


def test_normalisation_that_makes_punctuation_is_followed() -> None:
    assert pieces(UNCASED, "a≠b") == [("▁a", BERT_ID["a"]), ("≠", BERT_ID["="]), ("b", BERT_ID["b"])]
    assert UNCASED.is_isolated("≠")
    assert not CASED.is_isolated("≠")


def test_cjk_is_isolated_only_where_bert_isolates_it() -> None:
    without = segmenter_of(bert_of(HAND_VOCABULARY, chinese=False))
    assert pieces(UNCASED, "a中b") == [("▁a", BERT_ID["a"]), ("中", BERT_ID["中"]), ("b", BERT_ID["b"])]
    assert pieces(without, "a中b") == [("▁a", BERT_ID["a"]), ("##中", UNK), ("##b", BERT_ID["##b"])]


def test_special_tokens_and_marks_in_the_text_are_text() -> None:
    assert tokens(UNCASED, "[MASK]")[0] == "▁["
    assert tokens(UNCASED, "<unk>") == ["▁<", "unk", ">"]
    assert tokens(UNCASED, "##ing")[:2] == ["▁#", "#"]


def test_character_id() -> None:
    assert UNCASED.character_id("Ü", continues=False) == BERT_ID["u"]
    assert UNCASED.character_id("Ü", continues=True) == BERT_ID["##u"]
    assert UNCASED.character_id("한", continues=False) == BERT_ID["ᄒ"]
    assert UNCASED.character_id("中", continues=False) == BERT_ID["中"]
    assert UNCASED.character_id("x", continues=False) == UNK
    assert UNCASED.character_id("\u0301", continues=False) == UNK


@settings(max_examples=300, deadline=None)
@given(TEXT, st.sampled_from([UNCASED, CASED]))
def test_surfaces_partition_the_word_and_start_with_the_one_word_start(text: str, segmenter: Segmenter) -> None:
    words = normalise(text).split()
    for word, cut in zip(words, pieces_of_words(segmenter, words), strict=True):
        assert [piece.token.startswith(WORD_START) for piece in cut] == [True] + [False] * (len(cut) - 1)
        surfaces = [piece.token.removeprefix(WORD_START).removeprefix(CONTINUATION) for piece in cut]
        if "#" not in word:  # a surface of "#" is not a mark, but two in a row would look like one
            assert "".join(surfaces) == word
        assert all(surfaces)


@settings(max_examples=300, deadline=None)
@given(TEXT, st.sampled_from([UNCASED, CASED]))
def test_segmentation_is_local_to_words(text: str, segmenter: Segmenter) -> None:
    line = normalise(text)
    bert = segmenter.tokenizer
    by_word = [piece for word in line.split() for piece in bert.encode(word, add_special_tokens=False).ids]
    assert bert.encode(line, add_special_tokens=False).ids == by_word


def test_isolated_characters_are_those_of_berts_pre_tokenizer() -> None:
    cased = re.compile(f"[{isolated_characters(bert_of(HAND_VOCABULARY, lowercase=False, chinese=False))}]")
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    for code in [*range(0x20, 0x250), *range(0x2000, 0x2100), *range(0x3000, 0x3100), *range(0xFE00, 0xFF80)]:
        character = chr(code)
        if unicodedata.category(character)[0] in "CZ":
            continue
        isolated = len(pre_tokenizer.pre_tokenize_str(f"a{character}a")) == 3
        assert (cased.fullmatch(character) is not None) == isolated, hex(code)


def test_a_normaliser_that_leaves_nothing_is_refused() -> None:
    bert = bert_of(HAND_VOCABULARY)
    bert.normalizer = normalizers.Replace(Regex("."), "")
    with pytest.raises(UserError, match=r"^teacher\.model: the normaliser of its tokenizer leaves no punctuation; "):
        isolated_characters(bert)


def segmented_one_by_one(segmenter: Segmenter, words: list[str]) -> list[list[tuple[str, int]]]:
    """The plain way: each word a text of its own, whose pieces may cover anything."""
    return [segmenter._merged_pieces(word) for word in words]


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT, max_size=5), st.sampled_from([UNCASED, CASED]))
def test_many_words_are_cut_as_one_by_one(texts: list[str], segmenter: Segmenter) -> None:
    words = [word for text in texts for word in ["man", *normalise(text).split(), "Männer's"]]
    assert list(segmenter.segment(words)) == segmented_one_by_one(segmenter, words)


# --- the original's segmentation -------------------------------------------------------------------------------------

MIRRORED_HYPHEN = {"@-@": "-"}
ON_PURPOSE = {
    "the text of <unk>, UNK or a special token is text, not a token": r"<unk>|UNK|\[(?:UNK|MASK|SEP|CLS|PAD)\]",
    "entities in the middle of a word are undone too": r"(?<=\S)&(?:amp|apos|quot|lt|gt|#124|#91|#93);",
    "the parts of a decomposed syllable are one surface": r"[\uac00-\ud7a3]",
    "a word of more than 100 letters is cut into characters, and into chunks of 100": r"\S{101}",
    "U+FFFD, which BERT removes, is kept": r"\ufffd",
}
"""Where a line may be cut otherwise than by the original, as a regular expression, by the reason."""


def mirrored(segmenter: Segmenter, raw: str) -> list[str]:
    """The original's notation: BERT's piece strings, `@@` before each that does not start a whitespace word."""
    cut = pieces_of_words(segmenter, normalise(unescape_moses(raw)).split())
    return [
        ("" if piece.token.startswith(WORD_START) else "@@") + segmenter.tokenizer.id_to_token(piece.bert_id)
        for word in cut
        for piece in word
    ]


def bert_words(segmenter: Segmenter, raw: str) -> list[list[str]]:
    """As `mirrored`, by BERT's words (split at white space and punctuation)."""
    words: list[list[str]] = []
    for word in pieces_of_words(segmenter, normalise(unescape_moses(raw)).split()):
        for piece in word:
            string = segmenter.tokenizer.id_to_token(piece.bert_id)
            if piece.token.startswith(CONTINUATION):
                words[-1].append("@@" + string)
            else:
                words.append([string if piece.token.startswith(WORD_START) else "@@" + string])
    return words


def recorded_words(recorded: list[str]) -> list[list[str]]:
    words: list[list[str]] = []
    for token in recorded:
        if token.startswith("@@##"):
            words[-1].append(token)
        else:
            words.append([MIRRORED_HYPHEN.get(token, token)])
    return words


@pytest.mark.golden
@pytest.mark.parametrize("lowercase", [True, False])
def test_segmentation_is_the_originals(lowercase: bool) -> None:
    segmenter = segmenter_of(bert_of(golden_vocabulary(), lowercase=lowercase))
    purpose = re.compile("|".join(ON_PURPOSE.values()))
    equal = with_unknown = purposeful = 0
    for line in golden_path("tokenize.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["do_lower_case"] != lowercase or "error" in record:
            continue
        recorded = [MIRRORED_HYPHEN.get(token, token) for token in record["tokens"]]
        if mirrored(segmenter, record["raw"]) == recorded:
            equal += 1
            continue
        if purpose.search(record["raw"]):
            purposeful += 1
            continue
        # What is left differs only where the original has one [UNK] for a word that here is cut into characters.
        ours, theirs = bert_words(segmenter, record["raw"]), recorded_words(record["tokens"])
        assert len(ours) == len(theirs), record
        differing = [(our, their) for our, their in zip(ours, theirs, strict=True) if our != their]
        assert all(their in (["[UNK]"], ["@@[UNK]"]) for _, their in differing), record
        with_unknown += 1
    assert equal > with_unknown + purposeful


PURPOSEFUL_EXAMPLES = [
    ("two UNK UNK together", ["two", "un", "@@##k", "un", "@@##k", "together"]),
    ("x [MASK] y", ["x", "[", "@@mask", "@@]", "y"]),
    ("<unk>", ["<", "@@un", "@@##k", "@@>"]),
    ("r&amp;d", ["r", "@@&", "@@d"]),
    ("n&apos;t", ["n", "@@'", "@@t"]),
    ("한국어", ["ᄒ", "@@##ᄀ", "@@##ᄋ"]),
    ("and \ufffd repl", ["and", "[UNK]", "rep", "@@##l"]),
]


@pytest.mark.golden
@pytest.mark.parametrize(("raw", "expected"), PURPOSEFUL_EXAMPLES)
def test_what_differs_from_the_original_on_purpose(raw: str, expected: list[str]) -> None:
    assert mirrored(segmenter_of(bert_of(golden_vocabulary())), raw) == expected


# --- real text -------------------------------------------------------------------------------------------------------


def read_gzip(name: str) -> list[str]:
    with gzip.open(data_path(name), "rt", encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n") for line in file]


@pytest.mark.parametrize("name", ["multi30k/val.de.gz", "iwslt14/train_sample.en.gz"])
@pytest.mark.parametrize("kind", ["uncased", "no_chinese", "cased_unknown", "cased_trained"])
def test_segmentation_of_real_lines_is_local_to_words(name: str, kind: str) -> None:
    lines = [normalise(line) for line in read_gzip(name)]
    tokenizer = {
        "uncased": lambda: bert_of(golden_vocabulary()),
        "no_chinese": lambda: bert_of(golden_vocabulary(), chinese=False),
        "cased_unknown": lambda: bert_of(golden_vocabulary(), lowercase=False),
        "cased_trained": lambda: trained_cased_bert(lines, 800),
    }[kind]()
    words = sorted({word for line in lines for word in line.split()})
    segmenter = segmenter_of(tokenizer)
    assert list(segmenter.segment(words)) == segmented_one_by_one(segmenter, words)
    ids = {
        word: encoding.ids
        for word, encoding in zip(words, tokenizer.encode_batch(words, add_special_tokens=False), strict=True)
    }
    for line, encoding in zip(lines, tokenizer.encode_batch(lines, add_special_tokens=False), strict=True):
        assert encoding.ids == [bert_id for word in line.split() for bert_id in ids[word]]


@pytest.mark.parametrize("text", [".", "ab.", "中", "a", "한", "\u200d"])
def test_a_long_word_is_cut_in_linear_time(text: str) -> None:
    """Quadratic in the number of pieces, this took 50 seconds."""
    word = text * 40_000
    started = time.process_time()
    (found,) = UNCASED.segment([word])
    assert "".join(token.removeprefix(WORD_START).removeprefix(CONTINUATION) for token, _ in found) == word
    assert time.process_time() - started < 15


@pytest.mark.parametrize(
    ("text", "plain", "turkish"),
    [("IŞIK İzmir", "işik i\u0307zmir", "ışık izmir"), ("I\u0307", "i\u0307", "i"), ("Iı İi", "iı i\u0307i", "ıı ii")],
)
def test_turkish_has_two_letters_i(text: str, plain: str, turkish: str) -> None:
    assert normalise(text, lowercase=True) == plain
    assert normalise(text, lowercase=True, dotted_i=True) == turkish
    assert normalise(turkish, lowercase=True, dotted_i=True) == turkish == normalise(turkish, lowercase=True)
