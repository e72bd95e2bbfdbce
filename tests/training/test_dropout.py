from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from bertkd_ray.training.dropout import seeded_dropout

CPU = torch.device("cpu")


def _dropped(seed: int, *shape: int, p: float = 0.3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    with seeded_dropout(seed, CPU):
        return F.dropout(torch.ones(shape, dtype=dtype), p, training=True)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_share_dropped_and_scale_of_the_rest(p, dtype):
    count = 200_000
    out = _dropped(1, count, p=p, dtype=dtype)
    assert out.dtype == dtype
    assert len(out.unique()) == 2
    share = (out == 0).double().mean().item()
    # Five standard deviations of a binomial share.
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / count) ** 0.5)
    assert out.max().item() == pytest.approx(1 / (1 - p), rel=1e-4 if dtype != torch.bfloat16 else 2**-8)


def test_mean_is_kept_in_bf16():
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0)).abs().add(1).bfloat16()
    with seeded_dropout(3, CPU):
        out = F.dropout(x, 0.3, training=True)
    assert out.double().mean().item() == pytest.approx(x.double().mean().item(), rel=5e-3)


def test_seed_decides_alone():
    torch.manual_seed(0)
    first = _dropped(5, 3, 7)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    assert torch.equal(_dropped(5, 3, 7), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(_dropped(6, 3, 7), first)


def test_calls_within_one_seed_differ_and_neighbours_are_independent():
    x = torch.ones(100_000)
    with seeded_dropout(2, CPU):
        a, b = F.dropout(x, 0.5) == 0, F.dropout(x, 0.5) == 0
    for left, right in ((a, b), (a[1:], a[:-1]), (a[4:], a[:-4])):
        assert (left & right).double().mean().item() == pytest.approx(0.25, abs=0.008)


def test_gradient_passes_where_the_value_passed():
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with seeded_dropout(4, CPU):
        out = F.dropout(x, 0.4)
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(grad, out.detach() / x.detach())
    assert 0 < (grad == 0).sum() < grad.numel()


def test_modules_are_reached_and_evaluation_is_left_alone():
    layer = nn.Dropout(0.5)
    x = torch.ones(1000)
    with seeded_dropout(1, CPU):
        assert (layer(x) == 0).any()
        layer.eval()
        assert torch.equal(layer(x), x)
        assert torch.equal(F.dropout(x, 0.0), x)
        assert torch.equal(F.dropout(x, 1.0), torch.zeros(1000))


def test_outside_of_the_block_torch_draws_again():
    _dropped(1, 4)
    x = torch.ones(64)
    torch.manual_seed(3)
    first = F.dropout(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(F.dropout(x, 0.5), first)


def test_transposed_and_empty_inputs():
    x = torch.arange(1.0, 13.0).view(3, 4).t()
    with seeded_dropout(1, CPU):
        out = F.dropout(x, 0.5)
        assert F.dropout(torch.ones(0, 3), 0.5).shape == (0, 3)
    kept = out != 0
    torch.testing.assert_close(out[kept], 2 * x[kept])
