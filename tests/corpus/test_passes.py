"""The passes' short cuts against the plain ways: the same text, the same counts, whatever the lines hold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkd_ray.config.corpus import CorpusConfig
from bertkd_ray.corpus import passes
from bertkd_ray.corpus.chunks import Chunk
from bertkd_ray.corpus.cleaning import count_odd_lines
from bertkd_ray.corpus.moses import unescape_moses
from bertkd_ray.corpus.segmentation import normalise
from bertkd_ray.corpus.statistics import PrepareStats
from bertkd_ray.corpus.tokenizer import PieceCounter, pieces_of
from tests.corpus.berts import count_words, pieces_of_words
from tests.corpus.test_segmentation import TEXT, UNCASED

# The first is in NFC until its entity is undone.
ODD = [
    "a &lt;\u0338 b",
    "e\u0301 &amp; x",
    "plain",
    "Ein Satz.",
    "ÄÖ",
    " a  b",
    "x\x07y",
    "@-@ &amp;lt;",
    "ΟΔΟΣ ΣΑΣ",
    "İ",
]


def settings_of(text: str, lowercase: bool) -> CorpusConfig:
    files = {"src": "a", "tgt": "b"}
    corpus = dict.fromkeys(("train", "valid", "test"), files)
    tree = {**corpus, "text": text, "lowercase": lowercase}
    return CorpusConfig.model_validate(tree)


@pytest.mark.parametrize("text", ["raw", "moses"])
@pytest.mark.parametrize("lowercase", [False, True])
@settings(max_examples=100, deadline=None)
@given(lines=st.lists(st.one_of(TEXT, st.sampled_from(ODD)), min_size=1, max_size=12))
def test_a_chunk_is_normalised_and_counted_as_line_by_line(text: str, lowercase: bool, lines: list[str]) -> None:
    src, tgt = [f"x{line}" for line in [*lines, *ODD]], [f"y {line}" for line in [*ODD, *lines]]
    raw = pa.table([src, tgt], schema=pa.schema([("src", pa.string()), ("tgt", pa.string())]))
    stats = PrepareStats()
    chunk = Chunk(0, "train", 7, len(raw))
    ((split, table),) = passes._cleaned(raw, chunk, settings_of(text, lowercase), stats)
    assert split == "train"
    assert table["id"].to_pylist() == list(range(7, 7 + len(raw)))
    for side, given_lines in (("src", src), ("tgt", tgt)):
        plain = [unescape_moses(line) for line in given_lines] if text == "moses" else given_lines
        assert table[side].to_pylist() == [normalise(line, lowercase=lowercase) for line in plain]
    odd = count_odd_lines([*src, *tgt])
    assert {name: stats.counts["train"][name] for name in odd} == odd


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, st.integers(1, 3)), min_size=1, max_size=6))
def test_pieces_and_characters_are_those_of_every_line_and_copy(weighted: list[tuple[str, str, int]]) -> None:
    src, tgt = ([normalise(row[side]) for row in weighted] for side in (0, 1))
    times = np.array([row[2] for row in weighted], np.int64)
    table = pa.table([np.arange(len(src)), src, tgt], schema=passes.TEXT_SCHEMA)
    stats = PrepareStats()
    # In two chunks, as of a text that was read in parts.
    passes._count_text(PieceCounter(UNCASED), pa.concat_tables([table[:1], table[1:]]), times, stats)
    words = count_words(line for row in range(len(src)) for line in (src[row], tgt[row]) for _ in range(times[row]))
    expected = [piece for word, count in words.items() for piece in pieces_of_words(UNCASED, [word])[0] * count]
    found = pieces_of(stats.pieces.table())
    assert found == {piece: expected.count(piece) for piece in expected}
    assert stats.characters == set("".join(words))
