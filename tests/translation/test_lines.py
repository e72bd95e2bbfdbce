"""Lines in, lines out: windows as they come, long lines in pieces, empty lines in their place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.moses import to_raw
from bertkd_ray.corpus.text_form import TextForm
from bertkd_ray.corpus.tokenizer import SPECIAL_TOKENS, Vocabulary
from bertkd_ray.translation.lines import LineSettings, LineTranslator, line_windows, sentences, translate_stream

LETTERS = "abcdefgh"
TOKENS = (
    *SPECIAL_TOKENS,
    *(f"▁{c}" for c in LETTERS),
    *(f"##{c}" for c in LETTERS),
    *LETTERS,
    ".",
    "?",
    "▁.",
    "▁'",
    "。",
    "▁。",
)


@dataclass
class Echo:
    """An engine that gives back what it reads, in `seen` too; `lost` is a token that it swallows."""

    lost: int = -1
    seen: list[list[int]] = field(default_factory=list)

    def translate(self, src: Ragged) -> list[list[int]]:
        rows = [src.values[src.offsets[i] : src.offsets[i + 1]].tolist() for i in range(len(src))]
        self.seen += rows
        return [[token for token in row if token != self.lost] for row in rows]


@pytest.fixture
def translator() -> Callable[..., LineTranslator]:
    space = Vocabulary(TOKENS, np.zeros(len(TOKENS), np.int32), np.zeros(len(TOKENS), np.int64), False, ".?。")

    def make(engine: Echo, *, tokenised: bool = False, **settings: object) -> LineTranslator:
        return LineTranslator(engine, space.tokenizer(), LineSettings(**settings), tokenised=tokenised)

    return make


def reads(*chunks: bytes) -> Callable[[int], bytes]:
    """What a source gives, chunk by chunk, and then nothing more."""
    rest = iter(chunks)
    return lambda size: next(rest, b"")


def windows(*chunks: bytes) -> list[list[str]]:
    return list(line_windows(reads(*chunks), "in"))


def test_a_window_is_what_a_read_completes():
    assert windows(b"a\nb\nc", b"d\n", b"e\n\n", b"f") == [["a", "b"], ["cd"], ["e", ""], ["f"]]
    assert windows() == []
    assert windows(b"\n") == [[""]]
    assert windows(b"a", b"b", b"c\n") == [["abc"]]


def test_a_large_read_is_cut_into_windows():
    found = windows(b"x\n" * 2136)
    assert [len(window) for window in found] == [1024, 1024, 88]


def test_line_ends_and_a_byte_order_mark():
    assert windows(b"\xef\xbb\xbfa\r\nb\xe2\x80\xa8c\r\n\xef\xbb\xbf\n") == [["a", "b\u2028c", "\ufeff"]]


def test_a_line_that_is_not_utf8_is_named_after_the_windows_before_it():
    found = line_windows(reads(b"a\n", b"b\n\xc3\xa4\nc\xff\n"), "text.de")
    assert next(found) == ["a"]
    with pytest.raises(UserError, match=r"^text\.de:4: not UTF-8 \(byte 1 of the line, invalid start byte\)"):
        next(found)


def test_a_character_may_lie_across_two_reads():
    assert windows(b"\xc3", b"\xa4\n") == [["ä"]]


def test_a_line_is_there_before_the_next_is_written():
    reader, writer = os.pipe()
    found = line_windows(lambda size: os.read(reader, size), "pipe")
    os.write(writer, b"first\nsec")
    assert next(found) == ["first"]
    os.write(writer, b"ond\n")
    os.close(writer)
    assert next(found) == ["second"]
    os.close(reader)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ('He said: "Go." "Now!" (Yes.) No.', ['He said: "Go."', '"Now!"', "(Yes.)", "No."]),
        ("Am 3. Mai kam J. S. Bach. Er blieb.", ["Am 3. Mai kam J. S. Bach.", "Er blieb."]),
        ("ca. zwei usw. und so fort. Ende", ["ca. zwei usw. und so fort.", "Ende"]),
        ("Wait ... what? Yes.", ["Wait ... what?", "Yes."]),
        ("3.5 a.b x.Y", ["3.5 a.b x.Y"]),
        ("你好。你好吗？「好。」再见。ok", ["你好。", "你好吗？", "「好。」", "再见。", "ok"]),
        ("वह आया। वह गया।", ["वह आया।", "वह गया।"]),
        ("  aa.   Bb. ", ["aa.", "Bb."]),
        ("no end", ["no end"]),
        ("", []),
    ],
)
def test_sentences_by_hand(text, expected):
    assert sentences(text) == expected


def test_a_line_for_a_line_and_empty_lines_in_their_place(translator):
    engine = Echo()
    lines = ["ab c.", "", "  \t ", "  a   b ", "."]
    assert translator(engine).translate(lines) == ["ab c.", "", "", "a b", "."]
    assert [len(row) for row in engine.seen] == [4, 0, 0, 2, 1]


def test_a_line_within_the_limit_is_one_piece(translator):
    engine = Echo()
    assert translator(engine, max_tokens=6).translate(["aa. bb."]) == ["aa. bb."]
    assert [len(row) for row in engine.seen] == [6]


def test_a_long_line_is_cut_at_its_sentences_and_joined_again(translator):
    engine = Echo()
    line = "aa bb. cc? dd"
    assert translator(engine, max_tokens=8).translate([line, "a"]) == [line, "a"]
    # No sentence begins with a lower-case letter, so it is cut between words, in two pieces of at most five tokens.
    assert [len(row) for row in engine.seen] == [5, 5, 1]
    engine = Echo()
    assert translator(engine, max_tokens=8, tgt_lang="zh").translate(["aa bb。cc。dd", "a"]) == ["aa bb。cc。dd", "a"]
    assert [len(row) for row in engine.seen] == [5, 3, 2, 1]


@pytest.mark.parametrize("language", ["zh", "ja", "th"])
def test_tokens_of_a_cut_line_stay_apart_where_the_language_has_no_spaces(translator, language):
    settings = {"max_tokens": 4, "tgt_lang": language, "text": "moses"}
    assert translator(Echo(), **settings).translate(["a b c d e f"]) == ["a b cd e f"]
    assert translator(Echo(), tokenised=True, **settings).translate(["a b c d e f"]) == ["a b c d e f"]


@pytest.mark.parametrize("language", ["zho", "chi", "yue", "jpn", "tha", "bod"])
def test_sentences_of_a_language_without_spaces_are_joined_without_one(translator, language):
    line = "aa bb。cc。dd"
    assert translator(Echo(), max_tokens=8, tgt_lang=language).translate([line]) == [line]


def test_the_form_of_lines_has_the_shortest_codes_of_languages():
    settings = LineSettings(text="moses", src_lang="kor", tgt_lang="eng")
    assert settings.form == TextForm("moses", "ko", "en")
    # An English contraction, and Korean letters, which Moses keeps together.
    assert to_raw(["I don 't know ."], settings.form.text, settings.form.tgt_lang) == ["I don't know."]
    assert to_raw(["나는 학교에 갑니다 ."], "moses", settings.form.src_lang) == ["나는 학교에 갑니다."]


def test_a_sentence_that_is_too_long_is_cut_between_words(translator):
    engine = Echo()
    line = " ".join(["abc"] * 9)
    assert translator(engine, max_tokens=10).translate([line]) == [line]
    # 27 tokens in three pieces of at most 9.
    assert [len(row) for row in engine.seen] == [9, 9, 9]
    engine = Echo()
    assert translator(engine, max_tokens=10).translate(["abcd " * 5]) == ["abcd abcd abcd abcd abcd"]
    assert [len(row) for row in engine.seen] == [8, 4, 8]


def test_a_word_that_is_too_long_is_cut_anywhere(translator):
    engine = Echo()
    translator(engine, max_tokens=3).translate(["a" * 7])
    assert [len(row) for row in engine.seen] == [3, 2, 2]
    engine = Echo()
    assert translator(engine, max_tokens=1).translate(["ab c"]) == ["a b c"]


def test_the_positions_of_the_model_bound_a_piece(translator):
    engine = Echo()
    translator(engine, max_tokens=100, positions=5).translate(["abcdefgh"])
    assert [len(row) for row in engine.seen] == [4, 4]


def test_a_piece_without_a_translation_leaves_no_gap(translator):
    engine = Echo(lost=TOKENS.index("▁b"))
    assert translator(engine, max_tokens=1).translate(["a b c"]) == ["a c"]


def test_moses_text_is_made_and_undone(translator):
    engine = Echo()
    settings = {"text": "moses", "src_lang": "de", "tgt_lang": "en"}
    assert translator(engine, **settings).translate(["ab. C.", ""])[1] == ""
    assert translator(engine, **settings).translate(["ab cd."]) == ["ab cd."]
    # The full stop is a word of its own to the student.
    assert [TOKENS[token] for token in engine.seen[-1]] == ["▁a", "##b", "▁c", "##d", "▁."]


@pytest.mark.parametrize(("text", "line"), [("moses", "a &apos; b ."), ("paper", "a &apos; B .")])
def test_moses_tokens_are_read_and_written_with_their_escapes(translator, text, line):
    engine = Echo()
    assert translator(engine, tokenised=True, text=text).translate([line, ""]) == ["a &apos; b .", ""]
    assert [TOKENS[token] for token in engine.seen[0]] == ["▁a", "▁'", "▁b", "▁."]


def test_a_model_of_raw_text_knows_no_moses_tokens(translator):
    with pytest.raises(UserError, match="--tokenised: this model was trained on raw text"):
        translator(Echo(), tokenised=True, text="raw")


def test_a_stream_is_written_window_by_window(translator):
    log: list[bytes | str] = []

    def source() -> Iterator[list[str]]:
        for window in (["a", ""], ["b c"]):
            log.append("read")
            yield window

    written = translate_stream(translator(Echo()), source(), log.append, lambda: log.append("flushed"))
    assert written == 3
    assert log == ["read", b"a\n\n", "flushed", "read", b"b c\n", "flushed"]


@pytest.mark.parametrize("run", [".", "?", ".?", "!!'", "a.", "。"])
def test_a_run_of_marks_is_searched_in_linear_time(run):
    """Quadratic in its length, this took a minute."""
    text = run * 50_000
    started = time.process_time()
    assert "".join(sentences(text)) == text
    assert time.process_time() - started < 5


def test_dots_end_a_sentence_as_one_does():
    assert sentences("Warte... Gut. Nr. 3. Mai. 5... So.. x! A. B") == [
        "Warte...",
        "Gut.",
        "Nr.",
        "3. Mai.",
        "5...",
        "So.. x!",
        "A. B",
    ]
