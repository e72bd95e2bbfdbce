"""The left-to-right teacher's input, by hand, against single positions, and that nothing comes from the right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.tokenizer import EOS_ID
from bertkd_ray.teacher.masking import input_lengths
from bertkd_ray.teacher.model import ConditionalMaskedLM, build_teacher
from bertkd_ray.teacher.prefix_lm import prefix_lm_batch
from bertkd_ray.teacher.task import TeacherBatch
from tests.teacher.tiny import SPECIALS, hidden_after, write_bert

BERT_IDS = np.arange(30, dtype=np.int32)
ROWS = [([11, 12], [21, 22, 23]), ([13, 14, 15, 16], [24]), ([17], [25, 26, 27, 28, 29])]


def batch_of(rows: list[tuple[list[int], list[int]]], pad_to: int = 8) -> TeacherBatch:
    src, tgt = (Ragged.from_lists([row[side] for row in rows]) for side in (0, 1))
    return TeacherBatch.of(prefix_lm_batch(src, tgt, BERT_IDS, SPECIALS, pad_to))


def test_a_row_by_hand():
    batch = batch_of([([11, 12], [21, 22])], pad_to=1)
    assert batch.input_ids.tolist() == [[2, 11, 12, 3, 21, 22]]
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1]]
    assert batch.masked_index.tolist() == [3, 4, 5]
    assert batch.labels.tolist() == [21, 22, EOS_ID]
    seen = ["".join(".x"[seen] for seen in row) for row in batch.attention_mask[0].int().tolist()]
    assert seen == ["xxxx..", "xxxx..", "xxxx..", "xxxx..", "xxxxx.", "xxxxxx"]


def test_padding_and_rows_without_tokens():
    batch = batch_of([([11], [21]), ([], [])], pad_to=8)
    assert batch.input_ids.tolist() == [[2, 11, 3, 21, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0, 0]]
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 1, 0, 0, 0, 0], [0] * 8]
    assert batch.masked_index.tolist() == [2, 3, 9]
    assert batch.labels.tolist() == [21, EOS_ID, EOS_ID]
    assert not batch.attention_mask[0, :, 4:].any()
    assert batch.attention_mask[:, :, 0].all()


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ConditionalMaskedLM:
    bert = write_bert(tmp_path_factory.mktemp("bert"))
    return build_teacher(bert, BERT_IDS, TeacherConfig(direction="left_to_right"), attention=request.param).eval()


@torch.no_grad()
def hidden_of(teacher: ConditionalMaskedLM, batch: TeacherBatch) -> torch.Tensor:
    """[M, H], at the positions that predict."""
    return teacher(batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index)


@pytest.mark.parametrize("pad_to", [1, 8])
def test_every_position_is_predicted_from_its_full_left_context_and_nothing_else(
    teacher: ConditionalMaskedLM, pad_to: int
) -> None:
    hidden = hidden_of(teacher, batch_of(ROWS, pad_to)).split([len(tgt) + 1 for _, tgt in ROWS])
    for (src, tgt), of_row in zip(ROWS, hidden, strict=True):
        frame = [SPECIALS.cls, *src, SPECIALS.sep]
        for position in range(len(tgt) + 1):
            expected = hidden_after(teacher, frame, tgt[:position])
            torch.testing.assert_close(of_row[position], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changed", range(5))
def test_no_position_hears_of_its_own_target_or_of_any_to_the_right(teacher: ConditionalMaskedLM, changed: int) -> None:
    """Bit for bit, through all layers; the end of the sentence stays where it is."""
    src, tgt = ROWS[2]
    before = hidden_of(teacher, batch_of([ROWS[0], (src, tgt)]))
    other = [*tgt[:changed], *(token - 10 for token in tgt[changed:])]
    after = hidden_of(teacher, batch_of([ROWS[0], (src, other)]))
    unchanged = len(ROWS[0][1]) + 1 + changed + 1
    assert torch.equal(before[:unchanged], after[:unchanged])
    assert (before[unchanged:] != after[unchanged:]).any(dim=1).all()


def test_the_source_hears_of_no_target(teacher: ConditionalMaskedLM) -> None:
    batch, other = batch_of([ROWS[0]]), batch_of([(ROWS[0][0], [1, 5, 6])])
    frame = torch.arange(len(ROWS[0][0]) + 2)
    before, after = (
        teacher(each.input_ids, each.token_type_ids, each.attention_mask, frame) for each in (batch, other)
    )
    assert torch.equal(before, after)


def test_tokens_a_pair_takes() -> None:
    src, tgt = (np.asarray([len(row[side]) for row in ROWS]) for side in (0, 1))
    assert input_lengths(src, tgt, "left_to_right").tolist() == [7, 7, 8]
    assert [int(row.sum()) for row in batch_of(ROWS).input_ids != SPECIALS.pad] == [7, 7, 8]
