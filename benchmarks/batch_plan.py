"""How long the batch plan of a large corpus takes and how much memory it holds: it reads row counts alone.

    python -m benchmarks.batch_plan --pairs 100000000 1000000000

The corpus is a manifest as prepare writes it, with fragments and row groups of full size and no data behind them. The
row groups and one worker's first windows are what a train worker needs before its first batch; the windows of an epoch
are all that it asks for while it reads the corpus once. Memory is what the manifest, the row groups and the plan add to
the process at most, its resident size before and its peak afterwards.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.setting import Setting
from benchmarks.table import Row
from benchmarks.timing import Spread

PAIRS = 100_000_000
STREAMS = 64
"""Micro-batches an update, and so workers at the most."""
_FINGERPRINT = "0" * 16


def main() -> None:
    """Prints a table, or one measurement as JSON."""
    parser = argparse.ArgumentParser(description="Time and memory of the batch plan, by the number of pairs.")
    parser.add_argument("--pairs", type=int, nargs="+", default=[PAIRS], help="sizes of train to measure")
    parser.add_argument("--fragment-pairs", type=int, default=8192, help="as corpus.fragment_pairs")
    parser.add_argument("--group-pairs", type=int, default=1024, help="as corpus.group_pairs")
    parser.add_argument("--json", action="store_true", help="measure the first size in this process and print JSON")
    options = parser.parse_args()
    if options.json:
        print(json.dumps(_measure(options.pairs[0], options.fragment_pairs, options.group_pairs)))
        return
    rows = [measure(pairs, options.fragment_pairs, options.group_pairs) for pairs in options.pairs]
    names = list(rows[0])
    print("| " + " | ".join(names) + " |\n" + "| ---: " * len(names) + "|")
    for row in rows:
        print("| " + " | ".join(f"{value:,.6g}" if value < 1000 else f"{value:,.0f}" for value in row.values()) + " |")


def measure(pairs: int = PAIRS, fragment_pairs: int = 8192, group_pairs: int = 1024) -> dict[str, float]:
    """The figures of one size, taken in a process of their own so that memory is the plan's."""
    command = [sys.executable, "-m", "benchmarks.batch_plan", "--json", "--pairs", str(pairs)]
    command += ["--fragment-pairs", str(fragment_pairs), "--group-pairs", str(group_pairs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def rows(_: Setting, rounds: int) -> list[Row]:
    """The first windows of all streams of 100 million pairs, and the memory that they take."""
    runs = [measure() for _ in range(rounds)]
    milliseconds = Spread.of([1e3 * run["first_windows_s"] for run in runs])
    memory = Spread.of([run["added_mib"] for run in runs])
    details = {"measured": runs}
    return [
        Row(f"batch plan of {PAIRS:,} pairs, first window of {STREAMS} streams", "ms", milliseconds, details=details),
        Row("its memory, the manifest included", "MiB", memory, goal="bounded"),
    ]


def _measure(pairs: int, fragment_pairs: int, group_pairs: int) -> dict[str, float]:
    import psutil

    from bertkd_ray.artifacts import artifact as artifacts
    from bertkd_ray.artifacts.row_groups import RowGroups
    from bertkd_ray.artifacts.store import Store
    from bertkd_ray.training.batch_plan import BatchPlan, StreamPosition

    figures: dict[str, float] = {"pairs": pairs}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        store = Store(directory)
        figures["manifest_mib"] = _write_manifest(directory, pairs, fragment_pairs, group_pairs) / 2**20
        before = psutil.Process().memory_info().rss
        started = time.perf_counter()
        corpus = artifacts.load(store, f"corpus-{_FINGERPRINT}")
        figures["load_s"] = time.perf_counter() - started
    started = time.perf_counter()
    plan = BatchPlan(RowGroups(corpus, "train/", []).rows, STREAMS, seed=1)
    first = [plan.window(StreamPosition(stream, 0)) for stream in range(STREAMS)]
    figures["first_windows_s"] = time.perf_counter() - started
    assert len(first) == STREAMS
    seconds = []
    rows = 0
    for ordinal in range(plan.windows_per_epoch):
        started = time.perf_counter()
        groups = plan.window(StreamPosition(ordinal, 0))[1]
        seconds.append(time.perf_counter() - started)
        rows += int(plan.group_rows[groups].sum())
    assert rows == pairs
    figures["row_groups"] = len(plan.group_rows)
    figures["windows"] = len(seconds)
    figures["window_us"] = 1e6 * statistics.median(seconds)
    figures["added_mib"] = (_peak_bytes() - before) / 2**20
    return figures


def _write_manifest(directory: str, pairs: int, fragment_pairs: int, group_pairs: int) -> int:
    """A corpus's manifest, written by another process, whose memory is not counted; returns its bytes."""
    arguments = [directory, str(pairs), str(fragment_pairs), str(group_pairs)]
    done = subprocess.run([sys.executable, "-c", _WRITER, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout)


_WRITER = """
import hashlib, sys
from bertkd_ray.artifacts.manifest import MANIFEST, FileEntry, Manifest
from bertkd_ray.artifacts.store import Store

directory, (pairs, fragment_pairs, group_pairs) = sys.argv[1], map(int, sys.argv[2:])
files = []
for first in range(0, pairs, fragment_pairs):
    rows = min(fragment_pairs, pairs - first)
    groups = [min(group_pairs, rows - start) for start in range(0, rows, group_pairs)]
    name = f"train/fragment-{len(files):06d}.parquet"
    files.append(FileEntry(name, 80 * rows, hashlib.sha256(name.encode()).hexdigest(), groups))
manifest = Manifest("corpus", "0" * 16, "", 0.0, {}, {}, files, {}, {}, {})
data = manifest.to_bytes()
Store(directory).write(data, manifest.directory, MANIFEST)
print(len(data))
"""


def _peak_bytes() -> int:
    """This program's own: Linux's `ru_maxrss` begins with what the process that started it held."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0]) * 1024
    import resource

    peak: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
