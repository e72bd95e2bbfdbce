"""The last layer at masked positions alone gives what the whole layer gives there, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from bertkd_ray.teacher.last_layer import masked_positions, slots_of
from tests.teacher.tiny import tiny_config

ROWS, LENGTH = 3, 6
MASKED = torch.tensor([3, 4, 8, 12, 13, 17])
REAL = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()


def layer(attention: str = "eager", **changes: float) -> BertLayer:
    config: BertConfig = tiny_config(attn_implementation=attention, **changes)
    config._attn_implementation = attention
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return BertLayer(config)


def hidden(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(ROWS, LENGTH, 16, generator=torch.Generator().manual_seed(1)).to(dtype)


def test_slots_by_hand() -> None:
    row, slot, column = slots_of(MASKED, ROWS, LENGTH)
    assert row.tolist() == [0, 0, 1, 2, 2, 2]
    assert slot.tolist() == [0, 1, 0, 0, 1, 2]
    assert column.tolist() == [[3, 4, 0], [2, 0, 0], [0, 1, 5]]


def masks() -> dict[str, torch.Tensor | None]:
    """What transformers makes for eager and for fused attention, and a mask of its own for every query."""
    added = torch.where(REAL, 0.0, -1e9).double()[:, None, None]
    causal = torch.where(torch.ones(LENGTH, LENGTH).tril().bool() & REAL[:, None], 0.0, -1e9).double()[:, None]
    return {"none": None, "one row": added, "numbers": added.expand(-1, 1, LENGTH, -1), "queries": causal}


@pytest.mark.parametrize("name", masks())
def test_is_the_whole_layer_at_these_positions(name: str) -> None:
    whole, mask = layer().double().eval(), masks()[name]
    expected = whole(hidden(), mask).flatten(0, 1)[MASKED]
    # The weights of attention are float32 here, as they are under autocast.
    torch.testing.assert_close(masked_positions(whole, hidden(), mask, MASKED), expected, rtol=1e-6, atol=1e-6)


def test_a_mask_of_truth_values_is_that_of_fused_attention() -> None:
    whole = layer("sdpa").double().eval()
    mask = REAL[:, None, None].expand(-1, 1, LENGTH, -1)
    expected = whole(hidden(), mask).flatten(0, 1)[MASKED]
    torch.testing.assert_close(masked_positions(whole, hidden(), mask, MASKED), expected, rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_the_whole_layer() -> None:
    whole, mask = layer().eval(), masks()["one row"]
    assert mask is not None
    found = []
    for run in (
        lambda inputs: whole(inputs, mask.float()).flatten(0, 1)[MASKED],
        lambda inputs: masked_positions(whole, inputs, mask.float(), MASKED),
    ):
        inputs = hidden(torch.float32).requires_grad_()
        whole.zero_grad()
        run(inputs).square().sum().backward()
        assert inputs.grad is not None
        found.append([inputs.grad, *(parameter.grad.clone() for parameter in whole.parameters())])
    for expected, gradient in zip(*found, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


def test_dropout_of_the_layer_is_drawn_in_training_alone() -> None:
    changing = layer(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    inputs = hidden(torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = (masked_positions(changing.train(), inputs, None, MASKED) for _ in range(2))
    assert not torch.equal(first, second)
    changing.eval()
    once, again = (masked_positions(changing, inputs, None, MASKED) for _ in range(2))
    assert torch.equal(once, again)


def test_no_masked_position_is_no_hidden_state() -> None:
    nothing = torch.zeros(0, dtype=torch.long)
    assert masked_positions(layer().eval(), hidden(torch.float32), None, nothing).shape == (0, 16)
