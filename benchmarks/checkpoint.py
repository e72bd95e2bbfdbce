"""What a checkpoint costs a training here: the wait for its copy, and its writing beside the training.

    python -m benchmarks.checkpoint --millions 148

On a GPU where there is one, else on the CPU. The checkpoint is that of AdamW over so many parameters, one update old,
with weights that are kept for the end; it is written into a store in a directory by the code that trainings use. The
first has the kept weights, the others share them. Every figure is the median of `--rounds`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.devices import best_device, synchronise
from bertkd_ray.execution.checkpoints import keep_checkpoint
from bertkd_ray.training.checkpoint import Checkpoint, TrainState
from bertkd_ray.training.checkpointing import interval_seconds

WIDTH = 1024


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description="The seconds that a checkpoint takes, and how often it is written.")
    parser.add_argument(
        "--millions", type=float, default=148, help="parameters; 148 are multilingual BERT's in training"
    )
    parser.add_argument("--rounds", type=int, default=3, help="checkpoints measured")
    parser.add_argument("--storage", help="directory or URI of the store; a temporary directory by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(
            json.dumps(measure(round(options.millions * 1e6), options.rounds, options.storage or directory), indent=2)
        )


def measure(parameters: int, rounds: int, storage: str, device: torch.device | None = None) -> dict[str, Any]:
    """Bytes, seconds of copy and writing, with the kept weights and without, and the interval that follows.

    device: None takes a GPU where there is one.
    """
    device = device or best_device()
    model = nn.ParameterList(nn.Parameter(torch.randn(WIDTH, WIDTH, device=device)) for _ in range(_blocks(parameters)))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = {1: {name: weight.detach().to("cpu", copy=True) for name, weight in model.state_dict().items()}}
    store, checksums = Store(storage), dict[str, str]()
    copied, written = [], []
    for step in range(1, rounds + 2):
        synchronise(device)
        started = time.perf_counter()
        checkpoint = Checkpoint.of(model.state_dict(), optimizer.state_dict(), kept, TrainState(step=step))
        copied.append(time.perf_counter() - started)

        def save(directory: Path, checkpoint: Checkpoint = checkpoint) -> None:
            checksums.update(checkpoint.write(directory, dict(checksums)))

        started = time.perf_counter()
        keep_checkpoint(store, "work/benchmark", save, step)
        written.append(time.perf_counter() - started)
    files = dict(store.files("work/benchmark"))
    store.delete("work/benchmark")
    blocked, beside = statistics.median(copied[1:]), statistics.median(written[1:])
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "bytes": next(size for name, size in files.items() if name.endswith("training.pt")),
        "bytes_kept": sum(size for name, size in files.items() if name.startswith("kept/")),
        "copied_seconds": blocked,
        "written_seconds": beside,
        "written_seconds_with_kept": written[0],
        "interval_seconds": interval_seconds(blocked, beside, on_gpu=device.type == "cuda"),
    }


def _blocks(parameters: int) -> int:
    return max(1, round(parameters / WIDTH**2))


if __name__ == "__main__":
    main()
