"""Masks and teacher inputs, by hand and against the original's recorded features."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.teacher.masking import (
    BertSpecials,
    CMLMBatch,
    cmlm_batch,
    expand_passes,
    random_masks,
    with_eos,
)
from tests.helpers.shared_files import golden_path

SPECIALS = BertSpecials(pad=0, cls=101, sep=102, mask=103)
BERT_IDS = np.asarray([0, 100, 101, 102, 1004, 1005, 1006, 1007], np.int32)


def masks_of(ids: list[int], lengths: list[int], **options: Any) -> list[np.ndarray]:
    defaults: dict[str, Any] = {"seed": 1, "epoch": 0, "probability": 0.15}
    flat = random_masks(np.asarray(ids), np.asarray(lengths), **{**defaults, **options})
    return np.split(flat, np.cumsum(lengths)[:-1])


def test_random_mask_depends_on_seed_epoch_and_id_alone() -> None:
    together = masks_of([7, 8, 9], [20, 30, 25])
    assert np.array_equal(masks_of([9, 7], [25, 20])[0], together[2])
    assert np.array_equal(masks_of([9, 7], [25, 20])[1], together[0])
    for changed in ({"seed": 2}, {"epoch": 1}):
        assert not np.array_equal(masks_of([8], [30], **changed)[0], together[1])
    assert not np.array_equal(masks_of([10], [30])[0], together[1])


def test_every_row_has_a_mask_and_the_distribution_is_the_redrawn_one() -> None:
    """A clean redraw gives P(position masked) = p / (1 - (1 - p)^n), the same at every position."""
    rows, length, probability = 40_000, 3, 0.15
    mask = random_masks(np.arange(rows), np.full(rows, length), seed=3, epoch=0, probability=probability)
    mask = mask.reshape(rows, length)
    assert mask.any(axis=1).all()
    expected = probability / (1 - (1 - probability) ** length)  # 0.3887
    assert mask.mean(axis=0) == pytest.approx([expected] * length, abs=0.01)  # four standard errors


def test_long_rows_are_masked_at_the_given_rate() -> None:
    mask = random_masks(np.arange(2_000), np.full(2_000, 100), seed=0, epoch=5, probability=0.15)
    assert mask.mean() == pytest.approx(0.15, abs=0.0035)


def test_probability_one_masks_everything_and_no_rows_give_no_mask() -> None:
    assert random_masks(np.arange(3), np.asarray([1, 2, 3]), seed=0, epoch=0, probability=1.0).all()
    assert random_masks(np.arange(0), np.arange(0), seed=0, epoch=0, probability=0.15).shape == (0,)


@pytest.mark.parametrize("probability", [0.0, -0.1, 1.1, float("nan")])
def test_impossible_probability_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="probability must be in"):
        random_masks(np.arange(1), np.asarray([5]), seed=0, epoch=0, probability=probability)


def test_row_without_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one position"):
        random_masks(np.arange(2), np.asarray([5, 0]), seed=0, epoch=0, probability=0.5)


def strided_masks(length: int, passes: int = 7) -> np.ndarray:
    """bool[min(passes, length), length]: the masks of one row."""
    row_of_pass, mask = expand_passes(np.asarray([length]), passes)
    assert not row_of_pass.any()
    return mask.reshape(-1, length)


def test_strided_masks_by_hand() -> None:
    assert strided_masks(2, 7).tolist() == [[True, False], [False, True]]
    assert strided_masks(5, 2).astype(int).tolist() == [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]]
    assert strided_masks(9).shape == (7, 9)


@given(lengths=st.lists(st.integers(1, 30), max_size=8), passes=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_passes_of_many_rows_are_those_of_each(lengths: list[int], passes: int) -> None:
    row_of_pass, mask = expand_passes(np.asarray(lengths, np.int64), passes)
    single = [strided_masks(length, passes) for length in lengths]
    assert row_of_pass.tolist() == [row for row, masks in enumerate(single) for _ in masks]
    assert mask.tolist() == [bit for masks in single for bit in masks.reshape(-1).tolist()]
    for masks in single:
        assert len(masks) == min(passes, masks.shape[1])
        for number, masked in enumerate(masks):
            assert np.flatnonzero(masked).tolist() == list(range(number, len(masked), passes))


def test_with_eos_by_hand() -> None:
    assert with_eos(Ragged.from_lists([[4, 5], [], [6]])).tolist() == [4, 5, 3, 3, 6, 3]


def test_batch_by_hand() -> None:
    src = Ragged.from_lists([[4], [5, 6]])
    tgt = Ragged.from_lists([[7, 4], [6]])
    batch = cmlm_batch(src, tgt, np.asarray([False, True, True, True, False]), BERT_IDS, SPECIALS, pad_to=4)
    assert batch.input_ids.tolist() == [
        [101, 1004, 102, 1007, 103, 103, 0, 0],
        [101, 1005, 1006, 102, 103, 102, 0, 0],
    ]
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]
    assert batch.attention_mask.sum(axis=1).tolist() == [6, 6]
    assert batch.masked_index.tolist() == [4, 5, 12]
    assert batch.labels.tolist() == [4, 3, 6]
    arrays = vars(batch).values()
    assert [array.dtype for array in arrays] == [np.int64, np.int64, np.bool_, np.int64, np.int64]


def test_empty_sides_and_empty_batches() -> None:
    empty = Ragged.from_lists([[]])
    batch = cmlm_batch(empty, empty, np.asarray([True]), BERT_IDS, SPECIALS)
    assert batch.input_ids.tolist() == [[101, 102, 103, 0, 0, 0, 0, 0]]
    assert batch.labels.tolist() == [3]
    nothing = Ragged.from_lists([])
    assert cmlm_batch(nothing, nothing, np.zeros(0, np.bool_), BERT_IDS, SPECIALS).input_ids.shape == (0, 0)


@given(
    lengths=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    pad_to=st.sampled_from([1, 8, 16]),
)
@settings(max_examples=60, deadline=None)
def test_batch_against_a_plain_loop(lengths: list[tuple[int, int]], seed: int, pad_to: int) -> None:
    rng = np.random.default_rng(seed)
    sources = [rng.integers(4, 8, s).tolist() for s, _ in lengths]
    targets = [rng.integers(4, 8, t).tolist() for _, t in lengths]
    masks = [rng.random(t + 1) < 0.4 for _, t in lengths]
    batch = cmlm_batch(
        Ragged.from_lists(sources), Ragged.from_lists(targets), np.concatenate(masks), BERT_IDS, SPECIALS, pad_to
    )
    width = batch.input_ids.shape[1]
    assert width % pad_to == 0
    assert width - pad_to < max(s + t + 3 for s, t in lengths) <= width
    index, labels = [], []
    for row, (source, target, mask) in enumerate(zip(sources, targets, masks, strict=True)):
        places = [101, *BERT_IDS[source].tolist(), 102, *BERT_IDS[target].tolist(), 102]
        first = len(source) + 2
        for position in np.flatnonzero(mask).tolist():
            places[first + position] = 103
            index.append(row * width + first + position)
            labels.append([*target, 3][position])
        assert batch.input_ids[row].tolist() == places + [0] * (width - len(places))
        assert batch.attention_mask[row].tolist() == [place < len(places) for place in range(width)]
        assert batch.token_type_ids[row].tolist() == [first <= place < len(places) for place in range(width)]
    assert batch.masked_index.tolist() == index
    assert batch.labels.tolist() == labels


class OriginalTokens:
    """The original's vocabulary: labels by its ids, BERT inputs by its conversion, also for tokens outside of it."""

    def __init__(self) -> None:
        content = json.loads(golden_path("vocab.json").read_text())
        self.bert = {
            line: index for index, line in enumerate(golden_path("bert_uncased_vocab.txt").read_text().split("\n"))
        }
        self.size = content["vocab_size"]
        self.ids = {entry["token"]: entry["id"] for entry in content["vocab"]}
        known = [entry["input_bert_id"] for entry in content["vocab"]]
        self.bert_ids = [0 if bert_id is None else bert_id for bert_id in known]

    def encode(self, tokens: list[str]) -> list[int]:
        """Ids of the tokens; a token outside the vocabulary gets an id past its end that keeps its BERT id."""
        return [self._id(token) for token in tokens]

    def labels(self, batch: CMLMBatch) -> np.ndarray:
        """The labels as the original counts them: a token outside its vocabulary is `<unk>`, id 0."""
        return np.where(batch.labels < self.size, batch.labels, 0)

    def _id(self, token: str) -> int:
        if token not in self.ids:
            self.ids[token] = len(self.bert_ids)
            self.bert_ids.append(self.bert[token.replace("@@", "")])
        return self.ids[token]


