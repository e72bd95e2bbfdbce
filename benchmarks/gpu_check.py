"""Ten minutes on one GPU: what no CPU can tell of this project, the most important first.

python -m benchmarks.gpu_check                      everything, on the GPU that torch sees first
python -m benchmarks.gpu_check --only waits,demo    some of the blocks
python -m benchmarks.gpu_check --rehearse           the same code in miniature on a CPU, to see that it works

The JSON is written after every row. What a block raises is in it, and so is what is left out, with the reason: what a
machine lacks, and what no longer fits into the time.
"""

from __future__ import annotations

import time

STARTED = time.monotonic()

# Importing torch takes a part of the time that there is, and is counted.
# ruff: noqa: E402
import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import (
    checkpoint,
    gpu_decoding,
    gpu_demo,
    gpu_extract_variants,
    gpu_memory,
    gpu_sharing,
    gpu_variants,
    gpu_waits,
)
from benchmarks.gpu import describe
from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import REAL, TINY, GpuSetting
from benchmarks.machine import ROOT, commit
from benchmarks.options import add_only
from bertkd_ray.execution.device import cuda_problem

MINUTES = 10.0
CHECKPOINT_PARAMETERS, PARAMETERS_IN_MINIATURE = 209_000_000, 1_000_000
"""Of multilingual BERT as a teacher, with all of its embedding."""


class Block(NamedTuple):
    """What is measured together, and the seconds without which it does not begin."""

    measure: Callable[[GpuSetting, ResultTable], None]
    needs: float


def save_time(setting: GpuSetting, results: ResultTable) -> None:
    """What a checkpoint of a training of multilingual BERT costs: the wait for the copy, and the writing beside it."""
    parameters = CHECKPOINT_PARAMETERS if setting.sizes.compiles else PARAMETERS_IN_MINIATURE
    figures = checkpoint.measure(parameters, 2, str(setting.storage / "checkpoints"), setting.device)
    rates = {"s waiting": figures["copied_seconds"], "s writing": figures["written_seconds"]}
    results.add("checkpoint", f"{parameters:,} parameters", rates, details=figures)


def compiled_variants(setting: GpuSetting, results: ResultTable) -> None:
    """What takes most of its time to compile."""
    for measure in (gpu_variants.finetune, gpu_variants.distill, gpu_extract_variants.measure):
        measure(setting, results, compiles=True)


BLOCKS = {
    "waits": Block(gpu_waits.measure, 20.0),
    "demo": Block(gpu_demo.measure, 60.0),
    "ray": Block(gpu_demo.measure_ray, 60.0),
    "sharing": Block(gpu_sharing.measure, 40.0),
    "memory": Block(gpu_memory.measure, 30.0),
    "checkpoint": Block(save_time, 30.0),
    "finetune": Block(gpu_variants.finetune, 20.0),
    "distill": Block(gpu_variants.distill, 20.0),
    "extract": Block(gpu_extract_variants.measure, 20.0),
    "translate": Block(gpu_decoding.measure, 10.0),
    "compiled": Block(compiled_variants, 60.0),
}
"""In the order of their importance."""


def main(arguments: list[str] | None = None) -> int:
    """Measures what is asked for: 0, or 1 when something was raised or a check did not pass, or 2 without a GPU."""
    options = _options(arguments)
    if not options.rehearse and (problem := cuda_problem()):
        print(f"benchmarks.gpu_check: torch cannot use a GPU here ({problem}); --rehearse needs none", file=sys.stderr)
        return 2
    device = torch.device("cpu") if options.rehearse else torch.device("cuda", torch.cuda.current_device())
    deadline = 60 * options.minutes
    described = {**commit(), "machine": describe(device), "rehearsed": options.rehearse, "deadline": deadline}
    results = ResultTable(options.output, described, STARTED + deadline, in_miniature=options.rehearse)
    with results.watched():
        setting = GpuSetting(TINY if options.rehearse else REAL, device)
        for name in options.only:
            block = BLOCKS[name]
            results.run(name, partial(block.measure, setting, results), block.needs)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    print(f"\n{results.table()}\n\nJSON: {options.output}; {time.monotonic() - STARTED:.0f} s", flush=True)
    return 1 if results.failed or results.not_passed else 0


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: give a number of minutes above 0")
    return minutes


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__.partition("\n")[0])
    add_only(parser, BLOCKS, "blocks")
    parser.add_argument("--rehearse", action="store_true", help="in miniature on a CPU, to see that everything works")
    parser.add_argument("--minutes", type=_minutes, default=MINUTES, help="that all may take (default: 10)")
    parser.add_argument(
        "--output",
        type=Path,
        help="the JSON (default: benchmarks/results/gpu-check.json, of a rehearsal below artifacts)",
    )
    options = parser.parse_args(arguments)
    directory = ROOT / "artifacts" / "benchmarks" if options.rehearse else ROOT / "benchmarks" / "results"
    options.output = options.output or directory / "gpu-check.json"
    return options


if __name__ == "__main__":
    sys.exit(main())
