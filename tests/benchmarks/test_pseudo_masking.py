"""The layout with queries: a row by hand, and that no query knows its own target or what follows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.pseudo_masking import QueriesBatch, QueriesLoss, pseudo_masked_batch
from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.tokenizer import EOS_ID
from bertkd_ray.teacher.model import ConditionalMaskedLM, build_teacher
from tests.teacher.tiny import SPECIALS, write_bert

BERT_IDS = np.arange(30, dtype=np.int32)
ROWS = [([11, 12], [21, 22, 23]), ([13, 14, 15, 16], [24]), ([17], [25, 26, 27, 28, 29])]


def batch_of(rows: list[tuple[list[int], list[int]]], pad_to: int = 8) -> QueriesBatch:
    src, tgt = (Ragged.from_lists([row[side] for row in rows]) for side in (0, 1))
    return pseudo_masked_batch(src, tgt, BERT_IDS, SPECIALS, pad_to)


def test_a_row_by_hand():
    batch = batch_of([([11, 12], [21, 22])], pad_to=1)
    assert batch.input_ids.tolist() == [[2, 11, 12, 3, 21, 22, 4, 4, 4]]
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 1]]
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 4, 5, 6]]
    assert batch.masked_index.tolist() == [6, 7, 8]
    assert batch.labels.tolist() == [21, 22, EOS_ID]
    assert batch.most == 3
    seen = ["".join(".x"[seen] for seen in row) for row in batch.attention_mask[0].int().tolist()]
    assert seen == [
        "xxxx.....",
        "xxxx.....",
        "xxxx.....",
        "xxxx.....",
        "xxxxx....",
        "xxxxxx...",
        "xxxx..x..",
        "xxxxx..x.",
        "xxxxxx..x",
    ]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> ConditionalMaskedLM:
    bert = write_bert(tmp_path_factory.mktemp("bert"))
    return build_teacher(bert, BERT_IDS, TeacherConfig(direction="left_to_right")).eval()


@torch.no_grad()
def loss_after(teacher: ConditionalMaskedLM, src: list[int], left: list[int], label: int) -> float:
    """Of a single mask after the target before it, whose tokens see no later one: the plain form of a query."""
    ids = torch.tensor([[SPECIALS.cls, *src, SPECIALS.sep, *left, SPECIALS.mask]])
    length, prefix = ids.shape[1], len(src) + 2
    sees = torch.ones(length, length).tril().bool()
    sees[:, :prefix] = True
    types = (torch.arange(length) >= prefix).long()[None]
    hidden = teacher(ids, types, sees[None], torch.tensor([length - 1]))
    return -float(teacher.logits(hidden).log_softmax(-1)[0, label])


@torch.no_grad()
def test_the_loss_is_that_of_single_masks_after_their_left_context(teacher: ConditionalMaskedLM) -> None:
    found, (correct,) = QueriesLoss(teacher)(batch_of(ROWS))
    expected = [
        loss_after(teacher, src, tgt[:position], label)
        for src, tgt in ROWS
        for position, label in enumerate([*tgt, EOS_ID])
    ]
    assert float(found) == pytest.approx(sum(expected), rel=1e-5)
    assert 0 <= int(correct) <= len(expected)


@torch.no_grad()
def test_no_query_hears_of_its_own_target_or_of_any_to_the_right(teacher: ConditionalMaskedLM) -> None:
    def hidden_of(tgt: list[int]) -> torch.Tensor:
        batch = batch_of([ROWS[0], (ROWS[2][0], tgt)])
        hidden: torch.Tensor = teacher(batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index)
        return hidden

    before, after = hidden_of([25, 26, 27, 28, 29]), hidden_of([25, 26, 17, 18, 19])
    assert torch.equal(before[:7], after[:7])
    assert (before[7:] != after[7:]).any(dim=1).all()