def truncated(src: list[str], tgt: list[str], limit: int) -> tuple[list[str], list[str]]:
    """The original's truncation: the longer side loses its last token, the target on a tie."""
    src, tgt = list(src), list(tgt)
    while len(src) + len(tgt) > limit - 3:
        (src if len(src) > len(tgt) else tgt).pop()
    return src, tgt


def features(vocabulary: OriginalTokens, record: dict[str, Any], drawn: list[int]) -> dict[str, list[int]]:
    """Our batch of one pair in the original's form."""
    src, tgt = truncated(record["src"], record["tgt"], record["max_seq_length"])
    mask = np.zeros(len(tgt) + 1, np.bool_)
    mask[drawn] = True
    rows = Ragged.from_lists([vocabulary.encode(src)]), Ragged.from_lists([vocabulary.encode(tgt)])
    batch = cmlm_batch(*rows, mask, np.asarray(vocabulary.bert_ids, np.int32), SPECIALS)
    labels = np.full(batch.input_ids.shape[1], -1)
    labels[batch.masked_index] = vocabulary.labels(batch)
    return {
        "input_ids": batch.input_ids[0].tolist(),
        "segment_ids": batch.token_type_ids[0].tolist(),
        "input_mask": batch.attention_mask[0].astype(int).tolist(),
        "lm_label_ids": labels.tolist(),
    }


