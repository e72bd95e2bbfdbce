"""Subword dropout against a plain implementation of MaxMatch-dropout, its law, and training with it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.core.keyed_random import keyed_uniform
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.segmentation import normalise
from bertkd_ray.corpus.tokenizer import UNK_ID, PieceCounter, build_vocabulary, decode, encode
from bertkd_ray.student.distill import HISTORY
from bertkd_ray.student.subword_dropout import SubwordDropout
from bertkd_ray.training.batch_plan import BatchPlan, RowLengths, StreamPosition, Streams
from bertkd_ray.training.curves import TRAIN_NLL
from tests.corpus.berts import HAND_VOCABULARY, bert_of, count_pieces, count_words, segmenter_of
from tests.helpers.local_project import Project

KEY = "student.subword_dropout"
SEGMENTER = segmenter_of(bert_of([*HAND_VOCABULARY, "ab", "##ab", "##man", "ma", "##ne", "so", "##oft", "##of", "st"]))
LINES = [
    "softly softing man's Männer",
    "我中 mixed 中文 soft-ly",
    "한국어 문장 😀 👩\u200d👩 e\u0301cole x\u0323\u0307",
    "a" * 130 + " abba ü",
    "man",
]


def tokenizer_of(lines: list[str]) -> Tokenizer:
    words = count_words(map(normalise, lines))
    pieces = count_pieces(PieceCounter(SEGMENTER), words)
    return build_vocabulary(pieces, set("".join(words)), SEGMENTER, lowercase=False).tokenizer()


def plain_cut(tokenizer: Tokenizer, line: str, probability: float, *key: int) -> list[int]:
    """MaxMatch-dropout letter by letter and candidate by candidate, over the words that the tokenizer makes."""
    ids = tokenizer.get_vocab()
    cut, place = [], 0
    for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalise(line)):
        mark = "▁" if word.startswith("▁") else ""
        letters = word.removeprefix("▁")
        if any(letter not in "".join(ids) for letter in letters):
            cut, place = [*cut, UNK_ID], place + 1
            continue
        at = 0
        while at < len(letters):
            ends = range(len(letters), at, -1)
            role = mark if at == 0 else "##"
            candidates = [(ids[role + letters[at:end]], end) for end in ends if role + letters[at:end] in ids]
            drawn, left_out = keyed_uniform(*key, place + at)[0], 0
            # One number for all candidates: it is below q with probability q, below q² with probability q², …
            while left_out < len(candidates) - 1 and drawn < probability ** (left_out + 1):
                left_out += 1
            token_id, at = candidates[left_out]
            cut.append(token_id)
        place += len(letters)
    return cut


def cut_of(dropout: SubwordDropout, tokenizer: Tokenizer, lines: list[str], ids: list[int], epoch: int) -> list:
    cut = dropout.segment(encode(tokenizer, lines), np.array(ids), epoch)
    return [cut.row(number).tolist() for number in range(len(cut))]


TEXT = st.text("abmnesoftly'üÄ中한 \u200d😀-", min_size=1, max_size=30).filter(lambda line: normalise(line) != "")


@settings(max_examples=80, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=6), st.sampled_from([0.1, 0.5, 0.9]), st.integers(0, 3))
def test_the_cut_is_that_of_the_plain_implementation(lines: list[str], probability: float, epoch: int) -> None:
    tokenizer = tokenizer_of([*LINES, *lines])
    dropout = SubwordDropout(tokenizer, probability, seed=7, max_tokens=10**6)
    ids = [(number * 7919) << 30 for number in range(len(lines))]
    expected = [plain_cut(tokenizer, line, probability, 7, epoch, i) for line, i in zip(lines, ids, strict=True)]
    assert cut_of(dropout, tokenizer, lines, ids, epoch) == expected
    assert decode(tokenizer, expected) == [normalise(line) for line in lines]


def test_without_any_probability_nothing_changes() -> None:
    tokenizer = tokenizer_of(LINES)
    dropout = SubwordDropout(tokenizer, 0.0, seed=1, max_tokens=10**6)
    expected = [encode(tokenizer, [line]).row(0).tolist() for line in LINES]
    assert cut_of(dropout, tokenizer, LINES, list(range(5)), 0) == expected


def test_candidates_are_left_out_as_often_as_they_should_be() -> None:
    tokenizer = tokenizer_of([*LINES, "softly"])
    ids, rows = tokenizer.get_vocab(), 20_000
    dropout = SubwordDropout(tokenizer, 0.3, seed=5, max_tokens=10**6)
    cut = cut_of(dropout, tokenizer, ["softly"] * rows, list(range(rows)), 2)
    starts = Counter(row[0] for row in cut)
    # Of s-o-f-t-l-y the vocabulary has ▁soft and ▁s; each ##x alone.
    assert starts == {ids["▁soft"]: pytest.approx(0.7 * rows, rel=0.03), ids["▁s"]: pytest.approx(0.3 * rows, rel=0.05)}
    # Epochs, ids and seeds draw anew.
    assert cut != cut_of(dropout, tokenizer, ["softly"] * rows, list(range(rows)), 3)
    assert cut[1:] == cut_of(dropout, tokenizer, ["softly"] * (rows - 1), list(range(1, rows)), 2)
    assert cut != cut_of(
        SubwordDropout(tokenizer, 0.3, seed=6, max_tokens=10**6), tokenizer, ["softly"] * rows, list(range(rows)), 2
    )


def test_unknown_words_stay_unknown() -> None:
    tokenizer = tokenizer_of(["soft man"])
    dropout = SubwordDropout(tokenizer, 0.9, seed=5, max_tokens=100)
    (row,) = cut_of(dropout, tokenizer, ["soft ζζ man"], [3], 0)
    assert row.count(UNK_ID) == 1
    assert row == plain_cut(tokenizer, "soft ζζ man", 0.9, 5, 0, 3)


def test_a_sentence_whose_cut_is_too_long_keeps_the_one_it_had() -> None:
    tokenizer = tokenizer_of(LINES)
    lines = ["soft soft softly", "man"]
    before = [encode(tokenizer, [line]).row(0).tolist() for line in lines]
    limited = SubwordDropout(tokenizer, 0.99, seed=1, max_tokens=6)
    assert cut_of(limited, tokenizer, lines, [1, 2], 0) == [before[0], plain_cut(tokenizer, "man", 0.99, 1, 0, 2)]
    assert len(plain_cut(tokenizer, lines[0], 0.99, 1, 0, 1)) > 6


def table_of(tokenizer: Tokenizer, lines: list[str]) -> pa.Table:
    src = encode(tokenizer, lines)
    return pa.table({"id": np.arange(len(lines)), "src_ids": src.to_arrow(pa.int32()), "tgt": lines})


def test_rows_keep_everything_but_their_sources() -> None:
    tokenizer = tokenizer_of(LINES)
    table = table_of(tokenizer, LINES)
    rows = SubwordDropout(tokenizer, 0.5, seed=1, max_tokens=10**6)(table, 4)
    assert rows.schema == table.schema
    assert rows.drop_columns(["src_ids"]) == table.drop_columns(["src_ids"])
    assert rows["src_ids"] != table["src_ids"]
    assert decode(tokenizer, rows["src_ids"].to_pylist()) == decode(tokenizer, table["src_ids"].to_pylist())


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_keep_their_budget_by_the_cut_of_the_epoch(workers: int) -> None:
    tokenizer = tokenizer_of(LINES)
    texts = [" ".join(["softly", "man", "abba"][: 1 + number % 3]) for number in range(300)]
    whole = table_of(tokenizer, texts)
    dropout = SubwordDropout(tokenizer, 0.6, seed=3, max_tokens=25)

    def read(groups: np.ndarray) -> pa.Table:
        return pa.concat_tables([whole[30 * group : 30 * group + 30] for group in groups.tolist()])

    def lengths(rows: pa.Table) -> RowLengths:
        tokens = Ragged.from_arrow(rows["src_ids"]).lengths
        return RowLengths(tokens, tokens)

    def steps(rank: int, positions: list[StreamPosition] | None, count: int) -> list:
        plan = BatchPlan(np.full(10, 30, np.int64), 2, 3, window_pairs=70)
        streams = Streams(
            plan, positions, budget=40, read=read, lengths=lengths, resample=dropout, rank=rank, workers=workers
        )
        found = [streams.step() for _ in range(count)]
        streams.close()
        return found

    seen = [micro for rank in range(workers) for step in steps(rank, None, 80) for micro in step]
    for micro in seen:
        rows = Ragged.from_arrow(micro.rows["src_ids"])
        assert len(rows) * rows.lengths.max() <= 40
        again = dropout.segment(
            encode(tokenizer, [texts[i] for i in micro.rows["id"].to_pylist()]),
            micro.rows["id"].to_numpy(),
            micro.epoch,
        )
        assert np.array_equal(again.values, rows.values)
    # The same batches by any number of workers, and after a restart.
    batches = {(micro.stream, micro.after): micro.rows for micro in seen}
    alone = [micro for step in steps(0, None, 40) for micro in step] if workers > 1 else []
    resumed = [micro for step in steps(0, [StreamPosition(4, 3), StreamPosition(1, 2)], 10) for micro in step]
    common = [micro for micro in [*alone, *resumed] if (micro.stream, micro.after) in batches]
    assert len(common) >= 10
    assert all(batches[micro.stream, micro.after] == micro.rows for micro in common)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


def curve(student: Artifact) -> list[float]:
    history = json.loads(student.store.read(student.directory, HISTORY))
    return [row[TRAIN_NLL] for row in history["rows"] if TRAIN_NLL in row]


def test_a_student_learns_from_other_cuts(project: Project, tmp_path: Path) -> None:
    plain, at_zero = (project.variant(tmp_path / name, *more) for name, more in [("a", []), ("b", [KEY + "=0"])])
    assert at_zero.control().fingerprint == plain.control().fingerprint
    assert curve(at_zero.control()) == curve(plain.control())
    students = [project.variant(tmp_path / name, KEY + "=0.5", "student.steps=4") for name in ("c", "d")]
    assert students[0].control().fingerprint != plain.control().fingerprint
    assert curve(students[0].control()) == curve(students[1].control())
    assert curve(students[0].control())[:2] != curve(plain.control())[:2]
    # Beside soft labels, which stay those of their targets.
    assert np.isfinite(curve(students[0].distilled())).all()
