from __future__ import annotations

import pytest
import torch

from bertkd_ray.softlabels.gpu_topk import grouped_topk, logsumexp_of


@pytest.mark.parametrize(("columns", "k"), [(1000, 8), (1024, 7), (1023, 16), (130, 8), (50, 50), (2560, 1)])
def test_the_k_best_are_those_of_the_plain_selection(columns, k):
    scores = torch.randn(40, columns, generator=torch.Generator().manual_seed(columns))
    values, indices = grouped_topk(scores, k)
    expected = scores.topk(k)
    assert torch.equal(values, expected.values)
    assert torch.equal(indices, expected.indices)


def test_the_best_may_all_stand_in_one_group_or_in_what_is_left_over():
    scores = torch.zeros(2, 1000) - torch.arange(1000.0)
    scores[1, 990:] = torch.arange(10.0) + 1
    values, indices = grouped_topk(scores, 8, group=64)
    assert indices[0].tolist() == list(range(8))
    assert indices[1].tolist() == list(range(999, 991, -1))
    assert values[1].tolist() == [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]


def test_tied_scores_are_found_as_often_as_they_are_asked_for():
    scores = torch.randint(0, 3, (30, 1000), generator=torch.Generator().manual_seed(1)).bfloat16()
    values, indices = grouped_topk(scores, 16, group=32)
    assert torch.equal(values, scores.topk(16).values)
    assert torch.equal(scores.gather(1, indices), values)
    assert all(len(set(row)) == 16 for row in indices.tolist())


def test_more_than_there_are():
    with pytest.raises(ValueError, match="9 of 8 scores"):
        grouped_topk(torch.zeros(1, 8), 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logsumexp_is_that_of_the_same_numbers_in_float64(dtype):
    scores = (10 * torch.randn(20, 5000, generator=torch.Generator().manual_seed(2))).to(dtype)
    assert torch.allclose(logsumexp_of(scores).double(), scores.double().logsumexp(dim=1), rtol=0, atol=2e-5)
