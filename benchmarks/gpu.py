"""Measures extraction, finetuning, distillation and translation on one GPU, in one process, without Ray and MLflow.

python -m benchmarks.gpu                       random weights of the real sizes, at most three minutes
python -m benchmarks.gpu --only distill,check  some of the rows
python -m benchmarks.gpu --device cpu --tiny   the same code in miniature, to see that it works

Rows come in the order of their importance; the JSON is written after each. What a row raises is in it too.
"""

from __future__ import annotations

import time

STARTED = time.monotonic()

# Importing torch takes a part of the time that there is, and is counted.
# ruff: noqa: E402
import argparse
import importlib
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import REAL, TINY, GpuSetting
from benchmarks.gpu_timing import ProductRate, Products, Shape
from benchmarks.machine import ROOT, commit
from benchmarks.options import add_only

DEADLINE, TINY_DEADLINE = 170.0, 60.0
MEASURES = {
    "products": "gpu:products",
    "extract": "gpu_extract:measure",
    "finetune": "gpu_train:finetune",
    "distill": "gpu_train:distill",
    "topk": "gpu_checks:topk",
    "losses": "gpu_checks:losses",
    "translate": "gpu_translate:measure",
    "wait": "gpu_train:data_wait",
}
"""Rows and the functions that measure them, in their order."""


def main(arguments: list[str] | None = None) -> int:
    """Measures what is asked for; 1 when something was raised."""
    options = _options(arguments)
    device = torch.device(options.device)
    results = ResultTable(
        options.output,
        {**commit(), "machine": describe(device), "tiny": options.tiny, "deadline": options.deadline},
        STARTED + options.deadline,
        in_miniature=options.tiny,
    )
    with results.watched():
        setting = GpuSetting(TINY if options.tiny else REAL, device)
        for name in options.only:
            results.run(name, partial(_function(MEASURES[name]), setting, results))
            if device.type == "cuda":
                torch.cuda.empty_cache()
    print(f"\n{results.table()}\n\nJSON: {options.output}; {time.monotonic() - STARTED:.0f} s", flush=True)
    return 1 if results.failed else 0


def products(setting: GpuSetting, results: ResultTable) -> None:
    """What the device can do: one large product."""
    side = setting.sizes.square
    rate, _ = ProductRate(setting.device, training=False, spent=10 * results.product_seconds)(
        Products({Shape(side, side, side): 1})
    )
    results.add("products", f"bf16, {side}³", {"TFLOP/s": rate / 1e12}, flops=rate)


def describe(device: torch.device) -> dict[str, Any]:
    """The device and the libraries."""
    description: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": importlib.import_module("transformers").__version__,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        description |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return description


def _function(name: str) -> Callable[[GpuSetting, ResultTable], None]:
    module, _, function = name.partition(":")
    # The module that was started as a program is not imported again.
    imported: Any = sys.modules[__name__] if module == "gpu" else importlib.import_module(f"benchmarks.{module}")
    return getattr(imported, function)  # type: ignore[no-any-return]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    add_only(parser, MEASURES, "rows")
    parser.add_argument("--device", default="cuda", help="where to measure (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="miniature models, to see that everything works")
    parser.add_argument("--deadline", type=float, help="seconds after which this ends (default: 170; tiny: 60)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.json", help="the JSON")
    options = parser.parse_args(arguments)
    options.deadline = options.deadline or (TINY_DEADLINE if options.tiny else DEADLINE)
    return options


if __name__ == "__main__":
    sys.exit(main())
