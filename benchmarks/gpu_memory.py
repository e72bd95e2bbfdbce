"""What fits into the memory of an L4: the longest pairs, a large vocabulary, and what is said where it does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from benchmarks.gpu_extract import scorer_of
from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import GpuSetting, Sizes
from benchmarks.gpu_train import Distilling, Finetuning, timed
from bertkd_ray.core.devices import synchronise
from bertkd_ray.core.errors import DeviceMemoryError
from bertkd_ray.decoding.seq2seq import translate_ids
from bertkd_ray.student.task import greedy_tokens
from bertkd_ray.training import gradients
from bertkd_ray.training.memory import naming_memory_keys

L4_BYTES = 22 * 2**30
LONGEST = 254
"""Tokens of a side: with three special ones both take 511 of the 512 positions of a BERT."""
LARGE_VOCABULARY, LARGE_IN_MINIATURE = 250_000, 2_000
SPARE_BYTES = 64 * 2**20
"""Beside a student's weights, where its training has to fail: less than its gradients take."""


def measure(setting: GpuSetting, results: ResultTable) -> None:
    """A row for each stage with each kind of pairs, then what a training says that finds no memory."""
    few = replace(setting.sizes, pairs=64, steps=4)
    cases = {
        "longest pairs": GpuSetting(few, setting.device, LONGEST),
        "large vocabulary": GpuSetting(with_large_vocabulary(few), setting.device),
    }
    with limited_memory(setting.device, L4_BYTES):
        for name, case in cases.items():
            for stage, work in STAGES.items():
                results.run(f"memory: {stage}, {name}", partial(_measure, case, results, stage, name, work), 10.0)
                if setting.device.type == "cuda":
                    torch.cuda.empty_cache()
        results.run("memory: what is said", partial(_measure_message, cases["longest pairs"], results), 10.0)


def with_large_vocabulary(sizes: Sizes) -> Sizes:
    """The same models with as many tokens, and a BERT with as many pieces, as multilingual models have them."""
    tokens = LARGE_VOCABULARY if sizes.compiles else LARGE_IN_MINIATURE
    teacher, student = replace(sizes.teacher, vocabulary=tokens), replace(sizes.student, vocabulary=tokens)
    return replace(sizes, teacher=teacher, student=student, pieces=tokens)


@contextmanager
def limited_memory(device: torch.device, most: int) -> Iterator[None]:
    """torch has no more than so many bytes of a GPU within the block; of a CPU it has what there is."""
    if device.type != "cuda":
        yield
        return
    total = torch.cuda.get_device_properties(device).total_memory
    before = torch.cuda.get_per_process_memory_fraction(device)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(before, most / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(before, device)


def _finetune(setting: GpuSetting) -> None:
    budget = setting.sizes.finetune_budgets[0]
    timed(setting, Finetuning(setting.teacher_task(setting.teacher(), budget), budget))


def _distill(setting: GpuSetting) -> None:
    budget = setting.sizes.distill_budgets[0]
    timed(setting, Distilling(setting.student_task(setting.student(), budget), budget))


def _extract(setting: GpuSetting) -> None:
    src, tgt = setting.pairs
    scorer_of(setting, setting.teacher(dropout=0.0), setting.sizes.extract_budgets[0]).score(
        src, tgt, np.arange(len(src))
    )


def _validate(setting: GpuSetting) -> None:
    student = setting.student(dropout=0.0, attention="eager").eval()
    budget = greedy_tokens(setting.device, setting.sizes.student.vocabulary)
    source = setting.pairs[0].take(np.resize(np.arange(setting.sizes.pairs), setting.sizes.sentences[0]))
    translate_ids(
        student,
        source,
        beam=1,
        max_length_factor=0.0,
        max_length_offset=8,
        batch_tokens=budget,
        precision=setting.precision,
    )


STAGES: dict[str, Callable[[GpuSetting], None]] = {
    "finetune": _finetune,
    "distill": _distill,
    "extract": _extract,
    "greedy validation": _validate,
}


def _measure(
    setting: GpuSetting, results: ResultTable, stage: str, name: str, work: Callable[[GpuSetting], None]
) -> None:
    on_gpu = setting.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(setting.device)
    messages: list[str] = []
    started = time.perf_counter()
    with patch.object(gradients, "log", messages.append):
        work(setting)
    synchronise(setting.device)
    rates = {"s": time.perf_counter() - started}
    if on_gpu:
        rates["GiB"] = torch.cuda.max_memory_allocated(setting.device) / 2**30
    details = {"vocabulary": setting.sizes.student.vocabulary, "messages": messages}
    results.add("memory", f"{stage}, {name}", rates, goal=f"< {L4_BYTES / 2**30:.0f} GiB", details=details)


def _measure_message(setting: GpuSetting, results: ResultTable) -> None:
    message = out_of_memory_message(setting)
    passed = message.startswith("student.micro_batches:") and "\n" not in message
    results.add(
        "memory", "what is said", {"lines": message.count("\n") + 1}, details={"passed": passed, "message": message}
    )


def out_of_memory_message(setting: GpuSetting) -> str:
    """What a student's training says in whose memory not even one pair has room; on a CPU torch's error is made up."""
    budget = setting.sizes.distill_budgets[0]
    what = Distilling(setting.student_task(setting.student(), budget), budget)
    if setting.device.type != "cuda":
        what.task.objective = _NoMemory(what.task.objective)
    most = torch.cuda.memory_allocated(setting.device) + SPARE_BYTES if setting.device.type == "cuda" else 0

    @naming_memory_keys("student")
    def train() -> None:
        timed(setting, what)

    try:
        with limited_memory(setting.device, most), patch.object(gradients, "log", lambda message: None):
            train()
    except DeviceMemoryError as error:
        return str(error)
    return "nothing: memory was large enough"


class _NoMemory(nn.Module):
    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: Any) -> Any:
        raise torch.OutOfMemoryError(f"a rehearsal of {batch.padded_tokens} tokens")
