"""The teacher's hidden states without padding, against transformers' own forward pass with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertkd_ray.core.ragged import Ragged, flat_positions
from bertkd_ray.teacher.masking import CMLMBatch, cmlm_batch, input_lengths, random_masks
from bertkd_ray.teacher.model import ConditionalMaskedLM
from bertkd_ray.teacher.prefix_lm import prefix_lm_batch
from tests.teacher.tiny import SPECIALS, tiny_config

SRC = Ragged.from_lists([[5, 6, 7, 8, 9, 10, 11, 12, 13], [20], [14, 15, 16]])
TGT = Ragged.from_lists([[17, 18], [21, 22, 23, 24, 25, 26, 27, 28, 29, 30], []])
BERT_IDS = np.arange(35, dtype=np.int32) + 5
DIRECTIONS = ["both", "left_to_right"]


def teacher(attention: str) -> ConditionalMaskedLM:
    config = tiny_config(target_vocab_size=len(BERT_IDS), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return ConditionalMaskedLM._from_config(config, attn_implementation=attention)


def batch(direction: str, pad_to: int = 8) -> tuple[CMLMBatch, torch.Tensor]:
    """The batch, and the positions of its tokens."""
    if direction == "both":
        mask = random_masks(np.arange(3), TGT.lengths + 1, seed=1, epoch=0, probability=0.4)
        of = cmlm_batch(SRC, TGT, mask, BERT_IDS, SPECIALS, pad_to)
    else:
        of = prefix_lm_batch(SRC, TGT, BERT_IDS, SPECIALS, pad_to)
    lengths = input_lengths(SRC.lengths, TGT.lengths, direction)
    return of, torch.from_numpy(flat_positions(np.arange(3) * of.input_ids.shape[1], lengths))


def packed(model: ConditionalMaskedLM, of: CMLMBatch, index: torch.Tensor) -> torch.Tensor:
    inputs = tuple(map(torch.from_numpy, (of.input_ids, of.token_type_ids, of.masked_index)))
    return model.packed(inputs, torch.from_numpy(of.attention_mask), index, of.most)


def padded(model: ConditionalMaskedLM, of: CMLMBatch, _: torch.Tensor) -> torch.Tensor:
    """All layers of transformers' BERT over the padded batch, its mask given as numbers to add."""
    seen = torch.from_numpy(of.attention_mask)
    seen = seen[:, None] if seen.dim() == 3 else seen[:, None, None].expand(-1, 1, seen.shape[1], -1)
    mask = torch.where(seen, 0.0, -1e9).to(model.dtype)
    ids, types = torch.from_numpy(of.input_ids), torch.from_numpy(of.token_type_ids)
    hidden = model.bert(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state
    return model.transform(hidden.flatten(0, 1)[torch.from_numpy(of.masked_index)])


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-6)])
@pytest.mark.parametrize("pad_to", [1, 8])
def test_hidden_states_and_gradients_are_those_with_padding(direction, attention, dtype, tolerance, pad_to):
    model, (of, index) = teacher(attention).to(dtype), batch(direction, pad_to)
    weights = torch.randn(len(of.labels), 16, generator=torch.Generator().manual_seed(2)).to(dtype)
    found = []
    for forward in (packed, padded):
        model.zero_grad()
        hidden_MH = forward(model, of, index)
        (hidden_MH * weights).sum().backward()
        found.append((hidden_MH.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    assert len(found[0][1]) == len(found[1][1]) > 20
    # The weights of attention are float32 in transformers' eager one, whatever the dtype.
    torch.testing.assert_close(*found, rtol=10 * tolerance, atol=10 * tolerance)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_in_bf16_they_are_the_same_up_to_its_rounding(direction, attention):
    model, (of, index) = teacher(attention), batch(direction)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(packed(model, of, index), padded(model, of, index), rtol=0.05, atol=0.1)


def test_a_batch_without_padding_needs_no_mask():
    model = teacher("eager")
    mask = np.ones(4, np.bool_)
    one = cmlm_batch(Ragged.from_lists([[5, 6]]), Ragged.from_lists([[7, 8, 9]]), mask, BERT_IDS, SPECIALS, 1)
    index = torch.arange(one.input_ids.size)
    inputs = tuple(map(torch.from_numpy, (one.input_ids, one.token_type_ids, one.masked_index)))
    with torch.no_grad():
        torch.testing.assert_close(model.packed(inputs, None, index, one.most), padded(model, one, index))
