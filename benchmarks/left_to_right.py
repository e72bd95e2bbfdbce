"""The left-to-right teacher of this version against that of another, which read each pair seven times.

git worktree add /tmp/earlier e066c45
python -m benchmarks.left_to_right /tmp/earlier                 speed: rounds of both in turn, in CPU seconds
python -m benchmarks.left_to_right /tmp/earlier --updates 2400  and a whole training of the earlier one, against a third
--rounds 0 leaves the rounds out

Both are processes of one thread with their own package (`benchmarks.left_to_right_worker`), on Multi30k. The quality of
either is the loss on the valid split, each position predicted after its full left context, the earlier one's as a mask:
so it was trained.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, commit, machine
from benchmarks.setting import find_text
from benchmarks.table import Row, markdown_table, text_table
from benchmarks.timing import ROUNDS, Spread, rates, ratios
from bertkd_ray.training.curves import VALID_LOSS

WORKER = Path(__file__).with_name("left_to_right_worker.py")
Ask = Callable[..., dict[str, float]]


def main() -> None:
    """Measures, prints the table and writes it as JSON."""
    options = _options()
    described = {"text": find_text().name, "rounds": options.rounds, "clock": "cpu", **commit(), "machine": machine()}
    with tempfile.TemporaryDirectory(prefix="left-to-right-") as scratch:
        rows = []
        if options.rounds:
            rows = [_speed(options.earlier, scratch, what, options.rounds) for what in ("extract", "update")]
            rows.append(_memory(options.earlier, scratch))
        if options.updates:
            rows += _training(options.earlier, scratch, options.updates, options.share)
    print(f"\n{markdown_table(rows) if options.markdown else text_table(rows)}")
    options.output.write_text(
        json.dumps({**described, "rows": [row.as_json() for row in rows]}, indent=1) + "\n", encoding="utf-8"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("earlier", type=Path, help="a checkout of the other version")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--updates", type=int, default=0, help="of the earlier one's whole training")
    parser.add_argument("--share", type=float, default=1 / 3, help="of its CPU seconds that the present one may take")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "left-to-right.json")
    return parser.parse_args()


def _started(stack: ExitStack, checkout: Path, storage: str) -> Ask:
    """A worker; what it gives asks it and waits for its answer."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, str(WORKER), str(checkout), storage]
    process = stack.enter_context(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    )
    assert process.stdin
    assert process.stdout
    stack.callback(process.stdin.close)
    requests, answers = process.stdin, process.stdout

    def ask(do: str, **arguments: Any) -> dict[str, float]:
        requests.write(json.dumps({"do": do, **arguments}) + "\n")
        requests.flush()
        answer = answers.readline()
        if not answer:
            raise RuntimeError(f"the worker of {checkout} ended; its output is above")
        return dict(json.loads(answer))

    return ask


def _both(stack: ExitStack, earlier: Path, scratch: str) -> dict[str, Ask]:
    checkouts = {"ours": ROOT, "earlier": earlier}
    return {name: _started(stack, checkout, f"{scratch}/{name}") for name, checkout in checkouts.items()}


def _speed(earlier: Path, scratch: str, what: str, rounds: int) -> Row:
    seconds: dict[str, list[float]] = {"ours": [], "earlier": []}
    with ExitStack() as stack:
        workers = _both(stack, earlier, scratch)
        for index in range(-1, rounds):
            for name in workers if index % 2 == 0 else reversed(workers):
                answer = workers[name](what)
                if index >= 0:
                    seconds[name].append(answer["seconds"])
    values = [rates(answer["amount"], seconds[name]) for name in seconds]
    unit, goal = {"extract": ("pairs/s", "≥ 4.5"), "update": ("updates/s", "")}[what]
    return _row(what, unit, values, goal, {"seconds": seconds})


def _memory(earlier: Path, scratch: str) -> Row:
    """Largest resident set of a process that has extracted a fragment and done nothing else."""
    mib = []
    with ExitStack() as stack:
        for ask in _both(stack, earlier, scratch).values():
            ask("extract")
            mib.append([ask("memory")["mib"]])
    return _row("memory of an extraction", "MiB", mib, "≤ 1", {})


def _training(earlier: Path, scratch: str, updates: int, share: float) -> list[Row]:
    """The earlier one's training, then ours for a share of its seconds, evaluated alike."""
    weights = {name: f"{scratch}/{name}.safetensors" for name in ("ours", "earlier")}
    with ExitStack() as stack:
        workers = _both(stack, earlier, scratch)
        theirs = workers["earlier"]("train", updates=updates, weights=weights["earlier"])["seconds"]
        probe = sorted(workers["ours"]("update")["seconds"] for _ in range(3))[1] / workers["ours"]("update")["amount"]
        ours = int(share * theirs / probe)
        spent = {"ours": workers["ours"]("train", updates=ours, weights=weights["ours"])["seconds"], "earlier": theirs}
        valid = {
            name: workers["ours"]("evaluate", weights=path, masked=name == "earlier") for name, path in weights.items()
        }
    details = {"updates": {"earlier": updates, "ours": ours}, "valid": valid}
    return [
        _row("finetuning", "CPU seconds", [[spent[name]] for name in spent], "≤ 1/3", details),
        _row("after it", "valid perplexity", [[math.exp(valid[name][VALID_LOSS])] for name in valid], "≤ 1", details),
    ]


def _row(what: str, unit: str, values: list[list[float]], goal: str, details: dict[str, Any]) -> Row:
    """values: ours by round, and the earlier one's."""
    ours, theirs = values
    spreads = Spread.of(ours), Spread.of(theirs), ratios(ours, theirs)
    return Row(f"left to right, {what}", unit, *spreads, goal=goal, details=details)


if __name__ == "__main__":
    main()
