from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from bertkd_ray.decoding.attention import shared_keys_attention

HEADS, WIDTH, KEYS = 3, 8, 6
SCALING = WIDTH**-0.5


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def padded_mask(sentences: int) -> Tensor:
    """The last keys of every second sentence are padding."""
    mask = torch.ones(sentences, 1, 1, KEYS, dtype=torch.bool)
    mask[::2, ..., -2:] = False
    return mask


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_the_beams_of_a_sentence_attend_as_if_each_had_the_keys_of_its_own(beams: int, masked: bool) -> None:
    query = drawn(4 * beams, 1, HEADS, WIDTH, seed=1).transpose(1, 2)  # as the projection of a row leaves it
    key, value = drawn(4, HEADS, KEYS, WIDTH, seed=2), drawn(4, HEADS, KEYS, WIDTH, seed=3)
    mask = padded_mask(4) if masked else None
    found, weights = shared_keys_attention(nn.Identity(), query, key, value, mask, SCALING)
    repeated = mask.repeat_interleave(beams, 0) if mask is not None else None
    expected = scaled_dot_product_attention(
        query, key.repeat_interleave(beams, 0), value.repeat_interleave(beams, 0), repeated
    )
    assert found.shape == (4 * beams, 1, HEADS, WIDTH)
    torch.testing.assert_close(found, expected.transpose(1, 2))
    assert weights is None


def test_with_as_many_rows_as_keys_it_is_plain_attention() -> None:
    query = drawn(4, 5, HEADS, WIDTH, seed=1).transpose(1, 2)
    key, value = drawn(4, HEADS, KEYS, WIDTH, seed=2), drawn(4, HEADS, KEYS, WIDTH, seed=3)
    found, _ = shared_keys_attention(nn.Identity(), query, key, value, padded_mask(4), SCALING)
    torch.testing.assert_close(found, scaled_dot_product_attention(query, key, value, padded_mask(4)).transpose(1, 2))


def test_padding_changes_nothing() -> None:
    query = drawn(4, 1, HEADS, WIDTH, seed=1).transpose(1, 2)
    key, value = drawn(2, HEADS, KEYS, WIDTH, seed=2), drawn(2, HEADS, KEYS, WIDTH, seed=3)
    mask = padded_mask(2)
    expected, _ = shared_keys_attention(nn.Identity(), query, key, value, mask, SCALING)
    key[:1, :, -2:], value[:1, :, -2:] = 1e4, 1e4
    found, _ = shared_keys_attention(nn.Identity(), query, key, value, mask, SCALING)
    torch.testing.assert_close(found, expected)
