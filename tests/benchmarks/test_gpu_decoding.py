"""Variants of the search write what the product's writes, in float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.gpu_decoding import SEARCHES, Search, in_effect, translations
from benchmarks.gpu_setting import TINY, GpuSetting
from bertkd_ray.corpus.tokenizer import EOS_ID


@pytest.fixture(scope="module")
def setting() -> GpuSetting:
    made = GpuSetting(replace(TINY, pairs=20), torch.device("cpu"))
    made.precision = "float32"
    return made


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "as today"])
def test_a_variant_writes_the_same(setting, name):
    model = setting.student(dropout=0.0, attention="eager").eval()
    with torch.no_grad():
        # So that some translations end before their limit.
        model.get_output_embeddings().weight[EOS_ID] *= 1.5
    source = setting.pairs[0].take(np.arange(20))
    with in_effect(Search()):
        expected = translations(setting, model, source)
    with in_effect(SEARCHES[name]):
        computed = translations(setting, model, source)
    assert [best.ids for best, *_ in computed] == [best.ids for best, *_ in expected]
    assert [best.score for best, *_ in computed] == pytest.approx([best.score for best, *_ in expected], rel=1e-4)
    assert any(len(best.ids) + 1 < length for (best, *_), length in zip(expected, source.lengths, strict=True))
