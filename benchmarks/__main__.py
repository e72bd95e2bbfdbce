"""Measures every stage on this machine's CPU, and how it scales; prints one table and writes it as JSON.

python -m benchmarks                          all rows, within half an hour on two cores
python -m benchmarks --only extract,distill   some of them
python -m benchmarks --threads 1 --clock cpu  on a machine that does other work meanwhile
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    batch_plan,
    extracting,
    prepare,
    scale_memory,
    scale_overhead,
    scale_workers,
    training,
    translating,
)
from benchmarks.machine import ROOT, commit, machine
from benchmarks.options import add_only
from benchmarks.setting import Setting, find_text
from benchmarks.table import Row, markdown_table, text_table
from benchmarks.timing import ROUNDS

RESULTS = ROOT / "benchmarks" / "results"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
MEASURES: dict[str, Callable[[Setting, int], list[Row]]] = {
    "extract": extracting.measure,
    "finetune": training.finetune,
    "distill": training.distill,
    "packing": training.packing,
    "extract-packing": extracting.packing,
    "translate": translating.measure,
    "wait": training.data_wait,
    "workers": scale_workers.measure,
    "memory": scale_memory.measure,
    "overhead": scale_overhead.measure,
    "prepare": prepare.measure,
    "plan": batch_plan.rows,
}


def main(arguments: list[str] | None = None) -> None:
    """Measures what is asked for."""
    options = _options(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    text = find_text()
    described = {"text": text.name, "rounds": options.rounds, "clock": options.clock, **commit(), "machine": machine()}
    print(_heading(described), flush=True)
    setting = Setting(options.storage, text, CLOCKS[options.clock])
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    for name in options.only:
        started = time.perf_counter()
        rows += MEASURES[name](setting, options.rounds)
        seconds[name] = round(time.perf_counter() - started, 1)
        print(f"{name}: measured in {seconds[name]:.0f} s", flush=True)
    print(f"\n{markdown_table(rows) if options.markdown else text_table(rows)}\n\nText: {text.name}")
    tree = {**described, "seconds": seconds, "rows": [row.as_json() for row in rows]}
    _write(options.output or _default_output(options.only), tree)


def _heading(described: dict[str, Any]) -> str:
    hardware = described["machine"]
    return (
        f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['threads']} threads, "
        f"{' '.join(hardware['features'])}, {hardware['memory_gib']} GiB; "
        f"torch {hardware['libraries']['torch']}; load {hardware['load_at_start'][0]}\n"
        f"text: {described['text']}; {described['rounds']} rounds, {described['clock']} time"
    )


def _default_output(only: list[str]) -> Path:
    name = "cpu" if only == list(MEASURES) else f"cpu-{'-'.join(only)}"
    return RESULTS / f"{name}.json"


def _write(path: Path, tree: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"JSON: {path}")


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number of rounds, 5 or more for a median to rely on")
    return int(text)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    add_only(parser, MEASURES, "rows")
    parser.add_argument("--rounds", type=_rounds, default=ROUNDS, help="times that each side runs (default: 5)")
    parser.add_argument("--threads", type=int, help="torch's threads (default: torch's choice)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="seconds of the wall or of this process's CPUs")
    parser.add_argument("--storage", default=str(ROOT / "artifacts" / "benchmarks"), help="where artifacts are kept")
    parser.add_argument("--output", type=Path, help="the JSON file (default: benchmarks/results/cpu….json)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
