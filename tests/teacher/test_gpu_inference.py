"""The GPU's forward pass, on a CPU: the same operations in other kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertConfig

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.teacher.gpu_inference import GpuEncoder
from bertkd_ray.teacher.masking import BertSpecials, cmlm_batch
from bertkd_ray.teacher.model import ConditionalMaskedLM
from bertkd_ray.teacher.prefix_lm import prefix_lm_batch

VOCABULARY = 60


@pytest.fixture(scope="module")
def model() -> ConditionalMaskedLM:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    config.target_vocab_size, config.direction = VOCABULARY, "both"
    torch.manual_seed(1)
    made = ConditionalMaskedLM._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def inputs(lengths: list[tuple[int, int]]) -> tuple[list[torch.Tensor], int]:
    sides = [
        Ragged.from_lists([[4 + row + i for i in range(pair[side])] for row, pair in enumerate(lengths)])
        for side in (0, 1)
    ]
    masks = [np.arange(tgt + 1) % 3 == row % 2 for row, (_, tgt) in enumerate(lengths)]
    batch = cmlm_batch(*sides, np.concatenate(masks), np.arange(VOCABULARY), BertSpecials(0, 1, 2, 3))
    arrays = batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index
    return [torch.from_numpy(array) for array in arrays], max(int(mask.sum()) for mask in masks)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("tells_most", [True, False])
def test_hidden_states_are_those_of_the_model(model, tells_most):
    given, most = inputs([(5, 9), (9, 3), (2, 2), (8, 8)])
    with torch.no_grad():
        expected = model(*given)
        with torch.autocast("cpu", torch.bfloat16):
            autocast = error(model(*given), expected)
    found = error(GpuEncoder(model)(*given, most=most if tells_most else None), expected)
    assert found < 2 * autocast < 5e-2


def test_a_batch_without_padding_needs_no_mask(model):
    given, most = inputs([(5, 8), (8, 5)])
    assert bool(given[2].all())
    encoder = GpuEncoder(model)
    expected = encoder(*given, most=most)
    given[2] = None
    assert error(encoder(*given, most=most), expected) < 1e-2


def test_padding_changes_nothing(model):
    given, most = inputs([(5, 8), (3, 3)])
    alone, _ = inputs([(3, 3)])
    encoder = GpuEncoder(model)
    # The second row's masks are those of odd rows.
    masks = given[3] >= given[0].shape[1]
    alone[0], alone[1], alone[2] = (tensor[1:, : alone[0].shape[1]] for tensor in given[:3])
    alone[3] = given[3][masks] - given[0].shape[1]
    assert error(encoder(*given, most=most)[masks], encoder(*alone)) < 1e-2


def test_all_positions_in_one_pass(model):
    src, tgt = (Ragged.from_lists([[4 + i for i in range(n)] for n in lengths]) for lengths in ([5, 9, 2], [9, 3, 12]))
    batch = prefix_lm_batch(src, tgt, np.arange(VOCABULARY), BertSpecials(0, 1, 2, 3))
    given = [torch.from_numpy(array) for name, array in vars(batch).items() if name != "labels" and array is not None]
    with torch.no_grad():
        expected = model(*given)
        with torch.autocast("cpu", torch.bfloat16):
            autocast = error(model(*given), expected)
    assert error(GpuEncoder(model)(*given, 13), expected) < 2 * autocast < 5e-2