def golden_features() -> list[dict[str, Any]]:
    return [json.loads(line) for line in golden_path("cmlm_features.jsonl").read_text().splitlines()]


@pytest.mark.golden
def test_features_are_the_originals() -> None:
    """Every case but the redrawn ones. Over-long pairs never reach us, so the test truncates them itself."""
    vocabulary = OriginalTokens()
    records = [record for record in golden_features() if not record["case"].startswith("retry_")]
    assert records
    for record in records:
        ours = features(vocabulary, record, record["masked_positions_per_pass"][0])
        assert ours == {name: record[name] for name in ours}, record["id"]


@pytest.mark.golden
def test_redrawn_features_are_those_of_a_clean_draw() -> None:
    """The original leaves one `[SEP]` per failed draw in the row and looks labels up among BERT's pieces.

    We draw again from the start: the row is what a `random` case with the last draw's positions would be, that is, the
    original's without its stray `[SEP]`s (a drawn position past the end stands for one of those, and is left out here).
    """
    vocabulary = OriginalTokens()
    records = [record for record in golden_features() if record["case"].startswith("retry_")]
    assert records
    for record in records:
        failed = len(record["masked_positions_per_pass"]) - 1
        drawn = record["masked_positions_per_pass"][-1]
        length = len(record["tgt"])
        eos = length + failed
        clean = [position for position in drawn if position < length] + [length] * (eos in drawn)
        ours = features(vocabulary, record, clean)
        first = len(record["src"]) + 2
        original = record["input_ids"][: first + eos + 1]
        without_stray = original[: first + length] + original[first + eos :]
        assert [token for token in ours["input_ids"] if token] == without_stray
        kept = [label for label in ours["lm_label_ids"] if label != -1]
        assert kept == [vocabulary.encode(record["tgt"])[position] if position < length else 3 for position in clean]


@pytest.mark.golden
def test_strided_masks_are_the_originals() -> None:
    vocabulary = OriginalTokens()
    records = json.loads(golden_path("strided_masks.json").read_text())
    for record in records:
        length, passes = record["tgt_len"] + 1, record["num_samples"]
        row_of_pass, mask = expand_passes(np.asarray([length]), passes)
        assert mask.reshape(-1, length).astype(int).tolist() == record["target_masks"]
        assert len(row_of_pass) == record["n_rows"]
        src = Ragged.from_lists([vocabulary.encode(record["src"])]).take(row_of_pass)
        tgt = Ragged.from_lists([vocabulary.encode(record["tgt"])]).take(row_of_pass)
        batch = cmlm_batch(src, tgt, mask, np.asarray(vocabulary.bert_ids, np.int32), SPECIALS, pad_to=1)
        assert batch.input_ids.tolist() == record["input_ids"]
        assert batch.token_type_ids.tolist() == record["token_type_ids"]
