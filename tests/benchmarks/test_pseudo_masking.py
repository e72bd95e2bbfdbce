"""The prefix LM's batches: a row by hand, and that no state knows the token it predicts."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.prefix_lm import prefix_lm_batch
from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.tokenizer import EOS_ID
from bertkd_ray.teacher.masking import CMLMBatch
from bertkd_ray.teacher.model import build_teacher
from bertkd_ray.teacher.task import TeacherBatch
from tests.teacher.tiny import SPECIALS, write_bert

BERT_IDS = np.arange(30, dtype=np.int32)


def batch_of(*rows: tuple[list[int], list[int]], pad_to: int = 8) -> CMLMBatch:
    src, tgt = (Ragged.from_lists([row[side] for row in rows]) for side in (0, 1))
    return prefix_lm_batch(src, tgt, BERT_IDS, SPECIALS, pad_to)


def test_a_row_by_hand():
    batch = batch_of(([11, 12], [21, 22]), pad_to=1)
    assert batch.input_ids.tolist() == [[2, 11, 12, 3, 21, 22]]
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1]]
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert batch.masked_index.tolist() == [3, 4, 5]
    assert batch.labels.tolist() == [21, 22, EOS_ID]
    seen = ["".join(".x"[seen] for seen in row) for row in batch.attention_mask[0].astype(int).tolist()]
    assert seen == ["xxxx..", "xxxx..", "xxxx..", "xxxx..", "xxxxx.", "xxxxxx"]


@torch.no_grad()
def test_a_state_does_not_change_with_what_it_predicts_nor_with_what_follows(tmp_path):
    teacher = build_teacher(write_bert(tmp_path), BERT_IDS, TeacherConfig(direction="left_to_right")).eval()

    def states(tgt: list[int]) -> torch.Tensor:
        batch = TeacherBatch.of(batch_of(([11, 12], tgt), ([13], [23, 24, 25])))
        inputs = batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index, batch.position_ids
        return teacher(*inputs)

    first, second = states([21, 22, 23, 24]), states([21, 22, 27, 28])
    assert torch.equal(first[:3], second[:3])  # of [SEP], 21 and 22; the third predicts what was changed
    assert not torch.equal(first[3], second[3])
    assert torch.equal(first[5:], second[5:])  # of the other pair
