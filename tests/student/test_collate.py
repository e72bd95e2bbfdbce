from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.softlabels.shards import SoftLabels
from bertkd_ray.student.collate import collate

PAD, BOS, EOS = 0, 2, 3
TOKENS = st.lists(st.integers(4, 99), min_size=0, max_size=19)


def _soft(positions: int, k: int) -> SoftLabels:
    cells = np.arange(positions * k).reshape(positions, k)
    logsumexp = np.arange(positions, dtype=np.float32) + 0.5
    return SoftLabels(cells.astype(np.uint16), -cells.astype(np.float16), logsumexp, np.asarray([0, positions]))


def test_collate_by_hand():
    src = Ragged.from_lists([[11, 12, 13], [14]])
    tgt = Ragged.from_lists([[21], [22, 23]])
    batch = collate(src, tgt, _soft(5, 3), pad_to=4)
    assert batch.src_ids_NS.tolist() == [[11, 12, 13, EOS], [14, EOS, PAD, PAD]]
    assert batch.src_mask_NS.tolist() == [[True, True, True, True], [True, True, False, False]]
    assert batch.decoder_input_ids_NT.tolist() == [[BOS, 21, PAD, PAD], [BOS, 22, 23, PAD]]
    assert batch.target_index_P.tolist() == [0, 1, 4, 5, 6]
    assert batch.targets_P.tolist() == [21, EOS, 22, 23, EOS]
    assert batch.topk_ids_Pk.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14]]
    assert batch.topk_logits_Pk[1].tolist() == [-3.0, -4.0, -5.0]
    assert batch.logsumexp_P.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert (batch.count, batch.padded_tokens) == (5, 16)


def test_types_are_what_the_model_and_the_loss_take():
    batch = collate(Ragged.from_lists([[5]]), Ragged.from_lists([[6]]), _soft(2, 2))
    assert batch.src_ids_NS.dtype == batch.decoder_input_ids_NT.dtype == torch.int64
    assert batch.target_index_P.dtype == batch.targets_P.dtype == batch.topk_ids_Pk.dtype == torch.int64
    assert batch.topk_logits_Pk.dtype == batch.logsumexp_P.dtype == torch.float32
    assert batch.src_mask_NS.dtype == torch.bool
    assert batch.src_ids_NS.shape == batch.decoder_input_ids_NT.shape == (1, 8)


def test_first_k_columns_only():
    src = tgt = Ragged.from_lists([[5, 6]])
    assert collate(src, tgt, _soft(3, 4), topk=2).topk_ids_Pk.tolist() == [[0, 1], [4, 5], [8, 9]]
    assert collate(src, tgt, _soft(3, 4), topk=2).topk_logits_Pk.shape == (3, 2)


def test_without_soft_labels_and_on_another_device():
    batch = collate(Ragged.from_lists([[5]]), Ragged.from_lists([[6]]))
    assert batch.topk_ids_Pk is None
    moved = batch.to("meta")
    assert moved.src_ids_NS.device.type == "meta"
    assert moved.logsumexp_P is None


def test_rows_that_do_not_belong_together_are_refused():
    one, two = Ragged.from_lists([[5]]), Ragged.from_lists([[5], [6]])
    with pytest.raises(ValueError, match="1 source rows but 2 target rows"):
        collate(one, two)
    with pytest.raises(ValueError, match="for 2 positions"):
        collate(one, one, _soft(3, 4))
    with pytest.raises(ValueError, match="topk 5"):
        collate(one, one, _soft(2, 4), topk=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=9), st.sampled_from([1, 8]))
def test_collate_equals_padding_row_by_row(pairs, pad_to):
    src, tgt = [list(column) for column in zip(*pairs, strict=True)]
    batch = collate(Ragged.from_lists(src), Ragged.from_lists(tgt), pad_to=pad_to)
    for row, tokens in enumerate(src):
        ids, mask = batch.src_ids_NS[row].tolist(), batch.src_mask_NS[row].tolist()
        assert ids == [*tokens, EOS] + [PAD] * (len(ids) - len(tokens) - 1)
        assert mask == [i <= len(tokens) for i in range(len(ids))]
    for row, tokens in enumerate(tgt):
        ids = batch.decoder_input_ids_NT[row].tolist()
        assert ids == [BOS, *tokens] + [PAD] * (len(ids) - len(tokens) - 1)
    for ids, longest in ((batch.src_ids_NS, src), (batch.decoder_input_ids_NT, tgt)):
        width, needed = ids.shape[1], max(map(len, longest)) + 1
        assert width % pad_to == 0
        assert needed <= width < needed + pad_to
    assert batch.targets_P.tolist() == [token for tokens in tgt for token in [*tokens, EOS]]
    # What stands at a target's position of the decoder's input is the token before it.
    before = batch.decoder_input_ids_NT.flatten()[batch.target_index_P].tolist()
    assert before == [token for tokens in tgt for token in [BOS, *tokens]]
