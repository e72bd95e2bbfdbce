"""The student's hidden states without padding, against transformers' own forward pass with it."""

from __future__ import annotations

import pytest
import torch

from bertkd_ray.config.sections import StudentConfig
from bertkd_ray.core.padding import packed_rows
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.student.collate import StudentBatch, collate
from bertkd_ray.student.model import build_student, decoder_hidden
from bertkd_ray.training.packed import Packing

NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}


def student(max_positions: int = 64, **options: object):
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "width": 32, "ffn": 48, "heads": 4, **NO_DROPOUT, **options}
    return build_student(StudentConfig.model_validate(sizes), vocab_size=50, max_positions=max_positions, seed=1)


def batch(pad_to: int = 8) -> StudentBatch:
    src = Ragged.from_lists([[5, 6, 7, 8, 9, 10, 11, 12, 13], [20], [30, 31, 32]])
    tgt = Ragged.from_lists([[14, 15], [21, 22, 23, 24, 25, 26, 27, 28, 29, 40], []])
    return collate(src, tgt, pad_to=pad_to)


def padded(model, of: StudentBatch) -> torch.Tensor:
    outputs = model.model(
        input_ids=of.src_ids_NS, attention_mask=of.src_mask_NS, decoder_input_ids=of.decoder_input_ids_NT
    )
    return outputs.last_hidden_state.flatten(0, 1)[of.target_index_P]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("pad_to", [1, 8])
def test_hidden_states_and_gradients_are_those_with_padding(attention, pad_to):
    model, of = student(), batch(pad_to)
    model.set_attn_implementation(attention)
    weights = torch.randn(of.count, 32, generator=torch.Generator().manual_seed(2))
    found = []
    for forward in (padded, decoder_hidden):
        model.zero_grad()
        hidden_PD = forward(model, of)
        (hidden_PD * weights).sum().backward()
        found.append((hidden_PD.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_how_far_sides_are_padded_changes_nothing():
    model = student()
    with torch.no_grad():
        torch.testing.assert_close(decoder_hidden(model, batch(1)), decoder_hidden(model, batch(16)))


def test_sentences_longer_than_the_table_of_positions_get_further_ones():
    tokens = Ragged.from_lists([[5, 6, 7, 8, 9, 10, 11, 12]])
    short, long = student(max_positions=2), student()
    with torch.no_grad():
        expected = decoder_hidden(long, collate(tokens, tokens))
        torch.testing.assert_close(decoder_hidden(short, collate(tokens, tokens)), expected)


def test_in_bf16_the_loss_is_the_same_up_to_its_rounding():
    model, of = student(), batch()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(decoder_hidden(model, of), padded(model, of), rtol=0.05, atol=0.1)


def test_rows_are_laid_out_for_attention_and_back():
    index = torch.tensor([0, 1, 4, 5, 6])  # of two sequences of four positions
    packing = Packing(index, 2, 4, heads=2)
    rows = torch.arange(packing.rows * 12.0).view(packing.rows, 12).requires_grad_()
    parts = packing.padded(rows, 3)
    for number, part in enumerate(parts):
        assert part.shape == (2, 2, 4, 2)
        for row, position in enumerate(index.tolist()):
            sequence, column = divmod(position, 4)
            expected = rows[row, 4 * number : 4 * number + 4].view(2, 2)
            assert part[sequence, :, column].tolist() == expected.tolist()
    back = packing.packed(parts[1])
    assert back[:5].tolist() == rows[:5, 4:8].tolist()
    assert back.shape == (packing.rows, 4)
    assert not back[5:].any()
    back.sum().backward()
    assert rows.grad[:5].tolist() == [[0.0] * 4 + [1.0] * 4 + [0.0] * 4] * 5


def test_rows_stand_for_all_tokens_and_for_padding():
    assert [packed_rows(tokens) for tokens in (1, 31, 32, 33)] == [32, 32, 64, 64]
