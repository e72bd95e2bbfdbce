"""Beam search on a GPU, against `generate` called sentence by sentence in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import GpuSetting
from benchmarks.gpu_timing import kernels, seconds
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.tokenizer import EOS_ID
from bertkd_ray.decoding.batches import Translation
from bertkd_ray.decoding.seq2seq import translate_ids
from bertkd_ray.translation.engines import GPU_BATCH_TOKENS

BEAM = 5
GOAL = "≥ 8 times"


def translations(setting: GpuSetting, model: Any, source: Ragged) -> list[list[Translation]]:
    """By beam search, no longer than the sources: translations of random weights do not end by themselves."""
    return translate_ids(
        model,
        source,
        beam=BEAM,
        max_length_factor=1.0,
        max_length_offset=0,
        batch_tokens=GPU_BATCH_TOKENS,
        precision=setting.precision,
    )


def measure(setting: GpuSetting, results: ResultTable) -> None:
    """A translation of random weights does not end by itself: each is cut at the number of its source tokens."""
    many, few = setting.sizes.sentences
    src = setting.pairs[0]
    ours, theirs = src.take(np.arange(many)), src.take(np.arange(few))
    model = setting.student(dropout=0.0, attention="eager").eval()
    written = [0]

    def search() -> None:
        hypotheses = translations(setting, model, ours)
        written[0] = sum(
            min(len(best[0].ids) + 1, length) for best, length in zip(hypotheses, ours.lengths.tolist(), strict=True)
        )

    spent = min(seconds(search, setting.device, 2))
    rate = written[0] / spent
    words = [0]

    def one_by_one() -> None:
        words[0] = 0
        for index in range(few):
            words[0] += generated(model, theirs.take(np.arange(index, index + 1)), setting.device)

    one_at_a_time = min(seconds(one_by_one, setting.device, 1))
    baseline = words[0] / one_at_a_time
    details = {
        "seconds": spent,
        "sentences": many,
        "output_tokens": written[0],
        "generate": {"seconds": one_at_a_time, "sentences": few, "output_tokens": words[0]},
        "profile": kernels(search, setting.device, spent),
    }
    rates = {"output tokens/s": rate, "by generate": baseline, "times": rate / baseline}
    results.add("translate", f"beam {BEAM}, {setting.precision}", rates, goal=GOAL, details=details)


@torch.no_grad()
def generated(model: torch.nn.Module, src: Ragged, device: torch.device) -> int:
    """Tokens that `generate` writes for one sentence, as many as it has itself."""
    length = int(src.lengths[0])
    ids = torch.tensor([[*src.values.tolist(), EOS_ID]], device=device)
    generate = model.generate
    output = generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        num_beams=BEAM,
        max_new_tokens=length,
        min_new_tokens=length,
        do_sample=False,
        max_length=None,
    )
    return int(output.shape[1]) - 1
