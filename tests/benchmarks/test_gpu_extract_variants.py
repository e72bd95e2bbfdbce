"""Variants of extraction find what the product's scorer finds; in bf16, whose rounding differs from sum to sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks.gpu_extract import scorer_of
from benchmarks.gpu_extract_variants import compile_of, compiled_scorer, fragments, variable_length
from benchmarks.gpu_setting import TINY, GpuSetting
from benchmarks.gpu_varlen import Sequences, attend

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def setting() -> GpuSetting:
    return GpuSetting(replace(TINY, pairs=40, fragment_pairs=12), CPU)


@pytest.mark.parametrize("kind", ["variable length", "variable length, compiled", "compiled"])
def test_a_variant_finds_the_same(setting, kind):
    model = setting.teacher(dropout=0.0)
    fragment = fragments(setting)[0]
    expected = scorer_of(setting, model, 512).score(*fragment)
    exact = scorer_of(setting, model, 512, "float32").score(*fragment)
    compile_part = compile_of(setting) if kind.endswith("compiled") else None
    if kind == "compiled":
        scorer = compiled_scorer(setting, model, 512, compile_of(setting))
    else:
        scorer = variable_length(setting, model, 512, compile_part)
    computed = scorer.score(*fragment)
    # No further from float32 than the product's own bf16, but for a little.
    far = np.abs(expected.logsumexp - exact.logsumexp).max()
    assert np.abs(computed.logsumexp - exact.logsumexp).max() < 1.5 * far + 1e-3
    assert (computed.topk_ids[:, 0] == exact.topk_ids[:, 0]).mean() > 0.9


def test_sequences_attend_to_their_own_keys():
    draw = torch.Generator().manual_seed(1)
    queries, keys = (Sequences(np.array(lengths), torch.from_numpy) for lengths in ([2, 1, 3], [4, 2, 5]))
    query, key, value = (torch.randn(rows, 2, 8, generator=draw) for rows in (6, 11, 11))
    expected = []
    for of_query, of_key in ((slice(0, 2), slice(0, 4)), (slice(2, 3), slice(4, 6)), (slice(3, 6), slice(6, 11))):
        scores = torch.einsum("qhd,khd->hqk", query[of_query], key[of_key]) / 8**0.5
        expected.append(torch.einsum("hqk,khd->qhd", functional.softmax(scores, dim=-1), value[of_key]))
    torch.testing.assert_close(attend(query, key, value, queries, keys), torch.cat(expected))
    assert queries.starts.tolist() == [0, 2, 3, 6]
    assert keys.longest == 5
